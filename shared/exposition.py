"""A registry of Prometheus metrics as a route of an HTTP listener."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from shared.http_answer import Handler, Query, Reply, Routes

METRICS_PATH = "/metrics"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

_OPEN_METRICS = "application/openmetrics-text"


def metrics_routes(registry: CollectorRegistry) -> Routes:
    """What a metrics listener answers: one path, in the format that the collector asks for."""
    return {METRICS_PATH: _scraped(registry)}


def _scraped(registry: CollectorRegistry) -> Handler:
    def handler(query: Query) -> Reply:
        # No more of what was sent is looked at: the library takes apart what it believes to be in order.
        encode, content_type = choose_encoder(OPEN_METRICS if _OPEN_METRICS in query.accept else "")
        return Reply(content_type=content_type, body=encode(registry))

    return handler
