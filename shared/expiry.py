"""What certificates say of time: how long they still last, and that a clock cannot be right.

A certificate is the one statement about time that everybody here believes. Each was made by the authority at the latest
when it begins to be valid, so a clock that shows an earlier time is behind, whatever else is true. Nothing in the
protocol says what time it is: a clock that is ahead shows only when certificates seem to have expired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from shared.certificates import issuer_of, read_authorities
from shared.errors import ConfigError, IdentityError
from shared.findings import Caution
from shared.tls import TlsPaths

RENEW_WITHIN = timedelta(days=7)  # TLS certificates live 30 days: a week is time for a request, a call and a restart
REPLACE_WITHIN = timedelta(days=30)  # a new authority means new files for every member
AUTHORITY = "authority"
TLS, SIGNING, CA = "tls", "signing", "ca"
CERTIFICATES = (TLS, SIGNING, CA)
"""What a daemon stands on, as its metrics call them."""

_DAY = timedelta(days=1)


def lifetimes(ends: Mapping[str, datetime], *, now: datetime, who: str, advice: str) -> str | Caution:
    """How long each lasts, after `who` they are of; a caution when one of them soon ends."""
    shown = ", ".join(f"{name} until {end:%Y-%m-%d} ({(end - now) // _DAY} days left)" for name, end in ends.items())
    said = f"{who}; {shown}"
    if AUTHORITY in ends and ends[AUTHORITY] - now < REPLACE_WITHIN:
        return Caution(said, "the authority ends soon: everybody needs certificates of a new one, and both in [tls] ca")
    if min(ends.values()) - now < RENEW_WITHIN:
        return Caution(said, advice)
    return said


def beginnings(files: Iterable[Path]) -> dict[str, datetime]:
    """When each certificate begins to be valid. A file that cannot be read is left out: another row says so."""
    found: dict[str, datetime] = {}
    for path in files:
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError):
            continue
        found |= {f"the certificate in {path}": certificate.not_valid_before_utc for certificate in certificates}
    return found


def own_ends(tls: TlsPaths, *, signing: datetime) -> dict[str, datetime]:
    """When what a daemon stands on ends: its TLS certificate and the authority that issued it, as the files are now,
    and the signing certificate that it started with. Without the first two while one cannot be read, or they do not
    fit together: they are half replaced, or broken, of which others complain.
    """
    try:
        leaf = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
        authority = issuer_of(leaf, read_authorities(tls.ca.read_bytes()))
    except (OSError, ValueError, ConfigError, IdentityError):
        return {SIGNING: signing}
    return {TLS: leaf.not_valid_after_utc, SIGNING: signing, CA: authority.not_valid_after_utc}


def plausible(now: datetime, past: Mapping[str, datetime]) -> str:
    """The time, when it is later than all that must be past. Raises ConfigError."""
    if not past:
        return f"{_shown(now)}; nothing here tells whether that is right"
    what, latest = max(past.items(), key=lambda known: known[1])
    if now < latest:
        raise ConfigError(
            f"this machine's clock shows {_shown(now)}, but {what} is of {_shown(latest)}: the clock is at least "
            f"{_roughly(latest - now)} behind. Compare it with another one, and let a time service set it (chrony, "
            "systemd-timesyncd); if the clock is right, that file was made with a wrong one"
        )
    return f"{_shown(now)}; {what} is of {_shown(latest)}, so it is not behind that. Nothing here tells more"


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _roughly(length: timedelta) -> str:
    if length >= 2 * _DAY:
        return f"{length // _DAY} days"
    hours = length // timedelta(hours=1)
    return f"{hours} hours" if hours > 1 else f"{length // timedelta(minutes=1) + 1} minutes"
