"""The participant's metrics for Prometheus: `declared` says which there are, `observer` keeps them."""

from participant.metrics.observer import ParticipantMetrics

__all__ = ["ParticipantMetrics"]
