"""What a daemon's status listener answers at /health, and how the command that asks reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus

from pydantic import TypeAdapter, ValidationError

from shared.complaints import first_complaint
from shared.errors import WireError
from shared.http_answer import JSON, Handler, Query, Reply

HEALTH_PATH = "/health"
REPORT_MAX_BYTES = 64 * 1024  # a reason names members, of which a job may have 1,000


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How a daemon is."""

    who: str
    """Its SPIFFE id: on a machine with several daemons the port may be another one's."""
    live: bool
    ready: bool
    why: str
    """Why it is not live, or not ready; empty when it is both."""


_REPORT = TypeAdapter(HealthReport)


def health_route(look: Callable[[], HealthReport]) -> Handler:
    """A route that answers how the daemon is: 200, or 503 when it does not go on."""

    def handler(_query: Query) -> Reply:
        report = look()
        status = HTTPStatus.OK if report.live else HTTPStatus.SERVICE_UNAVAILABLE
        body = json.dumps(asdict(report)) + "\n"
        return Reply(status=status, content_type=JSON, body=body.encode())

    return handler


def read_report(data: bytes) -> HealthReport:
    """What `health_route` answered. Raises WireError."""
    try:
        return _REPORT.validate_json(data, strict=True)
    except ValidationError as error:
        raise WireError(f"expected a daemon's health as JSON, got something else: {first_complaint(error)}") from None


def health_line(*, live: bool, ready: bool, why: str = "") -> str:
    """For people."""
    said = f"{'live' if live else 'not live'}, {'ready' if ready else 'not ready'}"
    return f"{said}: {why}" if why else said
