"""The two HTTP listeners of either daemon: what may be said of them in a configuration, and opening them.

Metrics may be collected from another machine, the status page never is. Metrics name silos and say how their rounds
go, so away from loopback whoever collects them shows a certificate; plain HTTP is answered there only where the
configuration says in so many words that the network is internal. The status page is for whoever is on the machine, or
comes by way of `ssh -L`, so it needs no accounts and has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import Field, model_validator

from shared.certificates import read_authorities
from shared.config import OFF, ListenerAddress, LocalPath, TlsTable, split_address
from shared.errors import ConfigError
from shared.http_answer import HostRule, Routes, is_loopback_name
from shared.http_server import check_can_listen, serve_http
from shared.http_tls import HttpContexts, HttpTls
from shared.job import Table

METRICS = "metrics"
STATUS = "status"

LOCAL = "for this machine alone"
NO_STATUS_PAGE = "the daemon starts without a status page"

_TLS_KEYS = ("certificate", "key", "clients_ca")
_log = structlog.get_logger(__name__)


class MetricsTable(Table):
    """[metrics]: away from loopback with mutual TLS, or on a network that is said to be internal."""

    listen: ListenerAddress = Field(description='host:port where /metrics answers, or "off".')
    certificate: LocalPath | None = Field(
        default=None,
        description="The certificate shown there (PEM), none of the consortium's; with `key` and `clients_ca`.",
    )
    key: LocalPath | None = Field(
        default=None, description="Its private key (PEM, unencrypted, readable by its owner only)."
    )
    clients_ca: LocalPath | None = Field(
        default=None, description="The authority whose certificates may collect (PEM), not the consortium's."
    )
    internal_network: bool = Field(
        default=False,
        description="Answer plain HTTP on an address that is not loopback: only who may read metrics reaches it.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in _TLS_KEYS if getattr(self, name) is not None]
        if given and len(given) < len(_TLS_KEYS):
            missing = " and ".join(name for name in _TLS_KEYS if name not in given)
            raise ValueError(f"expected all of certificate, key and clients_ca, or none of them; not given: {missing}")
        if given and self.internal_network:
            raise ValueError(
                "internal_network = true means plain HTTP, and certificate, key and clients_ca mean TLS: "
                "take one of the two out"
            )
        if self.listen == OFF:
            return self
        if is_loopback_name(split_address(self.listen)[0]):
            if self.internal_network:
                raise ValueError(
                    f"internal_network = true has no meaning where only this machine can connect ({self.listen}): "
                    "take it out, so that it does not stand there when the address is changed"
                )
        elif not given and not self.internal_network:
            raise ValueError(
                f"listen: {self.listen} is not a loopback address, so other machines would read the metrics by plain "
                "HTTP: set certificate, key and clients_ca (mutual TLS), or internal_network = true if only your "
                "Prometheus reaches that network, or listen on 127.0.0.1"
            )
        return self

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port; None when it is off."""
        return _address_of(self.listen)

    @property
    def tls(self) -> HttpTls | None:
        if self.certificate is None or self.key is None or self.clients_ca is None:
            return None
        return HttpTls(self.certificate, self.key, self.clients_ca)

    @property
    def hosts(self) -> HostRule:
        """Without TLS, a browser that reaches it could be talked into reading it."""
        if self.tls is not None:
            return HostRule.ANY
        return HostRule.INTERNAL if self.internal_network else HostRule.LOOPBACK


class StatusTable(Table):
    """[status]: plain HTTP on loopback, and nowhere else."""

    listen: ListenerAddress = Field(description='Loopback host:port of the status page, or "off".')

    @model_validator(mode="after")
    def _on_loopback(self) -> Self:
        if self.listen != OFF and not is_loopback_name(split_address(self.listen)[0]):
            raise ValueError(
                f'listen: expected a loopback address such as 127.0.0.1:9466, or "off", got {self.listen}: from '
                "another machine look at it by way of `ssh -L`"
            )
        return self

    @property
    def address(self) -> tuple[str, int] | None:
        """Host and port; None when it is off."""
        return _address_of(self.listen)


def metrics_table(default: str) -> Any:
    """A field for [metrics] whose address is `default` unless the file says otherwise."""
    return Field(default=MetricsTable(listen=default), description="Where Prometheus collects.")


def status_table(default: str) -> Any:
    """A field for [status] whose address is `default` unless the file says otherwise."""
    return Field(default=StatusTable(listen=default), description="Where the status page is, for this machine alone.")


class Listens(Protocol):
    """What is read here of either daemon's configuration."""

    @property
    def tls(self) -> TlsTable: ...

    @property
    def metrics(self) -> MetricsTable: ...

    @property
    def status(self) -> StatusTable: ...

    @property
    def status_wanted(self) -> bool: ...


@contextmanager
def serve_listeners(settings: Listens, *, metrics: Routes, status: Routes) -> Iterator[tuple[str, str]]:
    """Both, while the body runs; where each answers, as below. Raises ConfigError."""
    with (
        serve_metrics(settings.metrics, metrics, consortium_ca=settings.tls.ca) as metrics_at,
        serve_status(settings.status, status, wanted=settings.status_wanted) as status_at,
    ):
        yield metrics_at, status_at


@contextmanager
def serve_metrics(table: MetricsTable, routes: Routes, *, consortium_ca: Path) -> Iterator[str]:
    """Answer on the address of [metrics]; yields host:port as it became, or "off". Raises ConfigError."""
    if table.address is None:
        yield OFF
        return
    contexts = None if table.tls is None else _contexts(table.tls, consortium_ca)
    with serve_http(routes, table.address, what=METRICS, tls=contexts, hosts=table.hosts) as port:
        yield _shown(table.listen, port)


@contextmanager
def serve_status(table: StatusTable, routes: Routes, *, wanted: bool) -> Iterator[str]:
    """Answer on the address of [status]; yields host:port as it became, or "off".

    Raises ConfigError when it is `wanted` and cannot be. An address that nobody chose may be taken: several daemons on
    one machine all have the same default, and a page that nobody asked for keeps none of them from starting.
    """
    with ExitStack() as serving:
        shown = OFF
        if table.address is not None:
            try:
                port = serving.enter_context(serve_http(routes, table.address, what=STATUS, hosts=HostRule.LOOPBACK))
                shown = _shown(table.listen, port)
            except ConfigError as error:
                if wanted:
                    raise
                _log.warning("status_unavailable", reason=str(error), then=NO_STATUS_PAGE)
        yield shown


def check_metrics(table: MetricsTable, *, consortium_ca: Path) -> str:
    """What a start would meet, without the address. Raises ConfigError."""
    if table.address is None:
        return OFF
    if table.tls is None:
        return f"{table.listen}, by plain HTTP, {'on an internal network' if table.internal_network else LOCAL}"
    _contexts(table.tls, consortium_ca)
    return f"{table.listen}, by mutual TLS"


def check_address(table: MetricsTable | StatusTable, *, what: str) -> None:
    """Whether a start could listen there now. Raises ConfigError."""
    hosts = HostRule.LOOPBACK if isinstance(table, StatusTable) else table.hosts
    if table.address is not None:
        check_can_listen(table.address, what=what, hosts=hosts)


def _contexts(tls: HttpTls, consortium_ca: Path) -> HttpContexts:
    """Raises ConfigError."""

    def require_others(authorities: Sequence[x509.Certificate]) -> None:
        """With the consortium's authority every silo could collect, whichever certificate of its key stands there."""
        try:
            ours = set(map(_key_of, read_authorities(consortium_ca.read_bytes())))
        except (OSError, ConfigError) as error:
            raise ConfigError(
                f"{METRICS}.clients_ca: {tls.clients_ca} cannot be compared with the consortium's authority: "
                f"{consortium_ca} cannot be used ({error}): mend that file first"
            ) from None
        if any(_key_of(each) in ours for each in authorities):
            raise ConfigError(
                f"{METRICS}.clients_ca: {tls.clients_ca} is the consortium's authority, so every member could collect "
                "these metrics: make an authority of your own for whoever collects"
            )

    return HttpContexts(tls, what=METRICS, accept=require_others)


def _key_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _address_of(listen: str) -> tuple[str, int] | None:
    return None if listen == OFF else split_address(listen)


def _shown(listen: str, port: int) -> str:
    return f"{listen.rpartition(':')[0]}:{port}"
