"""`consilo job pause`, `resume` and `control` against a service that speaks the wire, and how they are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.client.views import progress_screen
from shared.control import JobControl, Pause
from shared.ids import JobId
from shared.reasons import JobState
from shared.wire.operations import JobDetail
from tests.support.fake_operations import OPERATOR, FakeOperations, committed, live, status
from tests.support.operator_commands import run, words

JOB = JobId("heart-0011aabb")


def test_pause_and_resume_say_what_became_of_the_job_and_whether_that_is_new(
    config: Path, fake: FakeOperations
) -> None:
    fake.jobs[JOB] = JobDetail(job=status(JOB), rounds=(), live=None)
    told = json.loads(run(config, "job", "pause", JOB, "--reason", "the power goes", "--json").stdout)
    pause = {"by": OPERATOR, "at": "2026-01-02T04:00:00+00:00", "reason": "the power goes"}
    assert (told["state"], told["pause"], told["changed"]) == ("paused", pause, True)
    again = words(run(config, "job", "pause", JOB, "--reason", "the power goes"))
    assert "changed no: it was so already" in again
    asked = f"asked 2026-01-02T04:00:00+00:00 by {OPERATOR}: the power goes"
    assert f"pause {asked}" in again
    assert asked in words(run(config, "job", "list"))
    told = json.loads(run(config, "job", "resume", JOB, "--json").stdout)
    assert (told["state"], told["pause"], told["changed"]) == ("queued", None, True)


def test_a_job_that_pauses_after_its_round_says_so_to_a_watcher(config: Path, fake: FakeOperations) -> None:
    running = status(JOB, state=JobState.RUNNING)
    pausing = replace(running, state=JobState.PAUSING, pause=Pause("olga", "now", ""))
    fake.watched[JOB] = [
        JobDetail(job=running, rounds=(), live=live(JOB, 1)),
        JobDetail(job=pausing, rounds=(), live=live(JOB, 1)),
        JobDetail(job=replace(pausing, state=JobState.PAUSED), rounds=(committed(JOB, 1),), live=None),
        JobDetail(job=replace(running, control=JobControl(1, quorum=3)), rounds=(), live=live(JOB, 2)),
        JobDetail(job=replace(running, state=JobState.COMPLETED), rounds=(committed(JOB, 2),), live=None),
    ]
    fake.jobs[JOB] = fake.watched[JOB][-1]
    lines = run(config, "job", "watch", JOB).stdout.splitlines()
    assert lines[1:3] == [
        f"{JOB}: pausing (after the open round, asked now by olga)",
        f"{JOB}: paused (asked now by olga)",
    ]
    assert f"{JOB}: control revision 1: quorum 3 instead of 3" in lines


def test_a_control_is_shown_with_the_round_from_which_it_is_in_force(config: Path, fake: FakeOperations) -> None:
    detail = JobDetail(job=status(JOB, state=JobState.RUNNING), rounds=(committed(JOB, 1),), live=live(JOB, 2))
    fake.jobs[JOB] = detail
    told = json.loads(run(config, "job", "control", JOB, "--deadline-s", "60", "--quorum", "3", "--json").stdout)
    assert told["control"] == {"revision": 1, "deadline_s": 60.0, "quorum": 3}
    shown = words(run(config, "job", "show", JOB))
    changed = "revision 1: quorum 3 instead of 3, deadline 60 s instead of 3600 s"
    assert f"control {changed}; from the next round on" in shown
    under = replace(live(JOB, 2), control_revision=1)
    fake.jobs[JOB] = replace(fake.jobs[JOB], live=under)
    assert f"control {changed}; since round 2" in words(run(config, "job", "show", JOB))
    told = json.loads(run(config, "job", "show", JOB, "--json").stdout)
    assert (told["control_since_round"], told["live"]["control"]) == (2, 1)
    assert "revision 2: as submitted" in words(run(config, "job", "control", JOB, "--reset"))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "expected what to change: --deadline-s, --quorum or --reset"),
        (("--deadline-s", "0"), 2, "--deadline-s"),
        (("--quorum", "-1"), 2, "--quorum"),
        (("--deadline-s", "nan"), 1, "ControlJobRequest.deadline_s is a duration"),
        (("--quorum", "2"), 1, "quorum: expected 3 (the job's floor) to 3 (its members), got 2"),
        (("--quorum", "4"), 1, "got 4"),
    ],
)
def test_a_control_that_cannot_be_is_refused(
    config: Path, fake: FakeOperations, arguments: tuple[str, ...], code: int, said: str
) -> None:
    fake.jobs[JOB] = JobDetail(job=status(JOB), rounds=(), live=None)
    result = run(config, "job", "control", JOB, *arguments)
    assert (result.exit_code, said in result.stderr) == (code, True), result.stderr


def test_the_reason_of_a_pause_is_text_on_a_watcher_s_screen() -> None:
    paused = replace(status(JOB, state=JobState.PAUSED), pause=Pause("olga", "now", "see [/x]\x1b[2J"))
    console = Console(force_terminal=True, color_system=None)
    with console.capture() as screen:
        console.print(progress_screen(JobDetail(job=paused, rounds=(), live=None), last=1))
    assert "olga: see [/x]?[2J)" in screen.get()
