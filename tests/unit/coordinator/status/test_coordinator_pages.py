"""The operators' pages: each state, hostile names, and nothing of one silo."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator.status import pages as module
from coordinator.status.snapshot import ENDED_SHOWN
from coordinator.storage.interface import COMMITTED, ModelRecord, RoundRecord
from shared.control import ControlChange
from shared.errors import StorageError
from shared.health_report import HealthReport
from shared.ids import Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.job import canonical_json
from shared.pages.words import NOTHING
from shared.reasons import AbortReason, DropReason, JobState, Purpose
from tests.support.coordinator_pages import Busy, Pages
from tests.support.rounds import MEMBERS, A, B, C, D, make_masked_spec, make_spec
from tests.support.status_html import HOSTILE, assert_harmless
from tests.unit.coordinator.test_conductor import HEART, LUNG, OPERATOR, OTHERS, Machine
from tests.unit.coordinator.test_masked_jobs import JOB, Federation, manifest

LONG = "a" * 63
ONE_SILOS_LOSS = 0.731931


@pytest.fixture
def machine() -> Machine:
    made = Machine()
    made.add_model(8)
    return made


@pytest.fixture
def show(machine: Machine, tmp_path: Path) -> Callable[..., Pages]:
    def make(**changes: Any) -> Pages:
        return Pages(
            machine.conductor,
            clock=machine.clock,
            folder=tmp_path,
            **{"participants": [*MEMBERS, *OTHERS], **changes},
        )

    return make


def submit(machine: Machine, job: JobId = HEART, **changed: Any) -> None:
    machine.conductor.desk.submit_job(job, make_spec(elements=8, **changed).to_bytes(), OPERATOR)


def finish(
    machine: Machine, number: int, outcome: str = COMMITTED, *, purpose: Purpose = Purpose.TRAIN, **facts: Any
) -> None:
    """As if a round of HEART had ended so."""
    key = RoundKey(HEART, RoundNumber(number))
    summary = {"survivors": list(MEMBERS), "dropped": {}, "duration_s": 61.0, "metrics": {}, **facts}
    machine.store._records.rounds[key] = RoundRecord(key, purpose, outcome, canonical_json(summary), b"result")


# --- empty ------------------------------------------------------------------------------------------------------------


def test_a_coordinator_that_has_nothing_yet(tmp_path: Path) -> None:
    machine = Machine()
    health = HealthReport(who="coordinator", live=True, ready=False, why="no participant is connected")
    shown = Pages(machine.conductor, clock=machine.clock, folder=tmp_path, participants=[], health=health)
    home = shown.page("/").text
    for said in ("not ready", "no participant is connected", "No job is open", "None yet", "0 of 0 connected"):
        assert said in home
    assert "Nobody is on the allow-list yet" in shown.page("/participants").text
    assert "No version yet" in shown.page("/models").text


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_that_waits_says_why(machine: Machine, show: Callable[..., Pages]) -> None:
    submit(machine)
    shown = show()
    for path in ("/", f"/jobs/{HEART}"):
        text = shown.page(path).text
        assert "queued" in text
        assert f"not connected: {', '.join(MEMBERS)}" in text


def test_a_round_that_is_open(machine: Machine, show: Callable[..., Pages]) -> None:
    submit(machine)
    machine.connect()
    machine.clock.advance(75.0)
    shown = show()
    home = shown.page("/")
    assert "Round 1: recruiting for 1 min 15 s" in home.text
    assert "Waits for 4 members:" in home.text
    job = shown.page(f"/jobs/{HEART}")
    assert "Round 1 is open" in job.text
    assert "in 8 min 45 s" in job.text
    assert [row[0] for row in job.table("Member")] == list(MEMBERS)
    assert "No round has committed yet" in job.text
    assert shown.json(f"/jobs/{HEART}.json")["line"]["open"]["phase"] == "recruiting"


def test_a_member_that_went_away(machine: Machine, show: Callable[..., Pages]) -> None:
    submit(machine)
    machine.connect()
    machine.conductor.session_closed(D, f"session-{D}")
    machine.clock.advance(20.0)
    shown = show()
    assert f"{HEART}: not connected: {D}" in shown.page("/").text
    rows = {row[0]: row for row in shown.page(f"/jobs/{HEART}").table("Member")}
    assert "away for 20 s" in rows[D][1]
    rows = {row[0]: row for row in shown.page("/participants").table("Participant")}
    assert rows[D][1:3] == ["▲ away", "20 s"]
    assert rows[A][1:3] == ["✓ connected", "20 s"]
    assert rows[A][4:] == ["heart", HEART]


def test_who_is_no_longer_let_in_and_who_never_came(machine: Machine, show: Callable[..., Pages]) -> None:
    machine.connect()
    shown = show(participants=[*MEMBERS, "hospital-z"])
    rows = {row[0]: row for row in shown.page("/participants").table("Participant")}
    assert "not on the allow-list" in rows[OTHERS[0]][1]
    assert rows["hospital-z"][1:4] == ["▲ never seen", NOTHING, NOTHING]
    assert "Connected and no longer on the allow-list: clinic-a, clinic-b, clinic-c" in shown.page("/").text


def test_a_broken_allow_list_is_said(machine: Machine, show: Callable[..., Pages], tmp_path: Path) -> None:
    shown = show()
    (tmp_path / "allowlist.toml").write_text("{")
    assert "Nobody is let in:" in shown.page("/").text


def test_a_paused_and_controlled_job(machine: Machine, show: Callable[..., Pages]) -> None:
    submit(machine)
    machine.conductor.desk.pause_job(HEART, "power cut", OPERATOR)
    machine.conductor.desk.control_job(HEART, ControlChange(deadline_s=99.0), OPERATOR)
    text = show().page(f"/jobs/{HEART}").text
    for said in (
        "paused",
        OPERATOR.uri,
        "power cut",
        "revision 1: deadline 99 s instead of 600 s; from the next round on",
    ):
        assert said in text


def test_a_job_that_cannot_go_on_and_one_that_is_aborted(machine: Machine, show: Callable[..., Pages]) -> None:
    submit(machine)
    submit(machine, LUNG, members=OTHERS)
    machine.conductor.desk.abort_job(LUNG, "no longer wanted", OPERATOR)
    machine.blobs._models.clear()
    machine.connect()
    shown = show()
    home = shown.page("/")
    assert f"{HEART} cannot go on: there is no model" in home.text
    ((job, state, *_, why),) = home.table("Job")
    assert (job, state, why) == (LUNG, "✕ aborted", "operator: no longer wanted")
    assert "Ended: operator: no longer wanted" in shown.page(f"/jobs/{LUNG}").text


def test_finished_rounds_with_curves_reasons_and_advice(machine: Machine, show: Callable[..., Pages]) -> None:
    submit(machine)
    version = str(Digest.of(b"version"))
    finish(machine, 1, metrics={"train.loss": 0.9, "evaluate.loss": 1.0}, next_model=version)
    finish(
        machine, 2, metrics={"train.loss": 0.5, "evaluate.loss": 0.75}, survivors=list(MEMBERS[:3]),
        dropped={D: DropReason.ATTEMPT_LEFT}, left={D: "bad_roster"}, next_model=version,
    )  # fmt: skip
    finish(machine, 3, AbortReason.BELOW_QUORUM, survivors=[], dropped={C: DropReason.ABSENT})
    page = show().page(f"/jobs/{HEART}")
    rows = page.table("Round")
    assert [row[:5] for row in rows] == [
        ["3", "✕ below_quorum", "0 of 4", NOTHING, NOTHING],
        ["2", "✓ committed", "3 of 4", "0.5000", "0.7500"],
        ["1", "✓ committed", "4 of 4", "0.9000", "1.0000"],
    ]
    assert rows[0][-1].startswith("Too few members were Ready by the deadline")
    assert "hospital-d: attempt_left (bad_roster). It left the attempt" in rows[1][-1]
    assert rows[2][-2:] == [version[:12], "nobody"]
    assert "loss in training went from 0.9000 to 0.5000" in page.text
    assert "2 of 2 rounds committed" in page.text
    assert page.source.count('<path class="line') == 4, "two curves, and a piece of each in the legend"


def test_figures_of_one_silo_alone_are_not_shown(machine: Machine, show: Callable[..., Pages]) -> None:
    submit(machine)
    finish(machine, 1, survivors=[A], metrics={"train.loss": ONE_SILOS_LOSS}, weight_total=4242.0)
    shown = show()
    page = shown.page(f"/jobs/{HEART}")
    assert "One silo alone: its figures are not shown." in page.text
    whole = page.source + json.dumps(shown.json(f"/jobs/{HEART}.json"))
    assert str(ONE_SILOS_LOSS)[:6] not in whole
    assert "4242" not in whole
    finish(machine, 1, survivors=[A, B], metrics={"train.loss": ONE_SILOS_LOSS})
    machine.clock.advance(2.0)
    assert str(ONE_SILOS_LOSS)[:6] in show().page(f"/jobs/{HEART}").text, "what is over two is a total"


def test_no_weight_is_on_any_page(machine: Machine, show: Callable[..., Pages]) -> None:
    """Not even a total's: two totals that differ by one member would tell that member's."""
    submit(machine)
    finish(machine, 1, weight_total=424242.0, metrics={"train.loss": 0.5})
    shown = show()
    for path in ("/", f"/jobs/{HEART}", "/models", "/participants", "/status.json", f"/jobs/{HEART}.json"):
        assert b"424242" not in shown.reply(path).body


def test_a_whole_masked_job(tmp_path: Path) -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec(rounds=2))
    federation.connect()
    federation.run()
    shown = Pages(federation.conductor, clock=federation.clock, folder=tmp_path, participants=MEMBERS)
    page = shown.page(f"/jobs/{JOB}")
    assert "completed" in page.text
    assert [row[1] for row in page.table("Round")] == ["✓ evaluated", "✓ committed", "✓ committed"]
    versions = shown.page("/models").table("Version")
    assert versions[-1][1] == "brought by somebody"
    assert {row[1] for row in versions[:-1]} == {JOB}
    audit = shown.json("/status.json")["federation"]
    assert audit["audit_size"] == len(federation.store.audit_entries(0))
    assert audit["audit_head"] == str(federation.audit.head)


def test_promoted_and_pruned_versions(machine: Machine, show: Callable[..., Pages]) -> None:
    (first,) = machine.store.models()
    machine.store._records.models[first.digest] = replace(first, promoted=True)
    gone = ModelRecord(
        Digest.of(b"gone"),
        first.manifest.replace(str(first.digest).encode(), str(Digest.of(b"gone")).encode()),
        pruned=True,
    )
    machine.store._records.models[gone.digest] = gone
    rows = show().page("/models").table("Version")
    assert [row[-1] for row in rows] == [f"{NOTHING} pruned: gone", "✓ promoted: kept for good"]


# --- many, long and hostile -------------------------------------------------------------------------------------------


def test_many_rounds_are_cut_and_all_can_be_seen(machine: Machine, show: Callable[..., Pages]) -> None:
    submit(machine, rounds=500)
    for number in range(1, 501):
        finish(machine, number, metrics={"train.loss": 1.0 / number, "evaluate.loss": 2.0 / number})
    shown = show()
    page = shown.page(f"/jobs/{HEART}")
    assert [row[0] for row in page.table("Round")] == [str(number) for number in range(500, 450, -1)]
    assert "450 earlier ones: show all rounds" in page.text
    assert "rounds 1 to 500" in page.text, "the curves have all of them"
    assert len(shown.page(f"/jobs/{HEART}", rounds="all").table("Round")) == 500


def test_many_participants_and_long_names(machine: Machine, tmp_path: Path) -> None:
    names = [ParticipantId(f"{place:03d}-" + "h" * 59) for place in range(100)]
    machine.conductor.desk.submit_job(JobId(LONG), make_spec(elements=8, members=names, quorum=60).to_bytes(), OPERATOR)
    shown = Pages(machine.conductor, clock=machine.clock, folder=tmp_path, participants=names)
    assert len(shown.page("/participants").table("Participant")) == 100
    assert LONG in shown.page("/").text
    assert "and 95 more" in shown.page("/").text
    assert LONG in shown.page(f"/jobs/{LONG}").title


def test_only_the_newest_of_many_jobs_that_are_over(machine: Machine, show: Callable[..., Pages]) -> None:
    for place in range(ENDED_SHOWN + 3):
        submit(machine, JobId(f"job-{place}"))
        machine.conductor.desk.abort_job(JobId(f"job-{place}"), "", OPERATOR)
    page = show().page("/")
    assert [row[0] for row in page.table("Job")] == [f"job-{place}" for place in range(ENDED_SHOWN + 2, 2, -1)]
    assert "3 more: consilo job list" in page.text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_reasons_are_text_everywhere(machine: Machine, show: Callable[..., Pages], text: str) -> None:
    submit(machine)
    machine.conductor.desk.pause_job(HEART, text, OPERATOR)
    finish(
        machine, 1, survivors=[text], dropped={text: text}, left={text: text}, metrics={"train.loss": 0.5, text: 1.0}
    )
    shown = show()
    for path in ("/", f"/jobs/{HEART}"):
        page = shown.page(path)
        assert_harmless(page, text)


def test_a_health_that_is_hostile_too(machine: Machine, show: Callable[..., Pages]) -> None:
    for text in HOSTILE:
        shown = show(health=HealthReport(who="coordinator", live=True, ready=False, why=text))
        assert_harmless(shown.page("/"), text)


# --- what a browser may ask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unknown", "", "Heart-1", "a/b", "%2e%2e", "<b>", "a" * 64])
def test_no_such_job(show: Callable[..., Pages], name: str) -> None:
    page = show().page(f"/jobs/{name}", status=404)
    assert "This coordinator has no job of that name" in page.text


def test_a_page_loads_again_only_when_it_was_asked_to(show: Callable[..., Pages]) -> None:
    shown = show()
    assert shown.page("/").refresh == ""
    asked = shown.page("/", refresh="5")
    assert (asked.refresh, "/" in asked.links) == ("5", True)
    assert "Stop that" in asked.text
    assert shown.page("/", refresh="0").refresh == ""


def test_readers_share_a_look_for_a_second(machine: Machine, show: Callable[..., Pages]) -> None:
    shown = show()
    for path in ("/", "/participants", "/status.json", "/"):
        shown.reply(path)
    assert shown.thread.asked == 1
    machine.clock.advance(1.0)
    shown.reply("/")
    assert shown.thread.asked == 2


def test_a_busy_conductor_is_said_and_nothing_old_is_shown(
    show: Callable[..., Pages], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.01)
    shown = show(thread=Busy())
    for path in ("/", f"/jobs/{HEART}", "/models"):
        assert "The conductor did not answer" in shown.page(path, status=503).text


def test_a_store_that_cannot_be_read_is_said(
    machine: Machine, show: Callable[..., Pages], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise StorageError("the database cannot be read: disk I/O error")

    monkeypatch.setattr(machine.store, "jobs", broken)
    assert "disk I/O error" in show().page("/", status=503).text


def test_job_states_all_have_a_look() -> None:
    """`rounds.html` names a sign for each."""
    from importlib import resources

    text = resources.files("coordinator.status").joinpath("templates/rounds.html").read_text("utf-8")
    assert all(f'"{state}": "' in text for state in JobState)
