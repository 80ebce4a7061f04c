"""What a person should look at first when a connection does not come about, from gRPC's own words.

The words on the left are those of grpcio 1.85.1, each brought about in a test against real sockets. gRPC names the
proxy's address where it dialled a proxy, so what "refused" means depends on whether there is one.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from shared.proxies import Proxy

_Causes: TypeAlias = tuple[tuple[tuple[str, ...], str], ...]

INSPECTED = (
    "another coordinator answers, or something on the way (a proxy, a firewall) opens TLS and has to let this "
    "connection through unopened"
)
REFUSED_BY_PROXY = "another program has that port: check the host and port of the proxy with whoever runs it"

_PROXY_STATUS = re.compile(r"http proxy returned response code ([0-9]{3})")
_PROXY_ITSELF: _Causes = (
    (("connection refused",), "nothing listens at the proxy's address: is it up, and host and port right?"),
    (("errors resolving", "name resolution", "dns"), "the proxy's host name does not resolve"),
    (("expected 'h'", "http/1", "http response"), REFUSED_BY_PROXY),
    (
        ("handshake", "socket closed", "timed out", "timeout", "deadline"),
        (
            "the connection through the proxy was closed or stood still. If one was open before, the proxy may close "
            "connections after a time; if none opens at all, ask whoever runs it"
        ),
    ),
)
_SHOWN: _Causes = (  # what the other side showed; the same with a proxy in between
    (
        ("certificate has expired",),
        "its certificate has expired: tell its operator, or see whether this machine's clock is ahead",
    ),
    (("not yet valid",), "its certificate is not valid yet: is this machine's clock behind?"),
    (
        ("unsupported certificate purpose",),
        "what it shows is no coordinator's certificate: is that a participant's or operator's in its [tls]?",
    ),
    (
        ("certificate_verify_failed", "certificate verify failed"),
        f"its certificate is not of the CA in [tls] ca: {INSPECTED}",
    ),
    (("hostname verification", "peer name"), "its certificate is for another host name than the one dialled"),
    (
        ("wrong_version_number", "wrong version number"),
        "what answers there does not speak TLS: another port, or a page of a proxy or firewall",
    ),
    (
        ("alpn",),
        "what answers there speaks TLS but not gRPC: another port, or something on the way that opens TLS",
    ),
)
_DIRECT: _Causes = (
    (("connection refused",), "nothing listens there: is the coordinator running, and the port right?"),
    (
        ("errors resolving", "dns", "name resolution", "resolver"),
        "the host name does not resolve: is it written right?",
    ),
    (("network is unreachable", "no route to host"), "there is no way there from this machine's network"),
    (("endpoint closing", "timed out", "timeout", "deadline"), "no answer: is a firewall between here and there?"),
    (
        ("handshake", "ssl", "socket closed", "recvmsg", "connection reset"),
        (
            "the connection was closed. One that was open before was cut, or the coordinator was ended; if none opens "
            "at all, check this side's certificate: expired, of another CA or not on the allow-list?"
        ),
    ),
)


def likely_cause(detail: str, proxy: Proxy | None = None) -> str:
    """What to check first, from gRPC's own text."""
    lowered = detail.lower()
    refused = _PROXY_STATUS.search(lowered)
    if refused and proxy:
        return proxy_status_cause(int(refused[1]), proxy)
    for words, cause in (*_SHOWN, *(_PROXY_ITSELF if proxy else _DIRECT)):
        if any(word in lowered for word in words):
            return cause
    return "check the address, the network and this side's certificate"


def proxy_status_cause(status: int, proxy: Proxy) -> str:
    """What a proxy means that answers CONNECT with this status."""
    match status:
        case 407 if proxy.has_credentials:
            return (
                f"it does not take the user and password in {proxy.variable}, or wants another kind of proof than "
                "Basic, the only one that gRPC has: ask for an exception for this host and port"
            )
        case 407:
            return f"it wants a user and password: write http://user:password@host:port in {proxy.variable}"
        case 403 | 405 | 451:
            return "it does not allow it: ask whoever runs it to allow CONNECT to the coordinator's host and port"
        case 400 | 404 | 501:
            return "it does not do CONNECT for that: is it a proxy for outgoing connections, and is this its port?"
        case 502 | 503 | 504:
            return "it cannot reach the coordinator: is that running, the name known to the proxy, and the port open?"
        case _:
            return "ask whoever runs it what that means for CONNECT to the coordinator's host and port"
