"""How a round ends at a participant: a result, an abort, or this silo's own leaving (pure)."""

from __future__ import annotations

from participant.round.checks import understated_range
from participant.round.effects import Alarm, Effect, Erase, RecordEnd, Say, Stop, StopJob
from participant.round.phases import (
    Committed,
    Confirmed,
    Finished,
    Fixed,
    Offer,
    Opened,
    Out,
    Ready,
    RoundState,
    Uploading,
    Working,
    phase_of,
)
from participant.round.transition import Transition
from shared.errors import ConflictError, WireError
from shared.ids import Digest
from shared.protocol.messages import RoundAborted, RoundResult, Sealed, Withdraw, attempt_digest
from shared.protocol.phases import Kind, Role, advance
from shared.reasons import AttemptAbortReason, DropReason

ALARM_RANGE = "range_understated"
ALARM_HISTORY = "another_history"
ALARM_RESULT = "false_result"
ALARMS = (ALARM_RANGE, ALARM_HISTORY, ALARM_RESULT, *AttemptAbortReason)
"""All that an alarm may be about: what ends a job for this silo, and why it leaves an attempt."""


def result_came(state: RoundState, result: Sealed[RoundResult]) -> Transition:
    """The round is committed. Raises PeerError for a result that this silo knows to be false."""
    advance(Role.COORDINATOR, phase_of(state), Kind.ROUND_RESULT)
    if isinstance(state, Finished):
        return Transition(state)
    offer, value = state.offer, result.value
    plan = offer.plan.value
    if value.purpose is not plan.purpose:
        raise ConflictError(f"round {offer.key} was planned to {plan.purpose}, its result is of {value.purpose}")
    if value.survivors and value.survivors[-1] > len(offer.spec.members):
        raise WireError(f"a result names member {value.survivors[-1]} of {len(offer.spec.members)}")
    survived = offer.index in value.survivors
    if survived:
        _require_sent(state, value)
    _require_known_total(state, value)
    survived = survived and not isinstance(state, Out)
    wrong = _understated(state, value, survived=survived)
    if wrong is not None:
        return _finish(state, survived=False, verified=None, before=leave_job(offer, ALARM_RANGE, wrong))
    # Of one that left, and was counted before it was heard, the ranges were not held against its update.
    unchecked = isinstance(state, Out) and offer.index in value.survivors
    return _finish(state, survived=survived, verified=None if unchecked else result)


def abort_came(state: RoundState, aborted: Sealed[RoundAborted]) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.ROUND_ABORTED)
    if aborted.value.plan != state.offer.digest:
        raise ConflictError(f"an abort of {state.offer.key} that names another plan")
    on_record = not isinstance(state, Out) or state.over
    return _finish(state, survived=False, verified=None, aborted=on_record)


def passed_over(state: RoundState) -> Transition:
    """The round ended without a result of this silo."""
    return _finish(state, survived=False, verified=None)


def withdraw(state: RoundState, reason: DropReason) -> Transition:
    """The silo is out of the round."""
    advance(Role.PARTICIPANT, phase_of(state), Kind.WITHDRAW)
    offer = state.offer
    said = Withdraw(offer.key, offer.digest, reason)
    ended = RecordEnd(offer, survived=False, verified=None, aborted=False)
    return Transition(Out(offer, said, over=True), (Stop(offer), ended, Say(said), Erase(offer)))


def leave_job(offer: Offer, what: str, detail: str) -> tuple[Effect, ...]:
    """What the coordinator showed cannot be true: this silo takes no further part in the job, and says so at home."""
    return Alarm(offer, what, detail), StopJob(offer, detail)


def _finish(
    state: RoundState,
    *,
    survived: bool,
    verified: Sealed[RoundResult] | None,
    aborted: bool = False,
    before: tuple[Effect, ...] = (),
) -> Transition:
    if isinstance(state, Finished):
        return Transition(state)
    offer = state.offer
    ended = RecordEnd(offer, survived=survived, verified=verified, aborted=aborted)
    return Transition(Finished(offer, survived), (Stop(offer), *before, ended, Erase(offer)))


# --- is it true -------------------------------------------------------------------------------------------------------


def _require_sent(state: RoundState, value: RoundResult) -> None:
    """The result counts this silo's update: in the attempt that it was sent in."""
    match state:
        case Uploading() | Committed() | Fixed() | Confirmed() | Opened():
            if value.attempt != attempt_digest(state.attempt):
                raise ConflictError(
                    f"the result of {state.offer.key} is of another attempt than the one that this update was sent in"
                )
            return
        case Ready(last=last) if last is not None and value.attempt == attempt_digest(last):
            return  # it was committed when this silo restarted, or left the attempt
        case Out(over=True):
            return  # one that left may have been counted before it was heard
        case _:
            raise ConflictError(f"the result of {state.offer.key} counts an update that this participant never sent")


def _require_known_total(state: RoundState, value: RoundResult) -> None:
    """The total of a masked attempt is over the survivors that this silo was shown, and over no others."""
    if not isinstance(state, Confirmed | Opened):
        return
    if value.attempt != attempt_digest(state.attempt):
        if isinstance(state, Opened):
            raise ConflictError(f"the result of {state.offer.key} is of another attempt than this silo helped to open")
        return  # a higher attempt, which this silo never heard of
    t3, survivors = _shown(state)
    if value.transcript != t3 or value.survivors != survivors:
        raise ConflictError(f"the result of {state.offer.key} is over other survivors than this silo was shown")


def _shown(state: Confirmed | Opened) -> tuple[Digest, tuple[int, ...]]:
    if isinstance(state, Confirmed):
        return state.t3, state.survivors
    members = state.offer.spec.members
    return state.opening.survivors, tuple(members.index(name) + 1 for name in state.opening.names)


def _understated(state: RoundState, value: RoundResult, *, survived: bool) -> str | None:
    if not state.offer.masked or isinstance(state, Working | Fixed | Out | Finished):
        return None
    return understated_range(state.update, value, survived=survived)
