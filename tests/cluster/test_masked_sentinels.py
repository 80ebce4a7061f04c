"""What the coordinator holds of a masked round: a scan of everything it wrote and said, for each silo's own numbers.

The same scan of a plain round finds them, so it would find them here.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from consilo.demo.moment import Blow, Moment
from participant.tasks.state_dict import write_model
from shared.ids import JobId, ParticipantId
from shared.job import DEFAULT_MAX_WEIGHT, DEFAULT_METRIC_BOUND
from shared.protocol.phases import Phase
from tests.cluster.tasks.sentinel_task import build
from tests.support.federation import Federation, job_spec, rounds_of
from tests.support.sentinels import Needle, files_below, found_in, needles_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

# Weights of eight digits and three full bytes (below 2^24), so that none is found by chance.
SILOS: dict[str, dict[str, object]] = {
    "hospital-a": {"weight": 15485863, "train_loss": 0.123456789, "evaluate_loss": 0.987654321, "step": 0.0123},
    "hospital-b": {"weight": 13579753, "train_loss": 0.314159265, "evaluate_loss": 0.271828182, "step": -0.0456},
    "hospital-c": {"weight": 14015231, "train_loss": 0.577215664, "evaluate_loss": 0.141421356, "step": 0.0789},
}
MASKED_ROUND, PLAIN_ROUND = 2, 4  # the masked job has two rounds and a closing one, and runs first


def needles() -> list[Needle]:
    found = []
    for name, options in SILOS.items():
        losses = [float(str(options[key])) for key in ("train_loss", "evaluate_loss")]
        weight = float(str(options["weight"]))
        found += needles_of(name, weight, losses, max_weight=DEFAULT_MAX_WEIGHT, bound=DEFAULT_METRIC_BOUND)
    return found


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    options = SILOS
    with Federation(
        tmp_path, entry="sentinel_task:SentinelTask", options=options, metrics=True, log_level="debug"
    ) as made:
        yield made


def held_by_the_coordinator(federation: Federation) -> dict[str, bytes]:
    """Its folder (database, journal, audit log, spools, models), its log and its metrics, as they are now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{federation.metrics_port}/metrics", timeout=10) as answer:
        metrics = answer.read()
    log = (federation.folder / "coordinator.log").read_bytes()
    return {**files_below(federation.folder / "coordinator-data"), "log": log, "metrics": metrics}


def spools_in(held: dict[str, bytes]) -> list[str]:
    return [name for name in held if "spool" in name]


def test_no_number_of_a_silo_is_at_the_coordinator(federation: Federation, tmp_path: Path) -> None:
    initial = tmp_path / "initial.safetensors"
    write_model(build(), initial)
    *others, slow = federation.members
    federation.start_coordinator()
    federation.start_participants(others)
    # It stands still before its shares, and in the plain job before its upload: the others' updates are spooled then,
    # and the round is not committed.
    moments = [Moment(MASKED_ROUND, "Opened", Blow.STOP), Moment(PLAIN_ROUND, "Uploading", Blow.STOP)]
    silo = federation.start_doomed(slow, *moments)

    def wait_until_all_others_are(job: JobId, phase: Phase) -> None:
        for seen in federation.watch(job):
            phases = {member.participant: member.phase for member in seen.live.members} if seen.live else {}
            if all(phases.get(ParticipantId(other)) is phase for other in others):
                return
        raise AssertionError(f"the job ended before {others} were {phase}")

    def scan(name: str, mode: str, phase: Phase, number: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """What is there in the middle of a job's last round, and after the job."""
        spec = job_spec(federation.members, initial, rounds=number, masking={"mode": mode})
        job = federation.submit(name, spec, initial)
        silo.wait_until_stopped()
        wait_until_all_others_are(job, phase)
        during = held_by_the_coordinator(federation)
        silo.go_on()
        committed = rounds_of(federation.finish(job))
        assert all(summary["survivors"] == federation.members for summary in committed)
        assert committed[0]["weight_total"] == sum(float(str(silo["weight"])) for silo in SILOS.values())
        return during, held_by_the_coordinator(federation)

    during, after = scan("masked-1", "masked", Phase.OPENING, MASKED_ROUND)
    assert len(spools_in(during)) == len(SILOS), sorted(during)
    assert found_in(during, needles()) == []
    assert found_in(after, needles()) == []

    during, _ = scan("plain-1", "plain", Phase.COMMITTED, PLAIN_ROUND)
    everything = set(found_in(during, needles()))
    for name, held in ((other, held) for other in others for held in spools_in(during) if other in held):
        assert {f"{name} weight as float64< in {held}", f"{name} weight * loss as float64< in {held}"} <= everything
