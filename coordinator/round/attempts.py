"""From the plan to an attempt, and from a failed attempt to the next one.

Everybody is asked, unless the frame binds the round to the members of a total that may have been opened: then these
are asked, all of them, and the others are out from the start.

An attempt's cohort is everybody who is Ready when it starts. What an attempt fixes stands in its AttemptStart; masks
and signatures hang on the hash of that, so no two attempts have a key or a mask in common.
"""

from __future__ import annotations

from dataclasses import replace

from coordinator.round.effects import AttemptBegun, Journal, Send
from coordinator.round.ending import abort
from coordinator.round.frame import RoundFrame
from coordinator.round.gathering import Gathering, late
from coordinator.round.members import moved_phases, ready
from coordinator.round.phases import (
    Advertising,
    Confirming,
    Conversations,
    Fit,
    Gracing,
    Lefts,
    OpenState,
    Outs,
    Recruiting,
    Rules,
    Sharing,
    Uploading,
)
from coordinator.round.transition import Seal, Transition
from shared.ids import AttemptKey, ParticipantId, parse_attempt_number
from shared.job import jobspec_digest
from shared.protocol.messages import (
    PROTOCOL_VERSIONS,
    SUITE_1,
    AttemptStart,
    Sealed,
    plan_digest,
    result_digest,
)
from shared.protocol.phases import Kind, Phase
from shared.reasons import AbortReason, DropReason


def recruiting(frame: RoundFrame, conversations: Conversations, now: float, *, grace_from: float) -> Recruiting:
    """The first state of a round."""
    told = {
        member: replace(known, phase=Phase.OUT) if member in frame.not_asked else known
        for member, known in conversations.items()
    }
    outs = dict.fromkeys(frame.not_asked, DropReason.NOT_ASKED)
    rules: Rules = {}
    deadline = now + frame.plan.value.deadline_s
    return Recruiting(frame, told, outs, rules, Fit.ALL, deadline=deadline, grace_from=grace_from)


def settle_recruiting(state: Recruiting, now: float, seal: Seal) -> Transition:
    quorum = state.frame.quorum
    if len(state.conversations) - len(state.outs) < quorum:
        return abort(state, AbortReason.BELOW_QUORUM, seal)
    if len(ready(state)) >= quorum:
        grace_ends = max(now, state.grace_from) + state.frame.spec.round.grace_s
        gracing = Gracing(
            *_of_waiting(state), deadline=state.deadline, grace_from=state.grace_from, grace_ends=grace_ends
        )
        return settle_gracing(gracing, now, seal)
    if now >= state.deadline:
        return abort(state, AbortReason.BELOW_QUORUM, seal)
    return Transition(state)


def settle_gracing(state: Gracing, now: float, seal: Seal) -> Transition:
    present = ready(state)
    if len(present) < state.frame.quorum:  # one that was Ready has withdrawn
        back = Recruiting(*_of_waiting(state), deadline=state.deadline, grace_from=state.grace_from)
        return settle_recruiting(back, now, seal)
    everyone = len(present) == len(state.conversations) - len(state.outs)
    if everyone or now >= min(state.grace_ends, state.deadline):
        return _start(state, 1, now, seal)
    return Transition(state)


def _of_waiting(state: Recruiting | Gracing) -> tuple[RoundFrame, Conversations, Outs, Rules, Fit]:
    return state.frame, state.conversations, state.outs, state.rules, state.fit


def may_try_again(state: Gathering) -> bool:
    """Whether the job allows another attempt, and enough members have an update to take part in it."""
    return state.key.attempt < state.frame.spec.round.attempts and len(ready(state)) >= state.frame.quorum


def attempt_failed(state: Advertising | Sharing | Uploading | Confirming, now: float, seal: Seal) -> Transition:
    """The next attempt, with new keys; or the end of the round. Nothing was opened."""
    if may_try_again(state):
        return _start(state, state.key.attempt + 1, now, seal)
    return abort(state, AbortReason.BELOW_FLOOR, seal, late(state, now))


def _start(
    state: Gracing | Advertising | Sharing | Uploading | Confirming, number: int, now: float, seal: Seal
) -> Transition:
    cohort = ready(state)
    start = seal(_attempt_start(state, number))
    kind = Kind.ATTEMPT_START if state.encoding.masked else Kind.PLAIN_ATTEMPT
    moved = replace(state, conversations=moved_phases(state, cohort, kind))
    begun = entered(moved, start, frozenset(cohort), now)
    return Transition(begun, (Journal(AttemptBegun(start, cohort)), *(Send(member, start) for member in cohort)))


def entered(
    state: OpenState, start: Sealed[AttemptStart], cohort: frozenset[ParticipantId], now: float
) -> Advertising | Uploading:
    """The first state of an attempt."""
    lefts: Lefts = {}
    common = (state.frame, state.conversations, state.outs, state.rules, state.fit, start, lefts)
    policy = state.frame.spec.round
    if start.value.encoding.masked:
        return Advertising(*common, cohort=cohort, adverts={}, deadline=now + policy.exchange_deadline_s)
    return Uploading(*common, cohort=cohort, masking=None, contributions={}, deadline=now + policy.upload_deadline_s)


def _attempt_start(state: OpenState, number: int) -> AttemptStart:
    frame, plan = state.frame, state.frame.plan.value
    return AttemptStart(
        version=PROTOCOL_VERSIONS[-1],
        suite=SUITE_1,
        key=AttemptKey(plan.key, parse_attempt_number(number)),
        purpose=plan.purpose,
        plan=plan_digest(frame.plan),
        jobspec=jobspec_digest(plan.jobspec),
        consortium=frame.consortium,
        model=plan.model,
        previous_result=result_digest(plan.previous_result),
        members=frame.spec.members,
        max_colluding=frame.spec.masking.max_colluding,
        layout=frame.layout(state.encoding).digest,
        encoding=state.encoding,
        exchange_deadline_s=frame.spec.round.exchange_deadline_s,
        upload_deadline_s=frame.spec.round.upload_deadline_s,
    )
