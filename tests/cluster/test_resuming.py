"""A link that is cut again and again: transfers go on where they were, and hardly a byte is sent twice.

What is counted are the bytes that the link took from their sender, with TLS, HTTP/2 and all that got no further.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from tests.support.federation import job_spec, rounds_of
from tests.support.links import VICTIM, assert_no_traceback, constant_federation, linked
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.cluster]

MEMBERS = ("hospital-a", VICTIM)
SENT_LIMIT = 1.05
CUT_LIMIT_S = 120.0
PATIENT = {"deadline_s": 600.0, "upload_deadline_s": 600.0}


def cut_often(link: FaultProxy, size: int, cuts: int, *, up: bool) -> None:
    """At random places of a transfer that has begun, or is about to."""
    draw = random.Random(7)
    places = sorted(draw.uniform(0.02, 0.98) * size for _ in range(cuts))
    done = 0.0
    for place in places:
        if up:
            assert link.cut_after(max(1, int(place - done))).wait(CUT_LIMIT_S)
        else:
            begun = link.bytes_to_client
            while link.bytes_to_client < begun + place - done:
                time.sleep(0.001)
            link.cut()
        done = place
        link.heal()


def report(size: int, cuts: int, sent: int) -> float:
    sys.stderr.write(f"{size} bytes, {cuts} cuts: sent {sent / size:.4f} of it\n")  # what --long is run for
    return sent / size


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("parameters", "cuts"),
    [
        pytest.param(10_000_000, 2, id="80 MB"),
        pytest.param(50_000_000, 10, id="400 MB", marks=pytest.mark.long),
    ],
)
def test_an_upload_over_a_link_that_is_cut(tmp_path: Path, parameters: int, cuts: int) -> None:
    """In a job's first masked round an update has 8 bytes for each parameter."""
    federation, initial = constant_federation(tmp_path, parameters=parameters, members=MEMBERS)
    with federation, linked(federation) as link:
        federation.start()
        coordinator = federation.process("coordinator")
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=1, metrics=(), **PATIENT), initial)
        coordinator.wait_for("round_moved", round=1, phase="uploading")
        before = link.bytes_to_target
        cut_often(link, 8 * parameters, cuts, up=True)
        coordinator.wait_for("round_moved", round=1, phase="confirming")
        sent = link.bytes_to_target - before
        (committed,) = rounds_of(federation.finish(job))
    assert committed["survivors"] == list(MEMBERS)
    assert_no_traceback(tmp_path)
    assert report(8 * parameters, cuts, sent) <= SENT_LIMIT


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("parameters", "cuts"),
    [
        pytest.param(10_000_000, 1, id="40 MB", marks=pytest.mark.long),
        pytest.param(100_000_000, 10, id="400 MB", marks=pytest.mark.long),
    ],
)
def test_a_model_over_a_link_that_is_cut(tmp_path: Path, parameters: int, cuts: int) -> None:
    federation, initial = constant_federation(tmp_path, parameters=parameters, members=MEMBERS)
    size = initial.stat().st_size
    with federation, linked(federation) as link:
        federation.start()
        before = link.bytes_to_client
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=1, metrics=(), **PATIENT), initial)
        cut_often(link, size, cuts, up=False)
        federation.process("coordinator").wait_for("round_moved", round=1, phase="advertising")
        sent = link.bytes_to_client - before
        with federation.operations() as operations:
            operations.abort_job(job, "the model came, and nothing else is asked")
    assert report(size, cuts, sent) <= SENT_LIMIT


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_byte_that_flips_while_the_coordinator_is_down_costs_one_resend(tmp_path: Path) -> None:
    """The file has the right length. What is in it is believed only by its digest."""
    federation, initial = constant_federation(tmp_path, parameters=1_000_000, members=MEMBERS)
    with federation, linked(federation) as link:
        federation.start()
        job = federation.submit("study-1", job_spec(federation.members, initial, rounds=1, metrics=()), initial)
        coordinator = federation.process("coordinator")
        coordinator.wait_for("round_moved", round=1, phase="sharing")
        link.bytes_per_s = 2e6
        coordinator.wait_for("round_moved", round=1, phase="uploading")
        before = link.bytes_to_target
        while link.bytes_to_target < before + 4 * 2**20:
            time.sleep(0.01)
        federation.kill("coordinator")
        (spool,) = (tmp_path / "coordinator-data" / "spools").rglob(f"{VICTIM}.update")
        content = bytearray(spool.read_bytes())
        assert len(content) > 2**20
        content[1000] ^= 0x10
        spool.write_bytes(content)
        link.bytes_per_s = None
        again = federation.start_coordinator()
        again.wait_for("update_damaged")
        (committed,) = rounds_of(federation.finish(job))
    assert committed["survivors"] == list(MEMBERS)
    assert_no_traceback(tmp_path)
