"""A job that cannot go on is that job's trouble alone; words about a round that is over are late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

import pytest

from coordinator.audit import AuditLog
from coordinator.conductor import TROUBLE_RETRY_S, Conductor
from coordinator.intake import Intake
from coordinator.metrics import JOBS_SHOWN_MAX
from coordinator.registry import Enrolled
from coordinator.round.phases import Recruiting, RoundState
from coordinator.round.surroundings import FoldOrder, Surroundings
from coordinator.standings import STANDINGS_MAX, JobStanding, Standings
from coordinator.storage.faults import Fault, FaultPlan
from coordinator.storage.memory import MemoryBlobs, MemoryStore
from shared.clock import ManualClock
from shared.errors import DurabilityUnknown, LateError, StorageError, UnreachableError
from shared.identity import Identity, Role
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.job import MEMBERS_MAX
from shared.protocol.messages import Consent, RoundAborted, RoundBroadcast, Sealed
from shared.reasons import AbortReason, DropReason, JobState, Purpose
from shared.wire.operations import WAITS_FOR_MAX_CHARS
from tests.support.rounds import (
    COORDINATOR_KEY,
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
    make_spec,
)

OPERATOR = Identity("hearts.example", Role.OPERATOR, "olga")
OTHERS = tuple(ParticipantId(f"clinic-{letter}") for letter in "abc")
HEART, LUNG, KNEE = JobId("heart-1"), JobId("lung-1"), JobId("knee-1")


class Outside:
    """Hears what a conductor says to anybody."""

    def __init__(self) -> None:
        self.sent: list[tuple[ParticipantId, RoundBroadcast]] = []
        self.dropped: list[RoundKey] = []
        self.ended: list[tuple[RoundKey, str, Mapping[str, object]]] = []

    def send(self, participant: ParticipantId, message: RoundBroadcast) -> None:
        self.sent.append((participant, message))

    def start(self, order: FoldOrder) -> None: ...

    def drop(self, key: RoundKey) -> None:
        self.dropped.append(key)

    def moved(self, state: RoundState) -> None: ...

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        self.ended.append((key, outcome, summary))


class Machine:
    """Storage that outlives the conductor on it."""

    def __init__(self) -> None:
        self.faults = FaultPlan()
        self.store = MemoryStore(faults=self.faults)
        self.blobs = MemoryBlobs(faults=self.faults)
        self.clock = ManualClock(start=datetime(2026, 11, 22, tzinfo=UTC))
        self.outside = Outside()
        self.strangers: frozenset[ParticipantId] = frozenset()
        self.lists_asked_for = 0
        self.audit = AuditLog(sign=partial(COORDINATOR_KEY.sign, "audit"), clock=self.clock)
        self.conductor = self.restart()

    def restart(self) -> Conductor:
        outside = self.outside
        around = Surroundings(
            store=self.store,
            audit=self.audit,
            outbox=outside,
            folds=outside,
            seal=coordinator_seal,
            clock=self.clock,
            observer=outside,
        )
        self.conductor = Conductor(
            around=around,
            blobs=self.blobs,
            intake=Intake(self.blobs),
            signer=COORDINATOR_KEY,
            kept_out=self.kept_out,
        )
        return self.conductor

    def kept_out(self, participants: Sequence[ParticipantId]) -> Sequence[ParticipantId]:
        self.lists_asked_for += 1
        return [participant for participant in participants if participant in self.strangers]

    def add_model(self, elements: int) -> Digest:
        content = initial_model(elements)
        staged = self.blobs.stage("initial")
        staged.allocate(len(content))
        staged.write_at(0, memoryview(content))
        self.conductor.desk.add_model(staged, Digest.of(content), initial_index(elements), OPERATOR)
        return Digest.of(content)

    def connect(self) -> None:
        for member in (*MEMBERS, *OTHERS):
            enrolled = Enrolled(f"session-{member}", frozenset({TASK}))
            self.conductor.session_opened(member, enrolled, key_of(member).verifying_key, ())

    def phase_of(self, job: JobId) -> RoundState | None:
        return self.conductor.desk.job_view(job).live


@pytest.fixture
def machine() -> Machine:
    """Two jobs, of which the first one's model is lost."""
    made = Machine()
    lost = made.add_model(8)
    made.add_model(9)
    made.conductor.desk.submit_job(HEART, make_spec(elements=8).to_bytes(), OPERATOR)
    made.conductor.desk.submit_job(LUNG, make_spec(elements=9, members=OTHERS).to_bytes(), OPERATOR)
    made.blobs._models.pop(lost)
    return made


def bring_back(machine: Machine) -> None:
    content = initial_model(8)
    machine.blobs._models[Digest.of(content)] = content


def test_a_lost_model_stops_its_job_and_no_other(machine: Machine) -> None:
    machine.connect()
    view = machine.conductor.desk.job_view(HEART)
    assert view.record.state is JobState.RUNNING
    assert view.waits_for.startswith("cannot go on: there is no model")
    assert isinstance(machine.phase_of(LUNG), Recruiting)


def test_it_is_tried_again_when_time_passes(machine: Machine) -> None:
    machine.connect()
    assert machine.conductor.next_deadline <= machine.clock.monotonic() + TROUBLE_RETRY_S
    bring_back(machine)
    machine.clock.advance(TROUBLE_RETRY_S)
    machine.conductor.tick()
    assert isinstance(machine.phase_of(HEART), Recruiting)
    assert machine.conductor.desk.job_view(HEART).waits_for == ""


def test_a_start_goes_on_without_it_and_takes_the_open_round_up_later(machine: Machine) -> None:
    bring_back(machine)
    machine.connect()
    machine.blobs._models.pop(Digest.of(initial_model(8)))
    machine.restart().start()
    assert machine.conductor.desk.job_view(HEART).waits_for.startswith("cannot go on")
    assert isinstance(machine.phase_of(LUNG), Recruiting)
    key = AttemptKey(RoundKey(HEART, RoundNumber(1)), AttemptNumber(1))
    with pytest.raises(UnreachableError, match="cannot go on now"):
        machine.conductor.may_upload(A, key)  # not late: the round is open
    machine.connect()
    machine.outside.sent.clear()
    bring_back(machine)
    machine.conductor.tick()
    state = machine.phase_of(HEART)
    assert isinstance(state, Recruiting)
    assert {participant for participant, _ in machine.outside.sent} >= set(MEMBERS)
    assert len(machine.store.rounds(HEART)) == 1


def test_what_nobody_can_know_still_ends_the_process(machine: Machine) -> None:
    bring_back(machine)
    machine.faults.inject("open_round", Fault.FAILED_BUT_PERSISTED)
    with pytest.raises(DurabilityUnknown):
        machine.connect()


def test_a_word_about_a_finished_round_is_late(machine: Machine) -> None:
    bring_back(machine)
    machine.connect()
    machine.conductor.desk.abort_job(HEART, "enough", OPERATOR)
    word = Consent(RoundKey(HEART, RoundNumber(1)), Digest(bytes(32)))
    with pytest.raises(LateError):
        machine.conductor.received(A, f"session-{A}", word)


def test_a_round_that_cannot_be_taken_up_ends_with_its_job(machine: Machine) -> None:
    bring_back(machine)
    machine.connect()
    lost = machine.blobs._models.pop(Digest.of(initial_model(8)))
    machine.restart().start()
    machine.conductor.session_opened(A, Enrolled("session-2", frozenset({TASK})), key_of(A).verifying_key, ())
    machine.outside.sent.clear()
    round_key = RoundKey(HEART, RoundNumber(1))

    view = machine.conductor.desk.abort_job(HEART, "its model is lost", OPERATOR)
    assert (view.record.state, view.record.reason) == (JobState.ABORTED, "operator: its model is lost")
    assert [record.outcome for record in view.rounds] == [AbortReason.OPERATOR]
    (ended,) = [ended for ended in machine.outside.ended if ended[0] == round_key]
    dropped = {B: DropReason.DISCONNECTED, C: DropReason.DISCONNECTED, D: DropReason.DISCONNECTED}
    assert ended[1:] == (AbortReason.OPERATOR, ended[2])
    assert ended[2]["dropped"] == {A: DropReason.NOT_READY, **dropped}
    told = [message for participant, message in machine.outside.sent if participant == A]
    assert len(told) == 1
    assert isinstance(told[0], Sealed)
    assert isinstance(told[0].value, RoundAborted)
    # Who comes later hears of it too, and a start with the model back finds nothing to go on with.
    machine.blobs._models[Digest.of(lost)] = lost
    machine.restart().start()
    machine.outside.sent.clear()
    machine.conductor.session_opened(B, Enrolled("session-3", frozenset({TASK})), key_of(B).verifying_key, [round_key])
    assert [participant for participant, _ in machine.outside.sent] == [B]
    assert machine.phase_of(HEART) is None


def test_a_failed_write_leaves_such_a_round_to_be_aborted_again(machine: Machine) -> None:
    bring_back(machine)
    machine.connect()
    machine.blobs._models.pop(Digest.of(initial_model(8)))
    machine.restart().start()
    machine.faults.inject("abort_round", Fault.FAILED_NOT_PERSISTED)
    with pytest.raises(StorageError):
        machine.conductor.desk.abort_job(HEART, "", OPERATOR)
    assert machine.conductor.desk.job_view(HEART).record.state is JobState.RUNNING
    assert machine.outside.dropped == []  # a round that goes on needs its fold
    machine.conductor.desk.abort_job(HEART, "", OPERATOR)
    assert machine.store.round(RoundKey(HEART, RoundNumber(1))).outcome == AbortReason.OPERATOR
    assert machine.outside.dropped == [RoundKey(HEART, RoundNumber(1))]


def test_the_allow_list_is_asked_once_and_only_about_a_job_that_waits(machine: Machine) -> None:
    machine.strangers = frozenset({A, D})
    assert machine.conductor.desk.job_view(HEART).waits_for.endswith("; not on the allow-list: hospital-a, hospital-d")
    asked = machine.lists_asked_for
    machine.conductor.desk.job_view(HEART)
    assert machine.lists_asked_for == asked + 1
    bring_back(machine)
    machine.connect()
    asked = machine.lists_asked_for
    assert machine.conductor.desk.job_view(HEART).waits_for == ""
    assert machine.lists_asked_for == asked


def test_why_a_job_of_many_members_waits_is_short_enough_for_whoever_reads_it(machine: Machine) -> None:
    members = tuple(ParticipantId(f"clinic-{number:04}-{'x' * 50}") for number in range(MEMBERS_MAX))
    machine.strangers = frozenset(members)
    machine.conductor.desk.submit_job(KNEE, make_spec(elements=9, members=members).to_bytes(), OPERATOR)
    for member in members[:500]:
        enrolled = Enrolled(f"session-{member}", frozenset())
        machine.conductor.session_opened(member, enrolled, key_of(A).verifying_key, ())
    waits_for = machine.conductor.desk.job_view(KNEE).waits_for
    assert len(waits_for) < WAITS_FOR_MAX_CHARS
    assert waits_for.startswith(f"0 of quorum 3; not connected: {members[500]}, ")
    assert waits_for.count(" and 450 more") == 2
    assert waits_for.endswith(" and 950 more")


def test_where_all_jobs_stand(machine: Machine) -> None:
    """Two queued jobs; their members come; one job ends, and a restart still counts it."""
    bring_back(machine)
    conductor, quorum = machine.conductor, make_spec().round.quorum
    assert conductor.standings() == Standings(
        {JobState.QUEUED: 2}, {job: JobStanding(quorum=quorum, connected=0, running=False) for job in (HEART, LUNG)}
    )
    machine.connect()
    assert conductor.standings().states == {JobState.RUNNING: 2}
    assert conductor.standings().jobs[HEART] == JobStanding(quorum=quorum, connected=len(MEMBERS), running=True)
    conductor.session_closed(A, f"session-{A}")
    assert conductor.standings().jobs[HEART].connected == len(MEMBERS) - 1
    conductor.session_opened(A, Enrolled("session-2", frozenset()), key_of(A).verifying_key, ())
    assert conductor.standings().jobs[HEART].connected == len(MEMBERS) - 1, "it came without the task"
    conductor.desk.pause_job(HEART, "look at it", OPERATOR)
    assert conductor.standings().states == {JobState.PAUSING: 1, JobState.RUNNING: 1}
    conductor.desk.abort_job(LUNG, "enough", OPERATOR)
    for each in (conductor, machine.restart()):
        if each is not conductor:
            each.start()
        assert each.standings().states == {JobState.PAUSING: 1, JobState.ABORTED: 1}
        assert each.standings().jobs.keys() == {HEART}


def test_of_many_jobs_the_first_ones_are_looked_at_one_by_one(machine: Machine) -> None:
    spec = make_spec(elements=9, members=OTHERS).to_bytes()
    for number in range(STANDINGS_MAX):
        machine.conductor.desk.submit_job(JobId(f"job-{number}"), spec, OPERATOR)
    now = machine.conductor.standings()
    assert now.states == {JobState.QUEUED: STANDINGS_MAX + 2}
    assert len(now.jobs) == STANDINGS_MAX == JOBS_SHOWN_MAX
