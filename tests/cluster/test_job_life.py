"""The life of jobs in real processes: members who come late, decline, are slow, go and come back, each named with its
reason wherever somebody may look; pause, resume and control by an operator; several jobs at a time.

One federation for all of it. A pause stands where a test needs a job to stand still: what happens then happens between
two rounds, and not at a moment of luck.
"""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from participant.tasks.state_dict import write_model
from shared.control import ControlChange, JobControl
from shared.ids import JobId
from shared.reasons import DropReason, JobState
from shared.wire.operations import JobDetail
from tests.cluster.tasks.regression_task import build
from tests.support.federation import Federation, job_spec, rounds_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 16}
STAYS, GOES, STRICT = ROWS
STRICT_S = 60.0  # what hospital-c allows a round to train
ENDLESS = 100_000
TRAINING = {"learning_rate": 0.05}


@dataclass(frozen=True)
class Study:
    """The federation, with its coordinator and all silos but hospital-c. Its jobs are plain: two silos are enough."""

    federation: Federation
    initial: Path

    def submit(self, name: str, members: list[str] | None = None, **changes: Any) -> JobId:
        names = members or list(ROWS)
        enough = min(2, len(names))
        options = {"quorum": enough, "min_survivors": enough, "grace_s": 0.0, "training": TRAINING, **changes}
        spec = job_spec(names, self.initial, masking={"mode": "plain"}, **options)
        return self.federation.submit(name, spec, self.initial)

    def until(self, job: JobId, reached: Callable[[JobDetail], bool]) -> JobDetail:
        """What the watch says when that is so."""
        for detail in self.federation.watch(job):
            if reached(detail):
                return detail
        raise AssertionError(f"{job} ended before: {detail.job}")

    def until_state(self, job: JobId, state: JobState) -> JobDetail:
        return self.until(job, lambda detail: detail.job.state is state)

    def until_out(self, job: JobId, dropped: dict[str, DropReason]) -> None:
        """A new round with exactly these members left out, and for these reasons."""
        before = len(self.state_of(job).rounds)
        self.until(job, lambda detail: dropped in [summary["dropped"] for summary in summaries(detail)[before:]])

    def state_of(self, job: JobId) -> JobDetail:
        with self.federation.operations() as operations:
            return operations.job(job)

    def pause(self, job: JobId, reason: str = "") -> None:
        with self.federation.operations() as operations:
            operations.pause_job(job, reason)
        self.until_state(job, JobState.PAUSED)

    def resume(self, job: JobId) -> None:
        with self.federation.operations() as operations:
            assert operations.resume_job(job).changed

    def control(self, job: JobId, **change: Any) -> JobControl:
        with self.federation.operations() as operations:
            return operations.control_job(job, ControlChange(**change)).job.control

    def abort(self, job: JobId) -> None:
        with self.federation.operations() as operations:
            assert operations.abort_job(job, "seen enough").reason == "operator: seen enough"

    def audit(self) -> list[dict[str, Any]]:
        with self.federation.operations() as operations:
            return [json.loads(line.split(b" ", 1)[1]) for line in operations.audit_lines()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.federation.logged("coordinator") if line["event"] == event]

    def counted(self, name: str) -> dict[str, int]:
        """A counter with one label, by its label."""
        address = f"http://127.0.0.1:{self.federation.metrics_port}/metrics"
        with urllib.request.urlopen(address) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith(f"{name}{{")]
        values = {line.split('"')[1]: int(float(line.rsplit(" ", 1)[1])) for line in lines}
        return {label: value for label, value in values.items() if value}


def summaries(detail: JobDetail) -> list[dict[str, Any]]:
    return [json.loads(finished.summary) for finished in detail.rounds]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("life")
    initial = folder / "initial.safetensors"
    write_model(build(), initial)
    options = {name: {"silo": silo, "rows": rows, "name": name} for silo, (name, rows) in enumerate(ROWS.items())}
    with Federation(
        folder,
        entry="regression_task:RegressionTask",
        options=options,
        policies={STRICT: {"max_deadline_s": STRICT_S}},
        metrics=True,
    ) as federation:
        federation.start_coordinator()
        federation.start_participants([STAYS, GOES])
        yield Study(federation, initial)


def test_whoever_is_outside_a_result_is_named_with_the_reason_wherever_somebody_looks(study: Study) -> None:
    """And a silo that declines by its policy takes part once an operator changed what it declined. With the quorum a
    round waits for everybody, or goes on without the one that is away.
    """
    job = study.submit("life-1", rounds=ENDLESS, quorum=3)
    waiting = study.until(job, lambda detail: detail.job.reason == "2 of quorum 3; not connected: hospital-c").job
    assert waiting.state is JobState.QUEUED
    study.control(job, quorum=2)
    study.until_out(job, {STRICT: DropReason.ABSENT})
    study.pause(job)
    study.federation.start_participant(STRICT)  # in the middle of the job
    study.resume(job)
    study.until_out(job, {STRICT: DropReason.DECLINED})
    assert study.control(job, deadline_s=STRICT_S, quorum=3) == JobControl(2, STRICT_S, 3)
    study.until_out(job, {})
    study.pause(job, "hospital-b is moved to another room")
    study.federation.kill(GOES)
    study.federation.kill("coordinator")
    restarted = len(study.logged("round_finished"))
    study.federation.start_coordinator()
    paused = study.state_of(job).job
    assert paused.state is JobState.PAUSED
    assert paused.pause is not None
    assert paused.pause.reason == "hospital-b is moved to another room"
    study.control(job, quorum=2)
    study.resume(job)
    study.until_out(job, {GOES: DropReason.ABSENT})
    study.pause(job)
    study.federation.start_participant(GOES)
    study.control(job, quorum=3)
    study.resume(job)
    study.until_out(job, {})  # it came back
    study.abort(job)

    detail = study.state_of(job)
    told = {finished.key.number: json.loads(finished.summary)["dropped"] for finished in detail.rounds}
    under = [summary["control"] for summary in summaries(detail)]
    assert under == sorted(under), "each round names the control that it was planned with"
    assert set(under) == {1, 2, 3, 4}
    entries = [entry for entry in study.audit() if entry["kind"].startswith("round_") and entry["data"]["job"] == job]
    assert {entry["data"]["round"]: entry["data"]["dropped"] for entry in entries} == told
    logged = {line["round"]: line["dropped"] for line in study.logged("round_finished") if line["job"] == job}
    assert logged == told
    since_restart = [finished["dropped"] for finished in study.logged("round_finished")][restarted:]
    assert study.counted("consilo_coordinator_members_dropped_total") == Counter(
        reason for out in since_restart for reason in out.values()
    )


@pytest.mark.long
def test_a_member_that_is_too_slow_for_the_grace_is_left_out(study: Study) -> None:
    slow = {**TRAINING, "slow": {GOES: 60.0}}
    job = study.submit("slow-1", [STAYS, GOES], rounds=1, training=slow, quorum=1, min_survivors=1, grace_s=0.2)
    (trained,) = rounds_of(study.federation.finish(job))
    assert (trained["survivors"], trained["dropped"]) == ([STAYS], {GOES: DropReason.NOT_READY})


@pytest.mark.long
def test_a_job_gives_up_after_so_many_aborted_rounds_and_another_goes_on_from_its_version(study: Study) -> None:
    sick = {**TRAINING, "crash": {GOES: [2, 3]}}
    job = study.submit("sick-1", [STAYS, GOES], rounds=4, training=sick, aborted_rounds_allowed=1)
    detail = study.until_state(job, JobState.ABORTED)
    assert detail.job.reason == "2 rounds aborted, 1 allowed; the last: below_quorum"
    assert [finished.outcome for finished in detail.rounds] == ["committed", "below_quorum", "below_quorum"]
    assert [summary["dropped"].get(GOES) for summary in summaries(detail)] == [None, *2 * [DropReason.TASK_CRASHED]]
    (last,) = rounds_of(detail)
    continued = study.submit("sick-2", [STAYS, GOES], rounds=1, start=last["next_model"])
    (trained,) = rounds_of(study.federation.finish(continued))
    assert trained["model"] == last["next_model"]


@pytest.mark.long
def test_jobs_run_side_by_side_and_a_paused_one_lets_others_have_its_members(study: Study) -> None:
    left = study.submit("left-1", [STAYS], rounds=ENDLESS)
    right = study.submit("right-1", [GOES], rounds=ENDLESS)
    between = study.submit("between-1", [STAYS, GOES], rounds=1)
    for job in (left, right):
        study.until(job, lambda detail: len(detail.rounds) >= 1)
    waiting = study.state_of(between).job
    assert (waiting.state, waiting.reason) == (
        JobState.QUEUED,
        "left-1, right-1 have hospital-a, hospital-b",
    )
    for job in (left, right):
        study.pause(job)
    study.federation.finish(between)
    reached = len(study.state_of(left).rounds)
    study.resume(left)
    assert study.until(left, lambda detail: len(detail.rounds) > reached).job.state is JobState.RUNNING
    for job in (left, right):
        study.abort(job)
