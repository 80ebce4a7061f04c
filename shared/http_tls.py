"""Mutual TLS 1.3 for the HTTP listeners, from files that are followed.

It has nothing to do with the consortium's certificates: a listener shows a certificate of its own, and whom it answers
the authority in `clients_ca` says. The files are looked at for each connection, so they are rotated by replacing them;
what is half-way through a change, or broken, is said in the log once, and the last good ones go on. There are no
session tickets, so whoever comes again shows its certificate again.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from shared.certificates import read_authorities, read_der, read_private_key
from shared.errors import ConfigError, IdentityError
from shared.tls import file_stamp, require_private

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HttpTls:
    """What a listener shows, and who issued what it must be shown; all in PEM form."""

    certificate: Path
    """The leaf, and what lies between it and its root, if anything."""
    key: Path
    clients_ca: Path


class HttpContexts:
    """The context of the next connection. Any thread."""

    def __init__(
        self, tls: HttpTls, *, what: str, accept: Callable[[Sequence[x509.Certificate]], None] = lambda _: None
    ) -> None:
        """`what`: the table of the configuration, for errors. `accept` is asked about the authorities in `clients_ca`
        whenever they are read, and raises ConfigError for some that must not stand there. Raises ConfigError.
        """
        self._tls = tls
        self._what = what
        self._accept = accept
        self._lock = threading.Lock()
        self._stamp = self._stamps()
        self._context = self._made()

    def now(self) -> ssl.SSLContext:
        """As the files are now, or were when they were last in order."""
        with self._lock:
            stamp = self._stamps()
            if stamp != self._stamp:
                self._stamp = stamp  # also when it is refused: one line for each change, not for each connection
                try:
                    self._context = self._made()
                except ConfigError as error:
                    _log.warning("http_tls_files_refused", listener=self._what, problem=str(error))
                else:
                    _log.info("http_tls_files_reloaded", listener=self._what)
            return self._context

    def _stamps(self) -> tuple[object, ...]:
        return tuple(map(file_stamp, (self._tls.certificate, self._tls.key, self._tls.clients_ca)))

    def _made(self) -> ssl.SSLContext:
        tls = self._tls
        leaf = self._leaf()
        key = read_private_key(self._read("key", tls.key), path=tls.key)
        require_private(tls.key)
        if key.public_key() != leaf.public_key():
            raise ConfigError(f"{self._what}.key: {tls.key} is not the key of {tls.certificate}: they were made apart")
        try:
            authorities = read_authorities(self._read("clients_ca", tls.clients_ca))
        except ConfigError as error:
            raise ConfigError(f"{self._what}.clients_ca: {tls.clients_ca}: {error}") from None
        self._accept(authorities)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        try:
            context.load_cert_chain(tls.certificate, tls.key)
            context.load_verify_locations(
                cadata=b"".join(authority.public_bytes(Encoding.DER) for authority in authorities)
            )
        except (OSError, ValueError) as error:  # the files changed since, or hold what TLS cannot use
            raise ConfigError(
                f"{self._what}.certificate: {tls.certificate} and {tls.key} cannot be used for TLS ({error})"
            ) from None
        return context

    def _leaf(self) -> x509.Certificate:
        path = self._tls.certificate
        try:
            return read_der(x509.load_pem_x509_certificate(self._read("certificate", path)).public_bytes(Encoding.DER))
        except (ValueError, IdentityError):
            raise ConfigError(
                f"{self._what}.certificate: {path}: expected a certificate in PEM form, got something else"
            ) from None

    def _read(self, key: str, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{self._what}.{key}: {path} cannot be read ({error.strerror}): check the path and who runs this "
                "process"
            ) from None
