"""The coordinator's metrics for Prometheus: `declared` says which there are, the other rooms keep them.

The conductor's thread and the event loop each keep their own, so that nothing here needs a lock beside those of
prometheus_client. What somebody else counts anyway is read at each scrape, on the thread that answers it.
"""

from coordinator.metrics.declared import JOBS_SHOWN_MAX, PHASES
from coordinator.metrics.observer import CoordinatorMetrics

__all__ = ["JOBS_SHOWN_MAX", "PHASES", "CoordinatorMetrics"]
