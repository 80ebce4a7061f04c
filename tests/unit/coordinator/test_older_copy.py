"""Records that are an older copy of themselves: found by what silos verified, noted once, and nothing goes on from
them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest
from structlog.testing import capture_logs

from coordinator.audit import AuditLog, resume
from coordinator.conductor import Conductor
from coordinator.intake import Intake
from coordinator.older_copy import Head, own_heads
from coordinator.registry import Enrolled
from coordinator.round.phases import Recruiting, RoundState
from coordinator.round.surroundings import FoldOrder, Surroundings
from coordinator.storage.faults import Fault, FaultPlan
from coordinator.storage.interface import JournalEntry, ModelRecord, RoundCommit, SetBack
from coordinator.storage.memory import MemoryBlobs, MemoryStore
from shared.clock import ManualClock
from shared.errors import DurabilityUnknown, StorageError
from shared.identity import Identity, Role
from shared.ids import Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.protocol.messages import RoundAborted, RoundBroadcast, RoundPlan, RoundResult, Sealed
from shared.reasons import AbortReason, JobState, Purpose
from shared.wire.fields import TEXT_MAX_CHARS
from shared.wire.sealed import encode_envelope, seal
from tests.support.rounds import (
    COORDINATOR_KEY,
    MEMBERS,
    TASK,
    A,
    B,
    coordinator_seal,
    initial_index,
    initial_model,
    key_of,
    make_spec,
)

OPERATOR = Identity("hearts.example", Role.OPERATOR, "olga")
OTHERS = tuple(ParticipantId(f"clinic-{letter}") for letter in "abc")
HEART, LUNG, GONE = JobId("heart-1"), JobId("lung-1"), JobId("gone-1")
MODEL = Digest.of(initial_model(8))
TRAINED = Digest.of(b"trained")


def result(job: JobId, number: int, *, weight: float = 4.0, next_model: Digest = TRAINED) -> Head:
    value = RoundResult(
        key=RoundKey(job, RoundNumber(number)),
        purpose=Purpose.TRAIN,
        attempt=Digest.of(b"h0"),
        transcript=Digest.of(b"t3"),
        survivors=(1, 2, 3, 4),
        weight_total=weight,
        top_cells=(),
        aggregate=Digest.of(b"aggregate"),
        next_model=next_model,
    )
    return seal(value, signer=COORDINATOR_KEY, index=0)


class Outside:
    """Hears what a conductor says to anybody."""

    def __init__(self) -> None:
        self.sent: list[tuple[ParticipantId, RoundBroadcast]] = []

    def send(self, participant: ParticipantId, message: RoundBroadcast) -> None:
        self.sent.append((participant, message))

    def start(self, order: FoldOrder) -> None: ...

    def drop(self, key: RoundKey) -> None: ...

    def moved(self, state: RoundState) -> None: ...

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None: ...

    def said(self, kind: type[object]) -> list[ParticipantId]:
        return [to for to, message in self.sent if isinstance(message, Sealed) and isinstance(message.value, kind)]


class Machine:
    """Storage that outlives the conductor on it."""

    def __init__(self) -> None:
        self.faults = FaultPlan()
        self.store = MemoryStore(faults=self.faults)
        self.blobs = MemoryBlobs(faults=self.faults)
        self.clock = ManualClock(start=datetime(2026, 11, 22, tzinfo=UTC))
        self.outside = Outside()
        self.start()
        for elements in (8, 9):
            content = initial_model(elements)
            staged = self.blobs.stage("initial")
            staged.allocate(len(content))
            staged.write_at(0, memoryview(content))
            self.conductor.desk.add_model(staged, Digest.of(content), initial_index(elements), OPERATOR)

    def start(self, *, crashed: bool = False) -> None:
        if crashed:
            self.store, self.blobs = self.store.crash(), self.blobs.crash()
        sign = partial(COORDINATOR_KEY.sign, "audit")
        self.audit: AuditLog = resume(self.store.audit_entries, sign=sign, clock=self.clock)
        around = Surroundings(
            store=self.store,
            audit=self.audit,
            outbox=self.outside,
            folds=self.outside,
            seal=coordinator_seal,
            clock=self.clock,
            observer=self.outside,
        )
        self.conductor = Conductor(around=around, blobs=self.blobs, intake=Intake(self.blobs), signer=COORDINATOR_KEY)
        self.conductor.start()

    def submit(self, job: JobId, *, elements: int = 8, members: tuple[ParticipantId, ...] = MEMBERS) -> None:
        spec = make_spec(elements=elements, members=members)
        self.conductor.desk.submit_job(job, spec.to_bytes(), OPERATOR)

    def connect(self, *members: ParticipantId) -> None:
        for member in members:
            enrolled = Enrolled(f"session-{member}", frozenset({TASK}))
            self.conductor.session_opened(member, enrolled, key_of(member).verifying_key, ())

    def commit(self, head: Head) -> None:
        """A round that is on record with this result."""
        entry = self.audit.entry("round_committed", {"job": head.value.key.job})
        model = ModelRecord(head.value.next_model, b"{}")
        summary, sealed = b'{"range_miss":false}', encode_envelope(head.envelope)
        self.store.commit_round(RoundCommit(head.value.key, summary, sealed, model, JobState.RUNNING, entry))
        self.audit.accept(entry)

    def state_of(self, job: JobId) -> JobState:
        return self.store.job(job).state

    def outcomes(self, job: JobId) -> list[str]:
        return [record.outcome for record in self.store.rounds(job)]

    def kinds(self) -> list[str]:
        return [json.loads(entry.line[129:])["kind"] for entry in self.store.audit_entries(0)]


@pytest.fixture
def machine() -> Machine:
    """One job in its first round, and one that waits for its members."""
    made = Machine()
    made.submit(HEART)
    made.submit(LUNG, elements=9, members=OTHERS)
    made.connect(*MEMBERS)
    assert made.outcomes(HEART) == [""]
    assert made.state_of(LUNG) is JobState.QUEUED
    return made


def test_what_is_on_record_proves_nothing(machine: Machine) -> None:
    head = result(HEART, 1)
    machine.commit(head)
    machine.start(crashed=True)
    before = machine.kinds()
    assert machine.conductor.heads_shown(A, [head]) == 0
    assert (machine.kinds(), machine.store.set_backs()) == (before, ())


def test_jobs_that_are_paused_end_too(machine: Machine) -> None:
    for job in (HEART, LUNG):
        assert machine.conductor.desk.pause_job(job, "", OPERATOR).changed
    machine.start(crashed=True)
    assert machine.state_of(LUNG) is JobState.PAUSED
    assert machine.store.job(HEART).standing is JobState.PAUSING
    assert machine.conductor.heads_shown(A, [result(GONE, 3)]) == 1
    assert (machine.state_of(HEART), machine.state_of(LUNG)) == (JobState.ABORTED, JobState.ABORTED)


LOST = {
    "of a job that is unknown": result(GONE, 3),
    "of a round that is unknown": result(HEART, 2),
    "of a round that is open": result(HEART, 1),
    "another one of a round that is committed": result(HEART, 1, weight=5.0),
}


@pytest.mark.parametrize("what", LOST)
def test_a_result_that_is_not_on_record_ends_every_open_job(machine: Machine, what: str) -> None:
    if what.startswith("another"):
        machine.commit(result(HEART, 1, next_model=MODEL))
        machine.start(crashed=True)
        machine.connect(*MEMBERS)  # round 2 is open
    head, before = LOST[what], len(machine.kinds())
    with capture_logs() as logs:
        assert machine.conductor.heads_shown(A, [head]) == 1
    assert (machine.state_of(HEART), machine.state_of(LUNG)) == (JobState.ABORTED, JobState.ABORTED)
    assert machine.outcomes(HEART)[-1] == AbortReason.RESTORED
    kinds = ["records_rolled_back", "round_aborted", "job_aborted", "job_aborted"]
    assert machine.kinds()[before:] == kinds
    assert machine.outside.said(RoundAborted) == list(MEMBERS)
    (found,) = machine.store.set_backs()
    assert (found.lost, found.ended) == (Digest.of(head.payload), True)
    for job, model in ((HEART, MODEL), (LUNG, Digest.of(initial_model(9)))):
        reason = machine.store.job(job).reason
        assert reason.startswith("restored: hospital-a showed the result of round ")
        assert f'initial = "model:{model}"' in reason
    assert [entry["jobs_ended"] for entry in logs if entry["event"] == "older_records"] == [[HEART, LUNG]]


def test_a_lost_result_is_found_once_and_a_new_job_runs(machine: Machine) -> None:
    head = result(HEART, 4)
    assert machine.conductor.heads_shown(A, [head]) == 1
    new = JobId("heart-2")
    machine.submit(new)
    before = machine.kinds()
    for participant in (A, B):
        assert machine.conductor.heads_shown(participant, [head]) == 0
    machine.start(crashed=True)
    assert machine.conductor.heads_shown(B, [head]) == 0
    assert machine.kinds() == before
    machine.connect(*MEMBERS)
    assert isinstance(machine.conductor.desk.job_view(new).live, Recruiting)


def test_what_was_lost_with_it_ends_nothing_whenever_it_is_shown(machine: Machine) -> None:
    """Or a silo could keep a lost result for a moment of its choice."""
    assert machine.conductor.heads_shown(A, [result(HEART, 4)]) == 1
    machine.submit(JobId("heart-2"))
    machine.connect(*MEMBERS)
    before = len(machine.kinds())
    assert machine.conductor.heads_shown(B, [result(GONE, 9), result(HEART, 5)]) == 2
    assert machine.state_of(JobId("heart-2")) is JobState.RUNNING
    assert machine.kinds()[before:] == ["result_lost", "result_lost"]
    assert machine.conductor.heads_shown(B, [result(GONE, 9), result(HEART, 5)]) == 0


def test_nor_does_what_was_lost_of_a_job_that_a_person_ended_before_it_was_found(machine: Machine) -> None:
    machine.conductor.desk.abort_job(HEART, "the folder was set back", OPERATOR)
    assert machine.conductor.heads_shown(A, [result(HEART, 5)]) == 1
    assert machine.state_of(LUNG) is JobState.ABORTED
    machine.submit(JobId("heart-2"))
    machine.connect(*MEMBERS)
    before = len(machine.kinds())
    for number in (4, 3, 2):
        assert machine.conductor.heads_shown(B, [result(HEART, number)]) == 1
    assert machine.state_of(JobId("heart-2")) is JobState.RUNNING
    assert machine.kinds()[before:] == ["result_lost"] * 3


def test_a_round_that_cannot_be_read_keeps_nobody_else(machine: Machine) -> None:
    """Its job cannot go on either; the others end, and new ones run."""
    machine.store.journal(RoundKey(HEART, RoundNumber(1)), JournalEntry("of another program", b"{}"))
    machine.start(crashed=True)
    with capture_logs() as logs:
        assert machine.conductor.heads_shown(A, [result(LUNG, 3)]) == 1
    assert (machine.state_of(HEART), machine.state_of(LUNG)) == (JobState.RUNNING, JobState.ABORTED)
    assert [entry["job"] for entry in logs if entry["event"] == "job_not_ended"] == [HEART]
    assert machine.conductor.next_deadline > machine.clock.monotonic()
    assert "cannot go on" in machine.conductor.desk.job_view(HEART).waits_for
    machine.submit(JobId("lung-2"), elements=9, members=OTHERS)
    machine.connect(*OTHERS)
    assert machine.state_of(JobId("lung-2")) is JobState.RUNNING
    machine.connect(*MEMBERS)
    assert machine.outside.said(RoundPlan).count(A) == 1  # before it was set back


def test_the_reason_of_a_job_stays_short_whatever_is_shown(machine: Machine) -> None:
    assert machine.conductor.heads_shown(A, [result(HEART, number) for number in range(2, 18)]) == 16
    reason = machine.store.job(HEART).reason
    assert "(and 15 more)" in reason
    assert len(reason) < TEXT_MAX_CHARS


def test_a_second_set_back_is_found_too(machine: Machine) -> None:
    assert machine.conductor.heads_shown(A, [result(HEART, 4)]) == 1
    new = JobId("heart-2")
    machine.submit(new)
    machine.connect(*MEMBERS)
    assert machine.conductor.heads_shown(A, [result(new, 2)]) == 1
    assert machine.outcomes(new) == [AbortReason.RESTORED]


def test_no_round_is_planned_before_it_is_known(machine: Machine) -> None:
    machine.conductor.heads_shown(OTHERS[0], [result(LUNG, 1)])
    machine.outside.sent.clear()
    machine.connect(*OTHERS, *MEMBERS)
    assert machine.outside.said(RoundPlan) == []


@pytest.mark.parametrize("verb", ["abort_round", "set_job_state", "end_set_backs"])
def test_jobs_that_could_not_be_ended_are_ended_before_anything_goes_on(machine: Machine, verb: str) -> None:
    machine.faults.inject(verb, Fault.FAILED_NOT_PERSISTED)
    with pytest.raises(StorageError):
        machine.conductor.heads_shown(A, [result(HEART, 4)])
    assert machine.conductor.next_deadline <= machine.clock.monotonic()
    machine.conductor.tick()
    assert machine.outcomes(HEART) == [AbortReason.RESTORED]
    assert (machine.state_of(HEART), machine.state_of(LUNG)) == (JobState.ABORTED, JobState.ABORTED)
    assert machine.kinds().count("records_rolled_back") == 1
    assert machine.conductor.next_deadline == float("inf")


@pytest.mark.parametrize("fault", [Fault.FAILED_BUT_PERSISTED, Fault.FAILED_UNKNOWN_NOT_PERSISTED])
@pytest.mark.parametrize("verb", ["note_set_back", "abort_round", "set_job_state", "end_set_backs"])
def test_the_next_start_ends_what_a_crash_left(machine: Machine, verb: str, fault: Fault) -> None:
    machine.faults.inject(verb, fault)
    head = result(HEART, 4)
    with pytest.raises(DurabilityUnknown):
        machine.conductor.heads_shown(A, [head])
    machine.start(crashed=True)
    noted = (verb, fault) != ("note_set_back", Fault.FAILED_UNKNOWN_NOT_PERSISTED)
    assert (machine.outcomes(HEART) == [AbortReason.RESTORED]) == noted
    assert machine.conductor.heads_shown(A, [head]) == (0 if noted else 1)
    assert machine.outcomes(HEART) == [AbortReason.RESTORED]
    assert machine.state_of(LUNG) is JobState.ABORTED
    assert machine.kinds().count("records_rolled_back") == 1


def test_a_restored_folder_waits_for_no_head(machine: Machine) -> None:
    entry = machine.audit.entry("records_restored", {})
    assert machine.store.note_set_back(SetBack("the records were restored from the backup of yesterday"), entry)
    with capture_logs() as logs:
        machine.start(crashed=True)
    assert machine.outcomes(HEART) == [AbortReason.RESTORED]
    assert (machine.state_of(HEART), machine.state_of(LUNG)) == (JobState.ABORTED, JobState.ABORTED)
    assert [entry["job"] for entry in logs if entry["event"] == "job_ended"] == [HEART, LUNG]
    machine.submit(JobId("heart-2"))
    machine.connect(*MEMBERS)
    assert machine.conductor.heads_shown(A, [result(HEART, 2), result(GONE, 7)]) == 2
    assert machine.state_of(JobId("heart-2")) is JobState.RUNNING


def test_only_its_own_signed_results_are_heads() -> None:
    mine, theirs = result(HEART, 1), seal(result(HEART, 1).value, signer=key_of(A), index=0)
    broken = replace(mine.envelope, payload=mine.payload + b"\x00")
    as_member = seal(mine.value, signer=COORDINATOR_KEY, index=1)
    other_kind = seal(
        RoundAborted(mine.value.key, Digest.of(b"plan"), AbortReason.OPERATOR), signer=COORDINATOR_KEY, index=0
    )
    shown = [theirs.envelope, broken, as_member.envelope, other_kind.envelope, mine.envelope]
    assert own_heads(shown, verifier=COORDINATOR_KEY.verifying_key) == [mine]
