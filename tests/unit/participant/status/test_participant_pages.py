"""The silo's pages: each state, hostile words of a coordinator, and nothing that was measured on the silo's data."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from participant.sent import SentRecord
from participant.settings import PolicyTable
from participant.status import pages as module
from participant.status.noting import Alarmed, EndedRound, LeftRound
from participant.status.pages import Sources, StatusPages
from participant.status.policy import policy_words
from participant.status.snapshot import Approved, JobOnRecord, Running, Session, Silo, Task
from shared.clock import ManualClock
from shared.errors import StorageError
from shared.expiry import own_ends
from shared.health_report import HealthReport
from shared.http_answer import Query, Reply
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, RoundKey, RoundNumber
from shared.pages.facts import About, certificates
from shared.pages.words import NOTHING
from tests.support.credentials import Consortium
from tests.support.rounds import MANIFEST
from tests.support.status_html import HOSTILE, Page, assert_harmless, page_of

NOW = datetime(2026, 11, 29, 15, tzinfo=UTC)
WELL = HealthReport(who="hospital-a", live=True, ready=True, why="")
ABOUT = About("hospital-a", "hearts.example", "ab" * 32, "0.2.0", "1234", NOW - timedelta(hours=2))
OPEN = Session(
    True, "c.example:8443", ("c.example:8443",), NOW - timedelta(minutes=5), 300.0, "consilo 0.2.0", None, "", 0
)
QUIET = Silo(
    at=NOW, session=OPEN, running=(), tasks=(), left=(), ended=(), alarms=(), jobs=(), jobs_in_all=0, approved=(),
    approved_in_all=0,    allowed_repeats=(),
)  # fmt: skip
TRAINING = Running(
    job="heart-1", name="heart", task="study", round=3, purpose="train", phase="training",
    since=NOW - timedelta(seconds=90), age_s=90.0, percent=45, device="cuda:0", deadline_s=1800.0, members=4,
    masked=True,
)  # fmt: skip


class Seen:
    """A look that answers what the test says."""

    def __init__(self, silo: Silo) -> None:
        self.answer: Callable[[], Silo] = lambda: silo
        self.threads: list[str] = []

    def silo(self) -> Silo:
        self.threads.append(threading.current_thread().name)
        return self.answer()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever, name="the daemon's loop")
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


@pytest.fixture
def show(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Callable[..., Shown]:
    def make(silo: Silo = QUIET, **changes: Any) -> Shown:
        return Shown(loop, tmp_path, silo, changes)

    return make


class Shown:
    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path, silo: Silo, changes: dict[str, Any]) -> None:
        self.look = Seen(silo)
        self.clock = ManualClock(start=NOW)
        self.sent = SentRecord(folder, clock=self.clock)
        given: dict[str, Any] = {
            "about": ABOUT,
            "look": self.look,
            "loop": loop,
            "clock": self.clock,
            "health": lambda: WELL,
            "policy": PolicyTable(),
            "consortium": None,
            "journal_doubt": "",
            "sent": self.sent,
            "certificates": dict,
            "data_dir": folder,
            "disk_sizes": dict,
        }
        self.routes = StatusPages(Sources(**(given | changes))).routes

    def reply(self, path: str, **parameters: str) -> Reply:
        return self.routes[path](Query(path=path, parameters=parameters))

    def page(self, path: str, *, status: int = 200) -> Page:
        reply = self.reply(path)
        assert reply.status == status
        return page_of(reply.body)


def test_a_quiet_silo(show: Callable[..., Shown]) -> None:
    shown = show()
    now = shown.page("/").text
    for said in (
        "hospital-a ✓ connected",
        "✓ Nothing",
        "No round is open here",
        "open for 5 min 00 s",
        "none since the start",
    ):
        assert said in now
    assert "Nothing has left yet" in shown.page("/sent").text
    allowed = shown.page("/allowed").text
    assert "None: every job is declined" in allowed
    assert "None is written down" in allowed
    assert set(shown.look.threads) == {"the daemon's loop"}


def test_a_round_that_trains(show: Callable[..., Shown]) -> None:
    text = show(replace(QUIET, running=(TRAINING,))).page("/").text
    for said in (
        "heart-1, round 3",
        "▸ training",
        "task study on cuda:0 · masked · 4 members",
        "for 1 min 30 s",
        "45 % trained",
    ):
        assert said in text


def test_no_session_says_why_and_how_often(show: Callable[..., Shown]) -> None:
    away = replace(OPEN, open=False, since=None, failed_at=NOW, failure="connection refused", tries=7)
    page = show(replace(QUIET, session=away)).page("/")
    assert "✕ not connected" in page.text
    assert "No session with the coordinator: connection refused" in page.text
    assert "7 attempts failed since the last one" in page.text


def test_what_needs_a_person(show: Callable[..., Shown]) -> None:
    silo = replace(
        QUIET,
        tasks=(
            Task("study", "m:Study", "failed", "", "task_crashed", 0),
            Task("other", "m:Other", "loading", "", "", 0),
        ),
        alarms=(Alarmed(NOW, "false_result", "A result does not say what this silo knows of the round."),),
        jobs=(JobOnRecord("heart-1", "cd" * 32, 4, 3, "false result"),),
        jobs_in_all=9,
    )
    shown = show(silo, journal_doubt="the journal is empty")
    now = shown.page("/").text
    for said in (
        "an alarm was raised", "Every plan is declined: the journal is empty",
        "Task study does not load (task_crashed)",
        "This silo stopped job heart-1 for itself: false result", "✕ false_result",
    ):  # fmt: skip
        assert said in now
    allowed = shown.page("/allowed")
    assert [row[1] for row in allowed.table("Task")] == ["✕ does not load: task_crashed", "▸ being loaded"]
    assert allowed.table("Job")[0][-1] == "✕ stopped false result"
    assert "8 earlier ones are in the journal too" in allowed.text


def test_declined_left_and_ended(show: Callable[..., Shown]) -> None:
    silo = replace(
        QUIET,
        left=(LeftRound(NOW, "heart-1", 2, "declined", "two_party", "The job has two members."),),
        ended=(EndedRound(NOW, "heart-1", 1, survived=True), EndedRound(NOW, "knee-1", 1, survived=False)),
    )
    page = show(silo).page("/")
    updates = [row[2] for row in page.table_captioned("Over here, the newest first")]
    assert updates == ["✓ is in the result", f"{NOTHING} is in no result"]
    (left,) = page.table_captioned("The newest first; [policy] says no before any data is read")
    assert left[2:4] == [f"{NOTHING} declined", "two_party. The job has two members."]


def test_what_left(show: Callable[..., Shown]) -> None:
    shown = show()
    for number in range(1, 61):
        key = AttemptKey(RoundKey(JobId("heart-1"), RoundNumber(number)), AttemptNumber(1))
        shown.sent.began(key, 1_234_567, protection="plain" if number == 60 else "masked")
        if number != 59:
            shown.sent.left(key, Digest.of(b"%d" % number))
        if number not in {58, 59}:
            shown.sent.acknowledged(key)
    rows = shown.page("/sent").table("Job")
    assert [row[1] for row in rows] == [str(number) for number in range(60, 10, -1)]
    assert rows[0][3:] == [
        "▲ plain", "1,234,567", str(Digest.of(b"60"))[:12], "2026-11-29 15:00:00 UTC", "✓ yes",
        "2026-11-29 15:00:00 UTC",
    ]  # fmt: skip
    assert rows[1][5:8] == [NOTHING, "▲ no: part of it may have", NOTHING]
    assert rows[2][6:8] == ["2026-11-29 15:00:00 UTC", f"{NOTHING} not heard"]


def test_what_is_allowed(show: Callable[..., Shown]) -> None:
    silo = replace(
        QUIET,
        tasks=(Task("study", "m:Study", "loaded", "cpu", "no GPU here", 193),),
        approved=(Approved("ef" * 32, ("heart-1",)), Approved("12" * 32, ())),
        approved_in_all=52,
        allowed_repeats=("knee-1",),
    )
    page = show(silo).page("/allowed")
    assert page.table("Task") == [["study", "✓ loaded", "m:Study", "cpu no GPU here", "193"]]
    assert [row[1] for row in page.table("Specification")] == ["heart-1", "not yet"]
    assert "50 more are in participant.toml" in page.text
    assert "a person lets knee-1 open another total" in page.text


def test_the_policy_in_words() -> None:
    said = dict(policy_words(PolicyTable(), None))
    assert said["Jobs without masking"] == "Declined"
    assert said["Names of jobs"] == "Any name"
    assert said["Whose keys are believed"] == "Nobody's: no manifest is pinned, so masked jobs are declined"
    assert len(said) == len(PolicyTable.model_fields)
    open_policy = PolicyTable(
        allow_plain=True, allow_two_party=True, allow_no_collusion=True, minimum_colluding=2, allowed_jobs=("heart-*",),
        approved_jobs=("ab" * 32,), allowed_repeats=(JobId("knee-1"),), share_progress=False, max_deadline_s=7200.0,
    )  # fmt: skip
    said = dict(policy_words(open_policy, MANIFEST))
    assert said["Jobs without masking"] == "Allowed: the coordinator sees this silo's update"
    assert said["Names of jobs"] == "Only heart-*"
    assert said["Specifications"] == "Only those that are approved: 1, each for one job"
    assert said["Colluding members that a masked job withstands"] == "At least 2; none at all is allowed too"
    assert said["Another total on one model"] == "Allowed for knee-1"
    assert said["Training"] == "At most 2 h 00 min a round"
    assert said["Progress"] == "Not shared"
    assert str(MANIFEST.digest) in said["Whose keys are believed"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_are_text(show: Callable[..., Shown], text: str) -> None:
    silo = replace(
        QUIET,
        session=replace(OPEN, coordinator=text, failed_at=NOW, failure=text, address=text, open=False),
        running=(replace(TRAINING, job=text, device=text),),
        left=(LeftRound(NOW, text, 1, "withdrew", text, text),),
        jobs=(JobOnRecord(text, text, 1, 1, text),),
        tasks=(Task(text, text, "loaded", text, text, 1),),
    )
    shown = show(silo)
    for path in ("/", "/allowed"):
        assert_harmless(shown.page(path), text)


def test_json_has_the_same(show: Callable[..., Shown]) -> None:
    made = json.loads(show(replace(QUIET, running=(TRAINING,))).reply("/status.json").body)
    assert made["silo"]["running"][0]["percent"] == 45
    assert made["silo"]["session"]["since"] == "2026-11-29T14:55:00+00:00"
    assert made["uptime_s"] == 7200.0


def test_a_journal_that_cannot_be_read_and_a_loop_that_hangs(
    show: Callable[..., Shown], loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Silo:
        raise StorageError("the journal cannot be read: disk I/O error")

    shown = show()
    shown.look.answer = broken
    assert "disk I/O error" in shown.page("/", status=503).text
    assert "disk I/O error" in json.loads(shown.reply("/status.json").body)["error"]
    monkeypatch.setattr(module, "ANSWER_S", 0.01)
    go_on = threading.Event()
    loop.call_soon_threadsafe(go_on.wait)
    assert "The daemon did not answer" in shown.page("/allowed", status=503).text
    go_on.set()


def test_certificates_and_what_is_said_of_them(show: Callable[..., Shown], tmp_path: Path) -> None:
    silo = Consortium(tmp_path / "pki").participant("hospital-a")
    ends = own_ends(silo.tls, signing=datetime.now(UTC) + timedelta(days=300))
    (tls, signing, authority) = certificates(ends, datetime.now(UTC))
    assert [each.name for each in (tls, signing, authority)] == ["TLS", "signing", "authority"]
    assert (tls.level, signing.level, authority.level) == ("", "", "")
    soon = certificates(ends, tls.ends - timedelta(days=3))
    assert (soon[0].days_left, soon[0].level) == (3, "warn")
    assert certificates(ends, tls.ends)[0].level == "bad"
    shown = show(replace(QUIET, at=tls.ends - timedelta(days=3)), certificates=lambda: ends)
    assert f"The TLS certificate ends on {tls.ends:%Y-%m-%d}: 3 days left" in shown.page("/").text
