"""The HTTP listeners beside gRPC: small, for looking only, and of no use to whoever would hold them open.

Theory of operation. One thread accepts; each connection has a thread of its own, which shakes hands where there is TLS,
reads one request, answers and closes. So whoever connects and says nothing delays nobody. What such a peer can hold is
bounded: so many connections at once, and of one address so many (what is beyond that is closed at once), a head of so
many bytes, and so many seconds for all of it. Nothing of a request's body is read but to close in peace. What is
answered is in `shared.http_answer`.

With `HttpContexts` the listener speaks TLS 1.3 alone and requires a certificate (`shared.http_tls`). The handshake is
on the connection's thread, within the time for the head.

It ends in a moment: connections are cut, as nothing here is worth waiting for.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

import structlog

from shared.errors import ConfigError
from shared.http_answer import HostRule, Refusal, Routes, answer, is_loopback_name, refused, rendered
from shared.http_tls import HttpContexts

HEAD_MAX_BYTES = 16 * 1024  # a browser sends the cookies of every page on localhost, whatever its port
HEAD_S = 5.0  # from the connection to the end of the request's head, TLS's handshake among it
REPLY_S = 10.0  # from there to the last byte of the answer
LINGER_S = 0.5  # for a peer to take the answer that still sends
LINGER_BYTES = 256 * 1024
CONNECTIONS_MAX = 64
OF_ONE_ADDRESS_MAX = 32  # so that one machine which holds connections does not keep others out
BACKLOG = 64
END_S = 0.5  # from being told to end until the threads of connections are left alone
PAUSE_S = 0.1  # after an accept that failed: too many open files, most likely
READ_BYTES = 4096

_END = b"\r\n\r\n"
_UNPROVEN = "unproven"  # stands in the log for whoever has no identity; all of them share one budget of lines
_log = structlog.get_logger(__name__)


@contextmanager
def serve_http(
    routes: Routes, address: tuple[str, int], *, what: str, tls: HttpContexts | None = None, hosts: HostRule
) -> Iterator[int]:
    """Answer on `address` (host, port; port 0 for any) on threads of its own; yields the port.

    `what` is the listener's table in the configuration, `metrics` or `status`: errors and the log name it. Raises
    ConfigError when it cannot listen there.
    """
    with _listen(address, what=what, hosts=hosts) as listener:
        server = _Server(listener, routes, what=what, hosts=hosts, contexts=tls)
        server.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.close()


def check_can_listen(address: tuple[str, int], *, what: str, hosts: HostRule) -> None:
    """Whether a start could listen there now. Raises ConfigError."""
    _listen(address, what=what, hosts=hosts).close()


def _listen(address: tuple[str, int], *, what: str, hosts: HostRule) -> socket.socket:
    host, port = address
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if hosts is HostRule.LOOPBACK and not is_loopback_name(str(place[0])):
            raise ConfigError(
                f"{what}.listen: {host} is {place[0]} here, which is not a loopback address: write 127.0.0.1"
            )
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past connections do not count
            listener.bind(place)
            listener.listen(BACKLOG)
            listener.settimeout(0)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f'{what}.listen: cannot listen on {shown} ({error.strerror}): choose another port, or "off"'
        ) from None
    return listener


class _Connection:
    """One connection on its thread."""

    def __init__(self, connection: socket.socket, address: str) -> None:
        self.socket = connection
        self.address = address
        self.thread: threading.Thread | None = None

    def cut(self) -> None:
        """From another thread: whatever waits on it goes on with an error."""
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # TLS's own would change what its thread works with

    def shake_hands(self, context: ssl.SSLContext) -> None:
        """Go over to TLS. Raises OSError."""
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.socket.settimeout(HEAD_S)
        self.socket.do_handshake()

    def read_head(self, deadline: float) -> bytes:
        """Up to the empty line; without one where the peer ended before. Raises Refusal, OSError."""
        head = bytearray()
        while _END not in head:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Refusal(HTTPStatus.REQUEST_TIMEOUT, f"expected a request within {HEAD_S:g} s")
            self.socket.settimeout(left)
            try:
                part = self.socket.recv(READ_BYTES)
            except TimeoutError:
                continue
            if not part:
                break
            head += part
            if len(head) > HEAD_MAX_BYTES:
                raise Refusal(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"expected at most {HEAD_MAX_BYTES} bytes of headers"
                )
        return bytes(head)

    def send(self, reply: bytes, deadline: float) -> None:
        """Raises OSError, of a peer that is too slow TimeoutError."""
        rest = memoryview(reply)
        while rest:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            rest = rest[self.socket.send(rest) :]

    def part(self) -> None:
        """End without a reset, which would take the answer from a peer that still sends."""
        with suppress(OSError, ValueError):
            if isinstance(self.socket, ssl.SSLSocket):
                self.socket.settimeout(0)
                with suppress(OSError, ValueError):
                    self.socket.unwrap()  # says that this is the end, and does not wait for the other side's
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
            deadline, taken = time.monotonic() + LINGER_S, 0
            while taken < LINGER_BYTES and (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                part = socket.socket.recv(self.socket, READ_BYTES)
                if not part:
                    break
                taken += len(part)


class _Server:
    """The thread that accepts, and the connections."""

    def __init__(
        self, listener: socket.socket, routes: Routes, *, what: str, hosts: HostRule, contexts: HttpContexts | None
    ) -> None:
        self._listener = listener
        self._routes = routes
        self._what = what
        self._hosts = hosts
        self._contexts = contexts
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        self._ending, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name=f"{what}-http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Accept nothing more, cut what is open."""
        self._end.close()
        self._thread.join()
        self._ending.close()
        with self._lock:
            connections = list(self._open)
        deadline = time.monotonic() + END_S
        for connection in connections:
            connection.cut()
        for connection in connections:
            if connection.thread is not None:
                connection.thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ending, selectors.EVENT_READ)
            while not any(key.fileobj is self._ending for key, _ in selector.select()):
                try:
                    accepted, peer = self._listener.accept()
                except (BlockingIOError, ConnectionError):  # it went away again
                    continue
                except OSError as error:
                    _log.warning("http_not_accepted", listener=self._what, peer=_UNPROVEN, reason=error.strerror)
                    self._ending.settimeout(PAUSE_S)
                    with suppress(TimeoutError):
                        self._ending.recv(1, socket.MSG_PEEK)
                    continue
                self._take(_Connection(accepted, str(peer[0])))

    def _take(self, connection: _Connection) -> None:
        with self._lock:
            of_this = sum(each.address == connection.address for each in self._open)
            full = len(self._open) >= CONNECTIONS_MAX or of_this >= OF_ONE_ADDRESS_MAX
            if not full:
                self._open.add(connection)
        if full:
            self._refuse(connection, "too many are open")
            return
        thread = threading.Thread(
            target=self._serve, args=(connection,), name=f"{self._what}-http-connection", daemon=True
        )
        connection.thread = thread
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            connection.thread = None
            self._refuse(connection, str(error))

    def _refuse(self, connection: _Connection, reason: str) -> None:
        _log.warning(
            "http_connection_refused", listener=self._what, peer=_UNPROVEN, address=connection.address, reason=reason
        )
        self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        with self._lock:
            self._open.discard(connection)
        connection.socket.close()

    def _serve(self, connection: _Connection) -> None:
        try:
            self._converse(connection)
        except ssl.SSLError as error:
            _log.warning(
                "http_handshake_failed",
                listener=self._what,
                peer=_UNPROVEN,
                address=connection.address,
                reason=error.reason or str(error),
            )
            connection.part()
        except OSError:  # it went away, or was too slow
            pass
        finally:
            self._forget(connection)

    def _converse(self, connection: _Connection) -> None:
        deadline = time.monotonic() + HEAD_S
        if self._contexts is not None:
            connection.shake_hands(self._contexts.now())
        try:
            head = connection.read_head(deadline)
            reply = answer(head, routes=self._routes, hosts=self._hosts) if head else b""
        except Refusal as refusal:
            reply = rendered(refused(refusal))
        connection.send(reply, time.monotonic() + REPLY_S)
        connection.part()
