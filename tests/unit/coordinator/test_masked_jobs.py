"""Masked jobs at the conductor: what they wait for, how their rounds are encoded, and what of them is told."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from coordinator.audit import AuditLog
from coordinator.conductor import TROUBLE_RETRY_S, Conductor
from coordinator.intake import Intake
from coordinator.metrics import CoordinatorMetrics
from coordinator.planning import MISSES_MAX
from coordinator.registry import Enrolled
from coordinator.retention import KEEP_ALL
from coordinator.round.effects import Folded, FoldFailed, Replied, UploadOffered
from coordinator.round.frame import RoundFrame
from coordinator.round.gathering import RECONNECT_WINDOW_S
from coordinator.round.phases import RoundState, Uploading
from coordinator.round.surroundings import FoldOrder, Surroundings
from coordinator.round_log import RoundLog
from coordinator.storage.memory import MemoryBlobs, MemoryStore
from shared.build import BuildInfo
from shared.clock import ManualClock
from shared.consortium import Consortium, make_manifest
from shared.errors import LateError, PeerError
from shared.identity import Identity, Role
from shared.ids import Digest, JobId, ParticipantId, RoundKey
from shared.job import JobSpec
from shared.protocol.messages import (
    AttemptAnswer,
    AttemptStart,
    Decline,
    RoundBroadcast,
    RoundPlan,
    Sealed,
    plan_digest,
)
from shared.reasons import AbortReason, AttemptAbortReason, ConsentRule, DropReason, JobState, Purpose
from shared.update import Encoding
from tests.support.masked_silo import MaskedSilo
from tests.support.rounds import (
    COORDINATOR_KEY,
    ELEMENTS,
    MEMBERS,
    TASK,
    A,
    B,
    C,
    D,
    coordinator_seal,
    initial_index,
    initial_model,
    key_of,
    make_masked_spec,
)

JOB = JobId("heart-1")
RESTARTED_AFTER = 20  # messages, in the middle of the first round
OPERATOR = Identity("hearts.example", Role.OPERATOR, "olga")


def manifest(*members: ParticipantId) -> Consortium:
    """Of an officer, the coordinator, and these participants."""
    keys = {Identity("hearts.example", Role.PARTICIPANT, name): key_of(name).verifying_key for name in members}
    keys[Identity("hearts.example", Role.COORDINATOR, "coordinator")] = COORDINATOR_KEY.verifying_key
    made = make_manifest(consortium="hearts.example", members=keys, officers=[key_of("officer")])
    return Consortium.parse(made, source="consortium.json")


class Federation:
    """A conductor over storage that outlives it, and four silos that answer all that they hear."""

    def __init__(
        self, *, consortium: Consortium | None, keep_versions: int = KEEP_ALL, clock: ManualClock | None = None
    ) -> None:
        self.keep_versions = keep_versions
        self.store, self.blobs = MemoryStore(), MemoryBlobs()
        self.clock = clock or ManualClock(start=datetime(2026, 11, 22, tzinfo=UTC))
        self.audit = AuditLog(sign=partial(COORDINATOR_KEY.sign, "audit"), clock=self.clock)
        self.metrics = CoordinatorMetrics(build=BuildInfo("test", "test", "test"))
        self.waiting: deque[tuple[ParticipantId, RoundBroadcast]] = deque()
        self.orders: deque[FoldOrder] = deque()
        self.silos: dict[tuple[RoundKey, ParticipantId], MaskedSilo] = {}
        self.misses: dict[int, ParticipantId] = {}
        """Who says in which round that its update does not fit."""
        self.encodings: list[tuple[Encoding, Encoding]] = []
        """Of each round: as planned, and as folded."""
        self.refused: list[PeerError] = []
        self.conductor = self.restart(consortium)

    def restart(self, consortium: Consortium | None) -> Conductor:
        self.waiting.clear()
        around = Surroundings(
            store=self.store,
            audit=self.audit,
            outbox=self,
            folds=self,
            seal=coordinator_seal,
            clock=self.clock,
            observer=RoundLog(following=self.metrics),
        )
        intake = Intake(self.blobs)
        self.conductor = Conductor(
            around=around,
            blobs=self.blobs,
            intake=intake,
            signer=COORDINATOR_KEY,
            consortium=consortium,
            keep_versions=self.keep_versions,
        )
        self.conductor.start()
        return self.conductor

    def submit(self, spec: JobSpec) -> None:
        self._publish(initial_model(), "initial")
        self.conductor.desk.submit_job(JOB, spec.to_bytes(), OPERATOR)

    def _publish(self, content: bytes, name: str) -> Digest:
        digest = Digest.of(content)
        if not self.conductor.desk.has_model(digest):
            staged = self.blobs.stage(name)
            staged.allocate(len(content))
            staged.write_at(0, memoryview(content))
            if name == "initial":
                self.conductor.desk.add_model(staged, digest, initial_index(), OPERATOR)
            else:
                self.blobs.publish(staged, digest)
        return digest

    def connect(self, members: Sequence[ParticipantId] = MEMBERS) -> None:
        for member in members:
            enrolled = Enrolled(f"session-{member}", frozenset({TASK}))
            self.conductor.session_opened(member, enrolled, key_of(member).verifying_key, ())

    # --- around the conductor -----------------------------------------------------------------------------------------

    def send(self, participant: ParticipantId, message: RoundBroadcast) -> None:
        self.waiting.append((participant, message))

    def start(self, order: FoldOrder) -> None:
        self.orders.append(order)

    def drop(self, key: RoundKey) -> None: ...

    # --- the silos ----------------------------------------------------------------------------------------------------

    def run(self, *, rounds: int | None = None) -> None:
        """Until nothing more happens, or so many folds ended."""
        while self.waiting or self.orders:
            while self.waiting:
                self._deliver(*self.waiting.popleft())
            if self.orders and (rounds is None or len(self.encodings) < rounds):
                self._fold(self.orders.popleft())
            elif self.orders:
                return

    def deliver_next(self) -> None:
        self._deliver(*self.waiting.popleft())

    def _deliver(self, member: ParticipantId, message: RoundBroadcast) -> None:
        silo = self._silo(member, message)
        if silo is None:
            return
        for _, event in silo.hears(message):
            try:
                match event:
                    case Replied(_, word):
                        self.conductor.received(member, f"session-{member}", word)
                    case UploadOffered(_, key, commit, _, update):
                        self.conductor.offer_upload(member, key, commit, update)
                    case _:
                        raise RuntimeError(f"a silo says {event}")
            except PeerError as error:
                self.refused.append(error)

    def _silo(self, member: ParticipantId, message: RoundBroadcast) -> MaskedSilo | None:
        if isinstance(message, Sealed):
            if not isinstance(message.value, RoundPlan | AttemptStart):
                return None
            key = message.value.key if isinstance(message.value, RoundPlan) else message.value.key.round
        else:
            key = message.key.round
        frame = self.frame
        if frame is None or frame.key != key:
            return None
        fits = self.misses.get(key.number) != member
        return self.silos.setdefault((key, member), MaskedSilo(member, frame, fits=fits))

    @property
    def live(self) -> RoundState | None:
        return self.conductor.desk.job_view(JOB).live

    @property
    def frame(self) -> RoundFrame | None:
        return None if self.live is None else self.live.frame

    def _fold(self, order: FoldOrder) -> None:
        key, purpose = order.frame.key, order.frame.plan.value.purpose
        self.encodings.append((order.frame.encoding, order.encoding))
        model, cells = order.frame.plan.value.model, tuple[int, ...]()
        if purpose is Purpose.TRAIN:
            content = initial_model()[: -8 * ELEMENTS] + bytes([key.number]) * 8 * ELEMENTS
            model, cells = self._publish(content, f"next-{key.number}"), (0,)
        totals = dict.fromkeys(order.frame.statistics.names, 3.0)
        self.conductor.fold_ended(key, Folded(model, 3.0, Digest.of(b"sum"), totals, cells))

    def open_and_damage(self, *, without: ParticipantId) -> None:
        """The round goes as far as a fold, in which one member has no part; an update is damaged then."""
        self.waiting = deque(waiting for waiting in self.waiting if waiting[0] != without)
        while not self.orders:
            if not self.waiting:
                self.clock.advance(5.0)  # the grace
                self.conductor.tick()
            self.deliver_next()
        order = self.orders.popleft()
        self.waiting.clear()
        self.conductor.fold_ended(order.frame.key, FoldFailed(AbortReason.DAMAGED, "a spool"))

    @property
    def waits_for(self) -> str:
        return self.conductor.desk.job_view(JOB).waits_for

    @property
    def summaries(self) -> list[Mapping[str, object]]:
        return [json.loads(record.summary) for record in self.store.rounds(JOB) if record.outcome]


# --- what it waits for ------------------------------------------------------------------------------------------------


def test_without_a_manifest_a_masked_job_waits_and_says_so() -> None:
    federation = Federation(consortium=None)
    federation.submit(make_masked_spec())
    federation.connect()
    assert federation.conductor.desk.job_view(JOB).record.state is JobState.QUEUED
    assert federation.waits_for == (
        "it is masked, and this coordinator has no manifest: set consortium.manifest in coordinator.toml"
    )
    federation.restart(manifest(*MEMBERS))
    federation.connect()
    assert federation.conductor.desk.job_view(JOB).record.state is JobState.RUNNING


def test_a_member_whom_the_manifest_does_not_have_is_named() -> None:
    federation = Federation(consortium=manifest(A, B))
    federation.submit(make_masked_spec())
    federation.connect()
    assert federation.waits_for.startswith("not in the consortium's manifest: hospital-c, hospital-d (`consilo pki")


@pytest.mark.parametrize("left", [None, manifest(A, B, C)])
def test_an_open_round_whose_members_are_strangers_now_waits_and_can_be_aborted(left: Consortium | None) -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec())
    federation.connect()
    assert federation.frame is not None
    federation.restart(left)
    federation.connect()
    assert "cannot go on: its open round cannot go on here" in federation.waits_for
    assert federation.conductor.next_deadline <= federation.clock.monotonic() + TROUBLE_RETRY_S
    federation.run()
    federation.conductor.desk.abort_job(JOB, "", OPERATOR)
    assert [record.outcome for record in federation.store.rounds(JOB)] == [AbortReason.OPERATOR]


# --- whole jobs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True])
def test_a_job_widens_where_updates_do_not_fit_and_stays_wide_after_enough_misses(restarted: bool) -> None:  # noqa: FBT001 - a parameter
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.misses = {2: A, 3: B, 5: C}
    federation.submit(make_masked_spec(rounds=6))
    federation.connect()
    if restarted:
        for rounds in range(1, 7):
            federation.run(rounds=rounds)
            federation.orders.clear()
            federation.restart(manifest(*MEMBERS))
            federation.connect()
    federation.run()
    wide, narrow = Encoding.U64, Encoding.U32
    assert MISSES_MAX == 3
    assert federation.encodings == [
        (wide, wide),  # no range is known
        (narrow, wide),
        (narrow, wide),
        (narrow, narrow),
        (narrow, wide),
        (wide, wide),  # three rounds had a miss
        (wide, wide),  # evaluate
    ]
    assert [summary["range_miss"] for summary in federation.summaries] == [False, True, True, False, True, False, False]
    assert [summary["encoding"] for summary in federation.summaries] == ["u64", "u64", "u64", "u32", *["u64"] * 3]
    assert federation.conductor.desk.job_view(JOB).record.state is JobState.COMPLETED


def test_the_profile_u64_is_u64_throughout() -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.misses = {2: A}
    federation.submit(make_masked_spec(rounds=2, masking={"encoding": "u64"}))
    federation.connect()
    federation.run()
    assert {encoding for pair in federation.encodings for encoding in pair} == {Encoding.U64}
    assert not any(summary["range_miss"] for summary in federation.summaries)


def test_nothing_of_one_silo_is_told_to_anybody() -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.misses = {2: D}
    with capture_logs() as lines:
        federation.submit(make_masked_spec(rounds=2))
        federation.connect()
        federation.run()
    assert federation.refused == []
    for record, summary in zip(federation.store.rounds(JOB), federation.summaries, strict=True):
        assert record.outcome == "committed"
        assert summary.keys() == {
            "survivors",
            "dropped",
            "weight_total",
            "metrics",
            "model",
            "next_model",
            "encoding",
            "range_miss",
            "phases_s",
            "duration_s",
        }
    audit = [entry.line.decode() for entry in federation.store.audit_entries(0)]
    told = "\n".join([repr(lines), *audit, generate_latest(federation.metrics.registry).decode()])
    told += "\n".join(record.summary.decode() for record in federation.store.rounds(JOB))
    secrets = [secret for silo in federation.silos.values() for secret in secrets_of(silo)]
    assert len(secrets) > 100
    assert not [secret for secret in secrets if secret.hex() in told or repr(secret)[2:-1] in told]
    assert [summary["range_miss"] for summary in federation.summaries] == [False, True, False], "a bit, and no name"
    waited = [line for line in lines if line["event"] == "round_moved"]
    assert {line["phase"] for line in waited} >= {"advertising", "sharing", "uploading", "confirming", "unmasking"}


def secrets_of(silo: MaskedSilo) -> list[bytes]:
    """Its secrets of its last attempt, and every share and masked word that it made or opened."""
    own = silo.now.secrets
    seeds = [secret.reveal() for secret in (own.self_seed, own.mask_seed, own.share_private, own.encoding_seed)]
    shares = [share.reveal() for kept in silo.now.opened.values() for share in (kept.self_share, kept.mask_share)]
    said = [] if silo.now.word is None else [share.ciphertext for share in silo.now.word.shares]
    return [*seeds, *shares, *said]


def test_a_word_of_masking_about_a_round_that_is_over_is_late_and_no_more() -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec(rounds=1))
    federation.connect()
    federation.run(rounds=1)
    silo = next(iter(federation.silos.values()))
    federation.run()
    word: AttemptAnswer = silo.now.advert
    with pytest.raises(LateError):
        federation.conductor.received(silo.name, f"session-{silo.name}", word)


def test_one_that_left_an_attempt_sends_no_update_to_it() -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec(rounds=1))
    federation.connect()
    while not isinstance(federation.live, Uploading):
        federation._deliver(*federation.waiting.popleft())
    key = federation.live.key
    silo = federation.silos[key.round, A]
    assert not federation.conductor.may_upload(A, key).committed
    event = silo.leaves(AttemptAbortReason.BAD_SHARES)
    with capture_logs() as lines:
        federation.conductor.received(A, f"session-{A}", event.message)
    left = [line for line in lines if line["event"] == "attempt_left"]
    assert [(line["participant"], line["attempt"], line["reason"]) for line in left] == [(A, 1, "bad_shares")]
    with pytest.raises(LateError, match="left attempt"):
        federation.conductor.may_upload(A, key)
    federation.waiting = deque(waiting for waiting in federation.waiting if waiting[0] != A)
    federation.run(rounds=1)
    recorded = json.loads(federation.store.rounds(JOB)[0].summary)
    audited = [json.loads(entry.line.split(b" ", 1)[1]) for entry in federation.store.audit_entries(0)]
    (ended,) = [body["data"] for body in audited if body["kind"] == "round_committed"]
    for told in (federation.summaries[0], recorded, ended):
        assert told["dropped"] == {A: DropReason.ATTEMPT_LEFT}
        assert told["left"] == {A: AttemptAbortReason.BAD_SHARES}


def test_who_declines_is_logged_with_the_rule_which_the_summary_has_and_the_audit_log_has_not() -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec())
    federation.connect()
    assert federation.frame is not None
    said = Decline(federation.frame.key, plan_digest(federation.frame.plan), ConsentRule.JOB_NOT_APPROVED)
    with capture_logs() as lines:
        federation.conductor.received(B, f"session-{B}", said)
    declined = [line for line in lines if line["event"] == "round_declined"]
    assert [(line["participant"], line["round"], line["rule"]) for line in declined] == [(B, 1, "job_not_approved")]
    federation.conductor.desk.abort_job(JOB, "enough", Identity("hearts.example", Role.OPERATOR, "olga"))
    recorded = json.loads(federation.store.rounds(JOB)[0].summary)
    assert recorded["dropped"][B] == DropReason.DECLINED
    assert recorded["rules"] == {B: "job_not_approved"}
    audited = b"".join(entry.line for entry in federation.store.audit_entries(0))
    assert b"declined" in audited
    assert b"job_not_approved" not in audited, "the audit log may be shown to the other silos"


# --- time -------------------------------------------------------------------------------------------------------------


class _JumpingClock(ManualClock):
    """Somebody sets the machine's clock, by hours and back, each time that it is read."""

    def __init__(self) -> None:
        super().__init__(start=datetime(2026, 11, 22, tzinfo=UTC))
        self._jumps = cycle(timedelta(hours=hours) for hours in (0, 7, -30, 900, -3, 12_000))

    def now(self) -> datetime:
        return super().now() + next(self._jumps)


def _deadlines(clock: ManualClock) -> tuple[list[float], list[Mapping[str, object]]]:
    """Of a whole job, after each message; a message takes a quarter of a second, and a restart is in the middle."""
    federation = Federation(consortium=manifest(*MEMBERS), clock=clock)
    federation.submit(make_masked_spec(rounds=2))
    federation.connect()
    seen: list[float] = []
    while federation.waiting or federation.orders:
        if federation.waiting:
            federation.deliver_next()
        else:
            federation._fold(federation.orders.popleft())
        clock.advance(0.25)
        if federation.conductor.next_tick <= clock.monotonic():
            federation.conductor.tick()
        seen.append(federation.conductor.next_deadline)
        if len(seen) == RESTARTED_AFTER:
            federation.conductor.note_timers()
            federation.restart(manifest(*MEMBERS))
            federation.connect()
    assert federation.conductor.desk.job_view(JOB).record.state is JobState.COMPLETED
    return seen, federation.summaries


def test_a_clock_that_jumps_changes_no_deadline_in_any_phase() -> None:
    steady = _deadlines(ManualClock(start=datetime(2026, 11, 22, tzinfo=UTC)))
    assert len(set(steady[0])) > 10, "each wait has its own"
    assert _deadlines(_JumpingClock()) == steady


def test_a_clock_that_jumps_ends_no_round_early_or_late() -> None:
    clock = _JumpingClock()
    federation = Federation(consortium=manifest(*MEMBERS), clock=clock)
    federation.submit(make_masked_spec(deadline_s=600.0))
    federation.connect()
    for _ in range(599):
        clock.advance(1.0)
        federation.conductor.tick()
    assert not federation.summaries
    clock.advance(1.0)
    federation.conductor.tick()
    assert federation.summaries[0]["reason"] == AbortReason.BELOW_QUORUM


def test_a_process_that_ends_notes_what_is_left_for_the_next_one() -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec(deadline_s=600.0))
    federation.connect()
    federation.clock.advance(123.0)
    federation.conductor.note_timers()
    federation.clock.advance(1e6)
    federation.restart(manifest(*MEMBERS))
    assert federation.conductor.next_deadline == federation.clock.monotonic() + 477.0 + RECONNECT_WINDOW_S


# --- after a total that may have been opened --------------------------------------------------------------------------


def test_a_damaged_update_ends_its_round_and_the_next_one_asks_the_same_members() -> None:
    """Everybody had opened by then: on that model they open no other total."""
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec(rounds=1))
    federation.connect()
    federation.open_and_damage(without=D)
    assert federation.summaries[0]["reason"] == AbortReason.DAMAGED
    assert federation.summaries[0]["opened"] == [A, B, C]
    assert federation.frame is not None
    assert federation.frame.bound == (A, B, C)
    plans = [
        member for member, said in federation.waiting if isinstance(said, Sealed) and isinstance(said.value, RoundPlan)
    ]
    assert plans == [A, B, C], "the fourth is not asked"
    federation.run()
    assert [record.outcome for record in federation.store.rounds(JOB)] == ["damaged", "committed", "committed"]


def test_a_round_that_changed_nothing_binds_the_next_one_to_its_survivors() -> None:
    federation = Federation(consortium=manifest(*MEMBERS))
    federation.submit(make_masked_spec(rounds=2))
    federation.connect()
    while not federation.orders:
        federation.deliver_next()
    order = federation.orders.popleft()
    same = order.frame.plan.value.model
    totals = dict.fromkeys(order.frame.statistics.names, 3.0)
    federation.conductor.fold_ended(order.frame.key, Folded(same, 3.0, Digest.of(b"sum"), totals, (0,)))
    assert federation.frame is not None
    assert federation.frame.bound == order.frame.spec.members
    while not federation.orders:
        federation.deliver_next()
    federation._fold(federation.orders.popleft())
    assert federation.frame.bound == (), "the model is another one"
