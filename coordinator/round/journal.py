"""The journal of an open round: records to durable entries and back, and the state that a restart goes on from.

Bodies are canonical JSON with the exact bytes of envelopes in hexadecimal: what was broadcast is journaled as it was
sent, so that a restart says the same bytes again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from coordinator.round.effects import (
    AttemptBegun,
    Contributed,
    Effect,
    MemberOut,
    Record,
    StartFold,
    SurvivorsFixed,
)
from coordinator.round.machine import Transition
from coordinator.round.members import with_phase
from coordinator.round.phases import (
    Away,
    Contribution,
    Conversation,
    Folding,
    OpenState,
    Recruiting,
    RoundFrame,
    Uploading,
)
from coordinator.storage.interface import JournalEntry
from shared.errors import WireError
from shared.ids import Digest, ParticipantId, parse_participant_id
from shared.job import canonical_json
from shared.protocol.messages import AttemptStart, Envelope, RoundPlan, Sealed
from shared.protocol.phases import Phase
from shared.reasons import DropReason
from shared.wire.sealed import decode_envelope, decode_update_header, encode_envelope, encode_update_header, reopen

PLAN = "plan"


def encode_plan(plan: Sealed[RoundPlan]) -> JournalEntry:
    """The first entry of every round."""
    return JournalEntry(PLAN, encode_envelope(plan.envelope))


def decode_plan(entry: JournalEntry) -> Sealed[RoundPlan]:
    return reopen(RoundPlan, decode_envelope(entry.body))


def encode_record(record: Record) -> JournalEntry:
    match record:
        case MemberOut(participant, reason):
            return _entry("member_out", participant=participant, reason=reason)
        case AttemptBegun(start, cohort):
            return _entry("attempt_begun", start=_hex(start.envelope), cohort=list(cohort))
        case Contributed(participant, contribution):
            return _entry(
                "contributed",
                participant=participant,
                commit=_hex(contribution.commit),
                header=encode_update_header(contribution.header).hex(),
                update=str(contribution.update),
            )
        case SurvivorsFixed(survivors):
            return _entry("survivors_fixed", survivors=list(survivors))
        case _:
            assert_never(record)


def decode_record(entry: JournalEntry) -> Record:
    """Read one of our own records. Raises WireError for a kind that this version does not write."""
    body = json.loads(entry.body)
    match entry.kind:
        case "member_out":
            return MemberOut(parse_participant_id(body["participant"]), DropReason(body["reason"]))
        case "attempt_begun":
            return AttemptBegun(reopen(AttemptStart, _envelope(body["start"])), _participants(body["cohort"]))
        case "contributed":
            contribution = Contribution(
                _envelope(body["commit"]),
                decode_update_header(bytes.fromhex(body["header"])),
                Digest.parse(body["update"]),
            )
            return Contributed(parse_participant_id(body["participant"]), contribution)
        case "survivors_fixed":
            return SurvivorsFixed(_participants(body["survivors"]))
        case _:
            raise WireError(f"a journal entry of kind {entry.kind!r} is not one that this version writes")


def restore(frame: RoundFrame, records: Sequence[Record], now: float) -> Transition:
    """The state that these records lead to, with everybody away, and what to start again.

    Deadlines start afresh: the time that a coordinator was down is not charged to its members.
    """
    policy = frame.spec.round
    conversations = {member: Conversation(Phase.PLANNED, Away(now)) for member in frame.spec.members}
    state: OpenState = Recruiting(frame, conversations, {}, deadline=now + policy.deadline_s, attempts_used=0)
    effects: tuple[Effect, ...] = ()
    for record in records:
        match record:
            case MemberOut(participant, reason):
                state = _restore_out(state, participant, reason)
            case AttemptBegun(start, cohort):
                state = _restore_attempt(state, start, cohort, now)
            case Contributed(participant, contribution):
                state = _restore_contribution(state, participant, contribution)
            case SurvivorsFixed(survivors):
                state = _restore_survivors(state, survivors)
                effects = (StartFold(state.attempt.value.key, state.survivors),)
            case _:
                assert_never(record)
    return Transition(state, effects)


def _restore_out(state: OpenState, participant: ParticipantId, reason: DropReason) -> OpenState:
    if isinstance(state, Folding):
        raise RuntimeError("the journal drops a member after its survivors were fixed")  # noqa: TRY004 - a bug, not a type
    moved = with_phase(state, participant, Phase.OUT)
    moved = replace(moved, outs={**moved.outs, participant: reason})
    if isinstance(moved, Uploading):
        kept = {name: update for name, update in moved.contributions.items() if name != participant}
        return replace(moved, contributions=kept)
    return moved


def _restore_attempt(
    state: OpenState, start: Sealed[AttemptStart], cohort: tuple[ParticipantId, ...], now: float
) -> Uploading:
    conversations = dict(state.conversations)
    for member in cohort:
        conversations[member] = Conversation(Phase.UPLOADING, Away(now))
    deadline = now + state.frame.spec.round.upload_deadline_s
    return Uploading(state.frame, conversations, state.outs, start, frozenset(cohort), {}, deadline)


def _restore_contribution(state: OpenState, participant: ParticipantId, contribution: Contribution) -> Uploading:
    if not isinstance(state, Uploading):
        raise RuntimeError("the journal holds a contribution outside an attempt")  # noqa: TRY004 - a bug, not a type
    moved = with_phase(state, participant, Phase.COMMITTED)
    return replace(moved, contributions={**moved.contributions, participant: contribution})


def _restore_survivors(state: OpenState, survivors: tuple[ParticipantId, ...]) -> Folding:
    if not isinstance(state, Uploading):
        raise RuntimeError("the journal fixes survivors outside an attempt")  # noqa: TRY004 - a bug, not a type
    moved = state
    for member in survivors:
        moved = with_phase(moved, member, Phase.FIXED)
    kept = {member: state.contributions[member] for member in survivors}
    return Folding(state.frame, moved.conversations, state.outs, state.attempt, kept)


def _entry(kind: str, **body: object) -> JournalEntry:
    return JournalEntry(kind, canonical_json(body))


def _hex(envelope: Envelope) -> str:
    return encode_envelope(envelope).hex()


def _envelope(text: str) -> Envelope:
    return decode_envelope(bytes.fromhex(text))


def _participants(names: list[str]) -> tuple[ParticipantId, ...]:
    return tuple(map(parse_participant_id, names))
