"""Metrics by plain HTTP on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIServer

from prometheus_client import start_http_server

from coordinator.metrics.observer import CoordinatorMetrics
from shared.errors import ConfigError


@contextmanager
def serve_metrics(metrics: CoordinatorMetrics, address: tuple[str, int]) -> Iterator[int]:
    """Answer /metrics on a thread of its own; yields the port. Raises ConfigError."""
    host, port = address
    try:
        server, thread = start_http_server(port, host, registry=metrics.registry)
    except OSError as error:
        raise ConfigError(
            f'metrics.listen: cannot listen on {host}:{port} ({error.strerror}): choose another port, or "off"'
        ) from None
    assert isinstance(server, WSGIServer)  # noqa: S101 - for the types
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
