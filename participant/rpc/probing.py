"""One step of a connection after the other, with plain sockets: what gRPC does in one, and sums up in one word.

For `consilo participant doctor`. Each step returns what it saw, or raises UnreachableError or IdentityError with what a
person should do. The first handshake shows no certificate of ours and believes nothing: it only looks at what the other
side presents. Only when that is the consortium's is a second one made with our certificate, to hear whether it is
accepted; gRPC would say "socket closed" of every refusal.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes

from cryptography import x509

from shared.certificates import SERVER_AUTH, check_leaf, hosts_of, read_authorities, read_der, require_purpose
from shared.errors import ConfigError, IdentityError, UnreachableError
from shared.proxies import Proxy
from shared.reaching import REFUSED_BY_PROXY, proxy_status_cause
from shared.tls import TlsPaths

STEP_LIMIT_S = 5.0  # each step; whoever waits longer for a connection has the answer
ANSWER_MAX_BYTES = 16 * 1024  # a proxy's answer to CONNECT

_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Place:
    """One address that a name stands for, and how long a connection to it took, or why there is none."""

    address: str
    took_s: float
    trouble: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Presented:
    """What the other side showed in a handshake in which nothing was believed."""

    version: str
    protocol: str
    certificate: x509.Certificate


def resolve(host: str, port: int) -> tuple[str, ...]:
    """The addresses that a name stands for, each once, in the order of this machine. Raises UnreachableError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnreachableError(
            f"{host} does not resolve ({error}): check the name, this machine's resolver (/etc/resolv.conf), and that "
            "the name is known inside your network"
        ) from None
    return tuple(dict.fromkeys(str(place[0]) for *_, place in found))


def try_each(addresses: tuple[str, ...], port: int) -> tuple[Place, ...]:
    """Whether each of them answers on the port."""
    return tuple(_try(address, port) for address in addresses)


def _try(address: str, port: int) -> Place:
    began = time.monotonic()
    try:
        socket.create_connection((address, port), STEP_LIMIT_S).close()
    except OSError as error:
        return Place(
            address, time.monotonic() - began, _trouble(error), refused=isinstance(error, ConnectionRefusedError)
        )
    return Place(address, time.monotonic() - began)


def _trouble(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return f"no answer within {STEP_LIMIT_S:g} s"
    if error.errno in _UNREACHABLE:
        return f"no way there ({error.strerror})"
    return error.strerror or str(error)


@contextmanager
def connected(host: str, port: int, *, proxy: Proxy | None, credentials: str | None) -> Iterator[socket.socket]:
    """A connection as far as the coordinator's port, through the proxy if there is one. Raises UnreachableError, of
    an OSError in the block too: only the line may be at fault there.
    """
    first = (proxy.host, proxy.port) if proxy else (host, port)
    try:
        with socket.create_connection(first, STEP_LIMIT_S) as line:
            if proxy:
                _ask_for_tunnel(line, _joined(host, port), proxy, credentials)
            yield line
    except OSError as error:
        raise UnreachableError(f"{_joined(*first)}: {_trouble(error)}") from None


def _ask_for_tunnel(line: socket.socket, target: str, proxy: Proxy, credentials: str | None) -> None:
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: consilo-doctor\r\n"
    if credentials is not None:
        request += f"Proxy-Authorization: Basic {b64encode(unquote_to_bytes(credentials)).decode()}\r\n"
    try:
        line.sendall(f"{request}\r\n".encode())
        head = _head(line)
    except TimeoutError:
        raise UnreachableError(
            f"the proxy {proxy} took the connection and did not answer CONNECT {target} within {STEP_LIMIT_S:g} s: it "
            "may wait for the coordinator, of which a firewall behind it lets nothing through. Ask whoever runs it"
        ) from None
    words = head.split(b" ", 2)
    if not words[0].startswith(b"HTTP/") or len(words) < 2 or not words[1][:3].isdigit():
        raise UnreachableError(f"{proxy} answers, but not as an HTTP proxy does: {REFUSED_BY_PROXY}")
    status = int(words[1][:3])
    if not 200 <= status < 300:
        raise UnreachableError(
            f"the proxy {proxy} answered CONNECT {target} with {status}: {proxy_status_cause(status, proxy)}"
        )


def _head(line: socket.socket) -> bytes:
    """What comes before the empty line; a byte at a time, because what follows belongs to the tunnel."""
    head = b""
    ends_at = time.monotonic() + STEP_LIMIT_S
    while not head.endswith(b"\r\n\r\n") and len(head) < ANSWER_MAX_BYTES and time.monotonic() < ends_at:
        byte = line.recv(1)
        if not byte:
            break
        head += byte
    return head


def look_at(line: socket.socket, host: str) -> Presented:
    """A handshake that believes nothing and shows nothing. Raises UnreachableError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(line, server_hostname=host) as shaken:
            der = shaken.getpeercert(binary_form=True)
            if der is None:
                raise UnreachableError("the other side presented no certificate: something else listens there")
            return Presented(shaken.version() or "none", shaken.selected_alpn_protocol() or "none", read_der(der))
    except ssl.SSLError as error:
        raise UnreachableError(
            f"what answers there does not speak TLS as a coordinator does ({error.reason or error}): another port, a "
            "page of a proxy or firewall, or a coordinator behind something that ends TLS"
        ) from None
    except IdentityError as error:
        raise UnreachableError(f"what answers there presents something else than a certificate ({error})") from None


def authorities_in(path: Path) -> tuple[x509.Certificate, ...]:
    """Raises ConfigError."""
    try:
        return read_authorities(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def believe(presented: Presented, *, host: str, authorities: tuple[x509.Certificate, ...], now: datetime) -> str:
    """The identity in the certificate, if it is of this consortium and for this host. Raises IdentityError."""
    uri = check_leaf(presented.certificate, authorities=authorities, now=now)
    require_purpose(presented.certificate, SERVER_AUTH)
    hosts = hosts_of(presented.certificate)
    if not any(_names_host(name, host) for name in hosts):
        raise IdentityError(
            f"the certificate is for {', '.join(hosts) or 'no host'}, and {host} was dialled: dial one of these, "
            "or have the coordinator's certificate made for this name too (`consilo pki sign --dns`)"
        )
    return uri


def _names_host(name: str, host: str) -> bool:
    if name.startswith("*."):
        return host.lower().partition(".")[2] == name[2:].lower()
    return name.lower() == host.lower()


def own_context(tls: TlsPaths) -> ssl.SSLContext:
    """For a handshake with this silo's certificate. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError too
        raise ConfigError(
            f"[tls]: {tls.ca}, {tls.certificate} and {tls.key} cannot be used together ({error.strerror or error}): "
            "see the row 'credentials'; were they changed just now?"
        ) from None
    return context


def offer(line: socket.socket, host: str, context: ssl.SSLContext) -> None:
    """A second handshake, with `own_context`. Raises IdentityError when this silo's certificate is not accepted."""
    try:
        with context.wrap_socket(line, server_hostname=host) as shaken:
            refused = "" if shaken.recv(1) else "closed"  # gRPC speaks first, or hangs up without an alert
    except ssl.SSLError as error:
        refused = error.reason or str(error)
    except ConnectionError:
        refused = "reset"
    if refused:
        raise IdentityError(
            f"the coordinator ended the connection ({refused}) when it saw this silo's TLS certificate: it does not "
            "know the authority that signed it, or it is expired by that machine's clock. Compare ca.crt and the time "
            "with its operator"
        )


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
