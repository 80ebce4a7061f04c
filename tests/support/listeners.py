"""What may listen where a coordinator should: on loopback, for as long as a `with` lasts."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from tests.support.credentials import Credentials

SHAKE_LIMIT_S = 5.0


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serves one connection after the other; gives the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_accept, args=(server, serve), daemon=True)
        thread.start()
        try:
            yield f"localhost:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)  # which ends the wait for the next one
            thread.join(2 * SHAKE_LIMIT_S)


def _accept(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return
        with line, suppress(OSError):  # of TLS, too
            line.settimeout(SHAKE_LIMIT_S)
            serve(line)


def shows(
    credentials: Credentials, *, protocols: Sequence[str] = ("h2",), at_most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> Callable[[socket.socket], None]:
    """Ends TLS with these credentials, asks for none, and says nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = at_most
    context.load_cert_chain(credentials.tls.certificate, credentials.tls.key)
    if protocols:
        context.set_alpn_protocols(list(protocols))

    def serve(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as shaken:
            shaken.recv(1)

    return serve


def says(words: bytes) -> Callable[[socket.socket], None]:
    """No TLS: words, whatever comes."""

    def serve(line: socket.socket) -> None:
        line.recv(1)
        line.sendall(words)

    return serve
