"""Peers of the HTTP listeners: whoever asks over plain sockets or over TLS, and the certificates for it."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from shared.certificates import SERVER_AUTH
from shared.http_tls import HttpTls
from tests.support.credentials import Consortium, Credentials

PATIENCE_S = 20.0


def head(path: str = "/", *, method: str = "GET", host: str = "localhost", more: str = "") -> bytes:
    """The head of a request."""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def status_of(answer: bytes) -> int:
    """The status of an answer; 0 where there was none."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def read_all(connection: socket.socket) -> bytes:
    """Until the other side ends."""
    answer = bytearray()
    while part := connection.recv(65536):
        answer += part
    return bytes(answer)


def ask(port: int, request: bytes | None = None) -> bytes:
    """One request over plain HTTP, and all that comes back."""
    with dial(port) as connection:
        connection.sendall(head() if request is None else request)
        return read_all(connection)


class Scrapers:
    """An authority for those who collect metrics, and the listener's own certificate."""

    def __init__(self, folder: Path) -> None:
        self.authority = Consortium(folder, consortium="monitoring.example")
        self.listener = self._listener("listener")
        self.prometheus = self.authority.leaf("prometheus")

    def _listener(self, name: str) -> Credentials:
        return self.authority.leaf(name, uris=[], hosts=["localhost", "127.0.0.1"], purpose=SERVER_AUTH)

    @property
    def tls(self) -> HttpTls:
        own = self.listener.tls
        return HttpTls(own.certificate, own.key, own.ca)

    def rotate(self) -> bytes:
        """Another certificate in the place of the listener's; returns it in DER form."""
        newer = self._listener("newer").tls
        newer.key.replace(self.listener.tls.key)
        newer.certificate.replace(self.listener.tls.certificate)
        return ssl.PEM_cert_to_DER_cert(self.listener.tls.certificate.read_text())


def scrape(
    port: int, trusted: Path, shown: Credentials | None, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> tuple[bytes, bytes]:
    """One request over TLS: the answer, and the certificate that the listener showed (DER). Raises OSError."""
    context = ssl.create_default_context(cafile=str(trusted))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = version
    if shown is not None:
        context.load_cert_chain(shown.tls.certificate, shown.tls.key)
    with dial(port) as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(head("/metrics"))
        return read_all(connection), connection.getpeercert(binary_form=True) or b""
