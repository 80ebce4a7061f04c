"""How long certificates last, and clocks that cannot be right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.errors import ConfigError
from shared.expiry import AUTHORITY, CA, CERTIFICATES, SIGNING, TLS, beginnings, lifetimes, own_ends, plausible
from shared.findings import Caution
from tests.support.credentials import Consortium

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def in_days(days: float) -> datetime:
    return NOW + timedelta(days=days)


def test_certificates_that_last_are_no_warning() -> None:
    found = lifetimes({"TLS": in_days(7.5), "signing": in_days(300)}, now=NOW, who="silo", advice="renew")
    assert found == "silo; TLS until 2026-12-07 (7 days left), signing until 2027-09-25 (300 days left)"


@pytest.mark.parametrize("ends", [{"TLS": in_days(6.9), "signing": in_days(300)}, {"TLS": NOW, "signing": NOW}])
def test_one_that_soon_ends_is_a_warning_with_what_to_do(ends: dict[str, datetime]) -> None:
    found = lifetimes(ends, now=NOW, who="silo", advice="renew")
    assert isinstance(found, Caution)
    assert found.advice == "renew"


def test_an_authority_that_soon_ends_is_another_warning() -> None:
    ends = {"TLS": in_days(20), AUTHORITY: in_days(29)}
    found = lifetimes(ends, now=NOW, who="silo", advice="renew")
    assert isinstance(found, Caution)
    assert "the authority ends soon" in found.advice


def test_a_clock_before_what_is_past_is_wrong() -> None:
    past = {"the file": in_days(-2), "the log": in_days(3)}
    with pytest.raises(ConfigError, match=r"but the log is of 2026-12-02 12:00:00 UTC: the clock is at least 3 days"):
        plausible(NOW, past)
    assert plausible(in_days(3.1), past).startswith("2026-12-02 14:24:00 UTC; the log is of 2026-12-02 12:00:00")
    assert "nothing here tells" in plausible(NOW, {})


def test_certificates_say_when_they_begin(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path, now=NOW)
    tls = consortium.participant("hospital-a").tls
    found = beginnings((tls.certificate, tls.ca, tmp_path / "none", tls.key))
    assert list(found) == [f"the certificate in {tls.certificate}", f"the certificate in {tls.ca}"]
    assert all(NOW - timedelta(hours=1) < begins <= NOW for begins in found.values())


def test_a_daemon_knows_when_what_it_stands_on_ends(tmp_path: Path) -> None:
    consortium, signing = Consortium(tmp_path / "ours", now=NOW), in_days(300)
    tls = consortium.participant("hospital-a").tls
    found = own_ends(tls, signing=signing)
    assert list(found) == list(CERTIFICATES)
    assert NOW < found[TLS] < found[SIGNING] == signing < found[CA]
    successor = Consortium(tmp_path / "next", now=in_days(-1)).participant("hospital-a").tls
    tls.ca.write_bytes(successor.ca.read_bytes() + tls.ca.read_bytes())
    assert own_ends(tls, signing=signing) == found, "of several authorities, the one that issued the certificate"
    tls.ca.write_bytes(successor.ca.read_bytes())
    assert own_ends(tls, signing=signing) == {SIGNING: signing}, "half replaced"
    tls.certificate.unlink()
    assert own_ends(tls, signing=signing) == {SIGNING: signing}
