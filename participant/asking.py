"""Asking the own daemon at its status listener, as a health check of a container does."""

from __future__ import annotations

import http.client

from participant.settings import ParticipantSettings
from shared.certificates import uris_of
from shared.errors import ConfigError, IdentityError, UnreachableError, WireError
from shared.health_report import HEALTH_PATH, REPORT_MAX_BYTES, HealthReport, read_report
from shared.tls import leaf_in

ANSWER_S = 5.0


def ask_health(settings: ParticipantSettings) -> HealthReport:
    """Ask the daemon of this configuration. Raises ConfigError, UnreachableError, IdentityError."""
    address = settings.status.address
    if address is None:
        raise ConfigError('status.listen is "off", and the daemon is asked there: name a loopback address')
    host, port = address
    listen = settings.status.listen
    if port == 0:
        raise ConfigError(f"status.listen is {listen}, a port that each start chooses anew: name one to ask there")
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        connection.request("GET", HEALTH_PATH, headers={"Host": "localhost"})
        report = read_report(connection.getresponse().read(REPORT_MAX_BYTES))
    except ConnectionRefusedError:
        raise UnreachableError(
            f"nothing listens on {listen}: the daemon is not running, is starting, or found that port taken when it "
            "started (its log says `status_unavailable` then)"
        ) from None
    except TimeoutError:
        raise UnreachableError(f"what listens on {listen} did not answer within {ANSWER_S:g} s: it hangs") from None
    except (OSError, http.client.HTTPException, WireError):
        raise IdentityError(
            f"what answers on {listen} is no participant daemon: another process has that port (`ss -ltnp` shows which)"
        ) from None
    finally:
        connection.close()
    expected = uris_of(leaf_in(settings.tls.certificate))
    if [report.who] != expected:
        raise IdentityError(
            f"expected {' '.join(expected)} to answer on {listen}, got {report.who[:300]}: give each daemon on this "
            "machine a port of its own under [status]"
        )
    return report
