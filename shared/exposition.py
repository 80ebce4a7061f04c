"""A registry of Prometheus metrics as a route of an HTTP listener."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from shared.http_answer import Handler, Query, Reply, Routes

METRICS_PATH = "/metrics"


def metrics_routes(registry: CollectorRegistry) -> Routes:
    """What a metrics listener answers: one path, in the format that the collector asks for."""
    return {METRICS_PATH: _scraped(registry)}


def _scraped(registry: CollectorRegistry) -> Handler:
    def handler(query: Query) -> Reply:
        try:
            encode, content_type = choose_encoder(query.accept)
        except ValueError:  # a version that is none
            encode, content_type = choose_encoder("")
        return Reply(content_type=content_type, body=encode(registry))

    return handler
