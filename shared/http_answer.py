"""What an HTTP listener answers to the head of a request: bytes in, bytes out, no socket.

The listeners (metrics, the status page) are for looking: GET and HEAD, no body, one request for each connection. So
little of HTTP is needed that all of it is here, on the parser of the standard library. A head is text of a stranger's
choosing: whatever it is, there is an answer, and no answer says more than a fixed short sentence.

`Host` is looked at because a listener on loopback is reached by every page that a browser on this machine shows: a page
whose name its owner points at 127.0.0.1 (DNS rebinding) would read what stands there as its own. Its browser says that
name in `Host`, so only names of loopback are answered. A listener that answers plain HTTP on an internal network is
asked by its address, or by a name without a dot, as container networks give them: the name that an attacker owns has a
dot. Where whoever asks shows a certificate, that is what counts, and any name will do. A page of another site that only
makes a browser ask, without reading what comes, is refused as well: browsers say so in `Sec-Fetch-Site`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import TypeAlias
from urllib.parse import parse_qsl

import structlog

PARAMETERS_MAX = 32
TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
JSON = "application/json"
# A page may take a style sheet and pictures from its own listener, and nothing from anywhere else: no script at all.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_LOCALHOST = "localhost"
_PREFIX = "/*"
_log = structlog.get_logger(__name__)


class HostRule(Enum):
    """By which names a listener goes."""

    LOOPBACK = "loopback"
    """`localhost`, or a literal address of loopback, with any port; and it listens on loopback only."""
    INTERNAL = "internal"
    """Those, every literal address, and every name without a dot."""
    ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What was asked for."""

    path: str
    """As it was sent, without the query."""
    rest: str = ""
    """What stands in the place of `*` where the route was a prefix: `a/b` for `/jobs/a/b` and `/jobs/*`."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Of a name that came twice, the last."""
    accept: str = ""
    """The header of that name: which forms the asker reads. Empty where it is not plain text of one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is answered. `headers` come on top of `SECURITY_HEADERS`, and in the place of one of the same name."""

    status: int = 200
    content_type: str = TEXT
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Handler: TypeAlias = Callable[[Query], Reply]
Routes: TypeAlias = Mapping[str, Handler]
"""Path to handler. `/jobs/*` takes every path below `/jobs/`; an exact path goes before a prefix, and a longer prefix
before a shorter one. Handlers run on the threads of connections, several at once.
"""


class Refusal(Exception):  # noqa: N818 - an answer
    """A request that gets a short text in place of what it asked for."""

    def __init__(self, status: HTTPStatus, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def answer(head: bytes, *, routes: Routes, hosts: HostRule) -> bytes:
    """The whole answer to a request whose head this is. Never raises."""
    request = _Request(head)
    try:
        request.parse()
        reply = _reply(request, routes, hosts)
    except Refusal as refusal:
        reply = refused(refusal)
    except Exception:  # noqa: BLE001 - the stream boundary: nothing of a bug's text leaves this process
        _log.exception("internal_error", doing="http", peer="unproven")
        reply = refused(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "an error of this process: its log has the details"))
    return rendered(reply, with_body=request.command != "HEAD")


def refused(refusal: Refusal) -> Reply:
    """The reply that says so."""
    headers = {name.replace("_", "-"): value for name, value in refusal.headers.items()}
    return Reply(status=refusal.status, body=f"{refusal}\n".encode(), headers=headers)


def rendered(reply: Reply, *, with_body: bool = True) -> bytes:
    """A reply as it goes over the wire."""
    status = HTTPStatus(reply.status)
    headers = {
        "Content-Type": reply.content_type,
        "Content-Length": str(len(reply.body)),
        "Connection": "close",
        **SECURITY_HEADERS,
        **reply.headers,
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (reply.body if with_body else b"")


def _reply(request: _Request, routes: Routes, hosts: HostRule) -> Reply:
    _require_known_host(_without_port(request.only("Host")), hosts)
    if request.headers.get("Sec-Fetch-Site", "").strip().lower() == "cross-site":
        raise Refusal(HTTPStatus.FORBIDDEN, "this was asked for by a page of another site: open it by itself")
    if request.command not in {"GET", "HEAD"}:
        raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here", Allow="GET, HEAD")
    path, _, asked = request.path.partition("?")
    if not path.startswith("/"):
        raise Refusal(HTTPStatus.BAD_REQUEST, "expected a path that begins with /")
    handler, rest = _route(path, routes)
    try:
        parameters = dict(parse_qsl(asked, keep_blank_values=True, max_num_fields=PARAMETERS_MAX))
    except ValueError:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"expected at most {PARAMETERS_MAX} parameters") from None
    accept = str(request.headers.get("Accept", ""))
    plain = accept.isascii() and accept.isprintable()
    return handler(Query(path=path, rest=rest, parameters=parameters, accept=accept if plain else ""))


def _require_known_host(host: str, hosts: HostRule) -> None:
    if hosts is HostRule.LOOPBACK and not is_loopback_name(host):
        raise Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            "this listener answers to localhost, 127.0.0.1 and [::1] only: ask for it by one of these names",
        )
    if hosts is HostRule.INTERNAL and "." in host and _address(host) is None:
        raise Refusal(
            HTTPStatus.MISDIRECTED_REQUEST,
            "this listener answers to its address, and to a name without a dot: ask for it by one of these",
        )


def _route(path: str, routes: Routes) -> tuple[Handler, str]:
    if path in routes and not path.endswith(_PREFIX):
        return routes[path], ""
    prefixes = [route for route in routes if route.endswith(_PREFIX) and path.startswith(route.removesuffix("*"))]
    if not prefixes:
        raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")
    longest = max(prefixes, key=len)
    return routes[longest], path[len(longest) - 1 :]


def is_loopback_name(host: str) -> bool:
    """Whether a host, by name or by address, can be nothing but this machine."""
    address = _address(host)
    return host.lower() == _LOCALHOST or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The literal address that a host is, with or without the brackets that IPv6 has in a URL."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        # A zone names an interface of whoever asks: nothing that a listener goes by.
        return None if "%" in bare else ipaddress.ip_address(bare)
    except ValueError:
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isascii() and port.isdigit() and (":" not in name or name.endswith("]")) else host


class _Request(BaseHTTPRequestHandler):
    """The standard library's parser, without its socket and without its own answers."""

    def __init__(self, head: bytes) -> None:
        # The parent's would serve a socket at once.
        self.rfile = BytesIO(head)
        self.command = ""
        self.protocol_version = "HTTP/1.1"
        self._trouble: Refusal | None = None

    def parse(self) -> None:
        """Raises Refusal for what is no request of HTTP/1."""
        self.raw_requestline = self.rfile.readline()
        if not self.parse_request() or not self.request_version.startswith("HTTP/1."):
            raise self._trouble or Refusal(HTTPStatus.BAD_REQUEST, "expected a request of HTTP/1.1")

    def only(self, name: str) -> str:
        """A header that comes once. Raises Refusal."""
        values = self.headers.get_all(name, [])
        if len(values) != 1:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"expected one header {name}")
        value: str = values[0].strip()
        return value

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - as the parent calls it
        """What the parser found. Its message may quote the request, so only the status is said."""
        status = HTTPStatus(code)
        self._trouble = Refusal(status, status.phrase.lower())

    def handle_expect_100(self) -> bool:
        """Nothing is said before the answer: a body is not read."""
        return True
