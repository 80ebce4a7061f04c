"""All rounds of this participant: routes what the coordinator says and what work reports, performs the effects.

Runs on one thread (the daemon's event loop; a test's own). Long work is handed to `Work` and comes back as a call of
`report`. The session comes and goes; `say` is a no-op without one.

A daemon that is told to end stops beginning things (`finish`): plans and attempts that come are left unanswered, as if
it were away already. What it goes on with are attempts in which it dealt shares and has opened nothing yet. Its secrets
of those are in memory only, and the others wait for its part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn, assert_never

import structlog

from participant.round.attempts import refuse
from participant.round.checks import check_plan, how_another_total
from participant.round.effects import (
    AbortCame,
    Alarm,
    AttemptAnnounced,
    Effect,
    Erase,
    Event,
    PassedOver,
    PlanRepeated,
    RecordAttempt,
    RecordEnd,
    RecordOpening,
    RecordPlan,
    RecordUpdate,
    ResultCame,
    Say,
    StartUpload,
    StartWork,
    Stop,
    StopJob,
    WorkDone,
)
from participant.round.ending import ALARM_HISTORY, ALARM_RESULT, leave_job
from participant.round.machine import accept, decline, resume, step, take_back
from participant.round.phases import (
    Confirmed,
    Finished,
    Fixed,
    Offer,
    Opened,
    Opening,
    Out,
    RoundState,
    Working,
    is_needed,
)
from participant.round.records import Records, carried_in
from participant.round.surroundings import Surroundings
from participant.round.transition import Tools, Transition
from participant.round_log import log_accepted, log_opened, log_over
from shared.errors import ConflictError, PeerError, PhaseError
from shared.ids import JobId, RoundKey
from shared.job import jobspec_digest, parse_jobspec
from shared.protocol.messages import (
    AttemptStart,
    Decline,
    Envelope,
    Exchange,
    RoundAborted,
    RoundBroadcast,
    RoundPlan,
    RoundReply,
    RoundResult,
    Sealed,
)
from shared.protocol.phases import Role
from shared.reasons import AttemptAbortReason
from shared.wire.sealed import Verifier, decode_envelope, reopen
from shared.wire.session import HEAD_MAX_BYTES, HEADS_MAX

log = structlog.get_logger()

OPEN_ROUNDS_MAX = 64  # one for each job that runs; each holds a model and an update on disk
JOBS_MAX = 100_000  # on record here: a job is never forgotten, and a coordinator can invent as many as it likes
OUTS_KEPT = 100  # declined and left rounds whose answer is kept; a coordinator can plan as many as it likes


class Driver:
    """The open rounds."""

    def __init__(self, *, around: Surroundings) -> None:
        self._around = around
        self._records = Records(around)
        self._tools = Tools(draw=around.entropy.take, signer=around.signer)
        self._rounds: dict[RoundKey, RoundState] = {}
        self._say: Callable[[RoundReply], None] = _say_nothing
        self._finished: Callable[[], None] | None = None

    def start(self) -> None:
        """Go on with what the journal has open, as far as the policy of today lets it. A total that this silo helped to
        open is out: what it said of that may be said again.
        """
        for kept in self._around.journal.open_rounds():
            carried = kept.plan.value.previous_result
            previous = reopen(RoundResult, decode_envelope(carried)) if carried else None
            offer = self._records.offer_of(kept.plan, previous)
            rule = self._records.declined_by(offer) if kept.opening is None else None
            going_on = resume(offer, kept.update, kept.attempt, kept.opening)
            self._apply(going_on if rule is None else take_back(offer, rule))
            if rule is not None:
                log_over(going_on.state, None)

    @property
    def open_rounds(self) -> tuple[RoundKey, ...]:
        """What this participant still holds; said in each Hello."""
        return tuple(key for key, state in self._rounds.items() if not isinstance(state, Out | Finished))

    @property
    def states(self) -> tuple[RoundState, ...]:
        """All rounds at hand, those among them that this silo left; for the silo's own eyes."""
        return tuple(self._rounds.values())

    @property
    def heads(self) -> tuple[Envelope, ...]:
        """The last result that was verified in each of the newest jobs; said in each Hello. Raises StorageError."""
        kept = self._around.journal.heads(HEADS_MAX)
        return tuple(head for head in kept if len(head.payload) <= HEAD_MAX_BYTES)

    def connected(self, say: Callable[[RoundReply], None]) -> None:
        """A session is open. The coordinator speaks first: it repeats what matters."""
        self._say = say

    def disconnected(self) -> None:
        self._say = _say_nothing

    def finish(self, finished: Callable[[], None]) -> None:
        """Begin nothing more, and call `finished` once no attempt is open that the others need this silo for: now, or
        after some later event.
        """
        self._finished = finished
        self._look_whether_finished()

    def received(self, message: RoundBroadcast, verifier: Verifier) -> None:
        """A verified word of the coordinator. Raises PeerError for what it may not say now."""
        if self._finished is not None and not self._goes_on_with(message):
            log.info("left_unanswered", detail="this daemon is about to end")
            return
        if isinstance(message, Exchange):
            key = message.key.round
            self._step(key, self._records.event_of(message, self._state(key).offer))
            return
        match message.value:
            case RoundPlan():
                self._planned(Sealed(message.value, message.envelope), verifier)
            case AttemptStart():
                self._step(message.value.key.round, AttemptAnnounced(Sealed(message.value, message.envelope)))
            case RoundResult():
                self._step(message.value.key, ResultCame(Sealed(message.value, message.envelope)))
            case RoundAborted():
                self._step(message.value.key, AbortCame(Sealed(message.value, message.envelope)))
            case _:
                assert_never(message.value)

    def report(self, key: RoundKey, event: Event) -> None:
        """Work on a round got somewhere. A round that is gone does not care."""
        state = self._rounds.get(key)
        if state is None:
            return
        if isinstance(state, Working) and isinstance(event, WorkDone):
            history = self._around.journal.history(key.job)  # how often it was missed by now, not when it was planned
            misses = state.offer.misses if history is None else history.misses
            self._rounds[key] = Working(replace(state.offer, misses=misses))
        self._step(key, event)

    # --- finishing ----------------------------------------------------------------------------------------------------

    def _goes_on_with(self, message: RoundBroadcast) -> bool:
        if isinstance(message, Exchange):
            state = self._rounds.get(message.key.round)
            return state is not None and is_needed(state)
        return isinstance(message.value, RoundResult | RoundAborted)

    def _look_whether_finished(self) -> None:
        if self._finished is not None and not any(map(is_needed, self._rounds.values())):
            self._finished()

    # --- plans --------------------------------------------------------------------------------------------------------

    def _planned(self, plan: Sealed[RoundPlan], verifier: Verifier) -> None:
        key = plan.value.key
        known = self._rounds.get(key)
        if known is not None and not _declined(known):
            if known.offer.plan.payload != plan.payload:
                raise ConflictError(f"round {key} was planned before with other content")
            self._step(key, PlanRepeated())
            return
        previous = carried_in(plan.value, verifier)
        parse_jobspec(plan.value.jobspec)  # what is no plan at all ends nothing
        self._end_earlier_rounds(key, previous)
        # After that: what was just verified, or stopped, is on record now.
        offer = self._records.offer_of(plan, previous)
        rule = self._records.declined_by(offer)
        if rule is None:
            self._require_one_history(offer)
            check_plan(offer)
            self._require_room(offer)
        self._forget_left_rounds(offer)
        self._apply(accept(offer) if rule is None else decline(offer, rule, over=self._records.is_over(key)))

    def _require_one_history(self, offer: Offer) -> None:
        """A plan on another result than the one that this silo verified ends the job for it."""
        wrong = self._records.other_history(offer)
        if wrong is not None:
            self._leave_job(offer, ALARM_HISTORY, wrong)

    def _leave_job(self, offer: Offer, what: str, wrong: str) -> NoReturn:
        for effect in leave_job(offer, what, wrong):
            self._perform(effect)
        self._pass_over(offer.key.job)
        raise ConflictError(f"{wrong}: this silo takes no further part in the job")

    def _require_room(self, offer: Offer) -> None:
        if len(self.open_rounds) >= OPEN_ROUNDS_MAX:
            raise ConflictError(f"{OPEN_ROUNDS_MAX} rounds are open here, and no more are: {offer.key} is not begun")
        journal = self._around.journal
        if journal.history(offer.key.job) is None and journal.jobs_on_record() >= JOBS_MAX:
            raise ConflictError(
                f"{JOBS_MAX} jobs are on record here, and no other is begun: if they were not all submitted by people, "
                "the coordinator invents them (policy.approved_jobs is against that)"
            )

    def _forget_left_rounds(self, offer: Offer) -> None:
        """What was declined or left in earlier rounds of this job needs no repeating any more."""
        for key, state in list(self._rounds.items()):
            if isinstance(state, Out) and key.job == offer.key.job and key.number < offer.key.number:
                del self._rounds[key]

    def _end_earlier_rounds(self, planned: RoundKey, previous: Sealed[RoundResult] | None) -> None:
        """A later round is planned, so this job's earlier one is over; the plan proves how. Of one job at most one is
        open here: many could otherwise ask about one training, each on another result.
        """
        earlier = self._open_rounds_of(planned.job)
        for key in earlier:
            if key.number > planned.number:
                raise ConflictError(f"round {key} is open here, and {planned} is not after it")
        for key in earlier:
            ended = ResultCame(previous) if previous is not None and previous.value.key == key else PassedOver()
            offer = self._state(key).offer
            try:
                self._step(key, ended)
            except PeerError as error:
                self._leave_job(offer, ALARM_RESULT, f"the plan of {planned} carries a false result: {error}")

    def _pass_over(self, job: JobId) -> None:
        """What is open of this job ends without a result."""
        for key in self._open_rounds_of(job):
            self._step(key, PassedOver())

    def _open_rounds_of(self, job: JobId) -> list[RoundKey]:
        return [key for key in self.open_rounds if key.job == job]

    # --- performing ---------------------------------------------------------------------------------------------------

    def _state(self, key: RoundKey) -> RoundState:
        state = self._rounds.get(key)
        if state is None:
            raise PhaseError(f"round {key} is not open here")
        return state

    def _step(self, key: RoundKey, event: Event) -> None:
        state = self._state(key)
        transition = step(state, event, self._tools)
        try:
            self._apply(transition)
        except ConflictError as error:
            if not isinstance(event, AttemptAnnounced):
                raise
            self._refuse(state, event, error)
            return
        if not isinstance(state, Out) and any(isinstance(effect, RecordEnd) for effect in transition.effects):
            log_over(state, event)

    def _refuse(self, state: RoundState, event: AttemptAnnounced, error: ConflictError) -> None:
        """The journal has another core of this round on record: not into this attempt."""
        if isinstance(state, Working | Fixed | Confirmed | Opened | Out | Finished):
            raise error
        reason = AttemptAbortReason.BAD_ATTEMPT
        self._apply(refuse(state, event.attempt, reason, str(error), self._tools))

    def _apply(self, transition: Transition) -> None:
        for effect in transition.effects:
            self._perform(effect)
        state = transition.state
        self._rounds.pop(state.offer.key, None)
        if not isinstance(state, Finished):
            self._rounds[state.offer.key] = state
        outs = [key for key, kept in self._rounds.items() if isinstance(kept, Out)]
        for key in outs[:-OUTS_KEPT]:  # the oldest: asked again, the silo answers again from its policy and records
            del self._rounds[key]
        self._around.observer.moved(state)
        if any(isinstance(effect, StopJob) for effect in transition.effects):
            self._pass_over(state.offer.key.job)
        self._look_whether_finished()

    def _perform(self, effect: Effect) -> None:
        journal, work = self._around.journal, self._around.work
        match effect:
            case RecordPlan(offer):
                journal.record_plan(offer.plan, jobspec_digest(offer.plan.value.jobspec))
                log_accepted(offer)
            case RecordUpdate(offer, update):
                journal.record_update(offer.key, update)
            case RecordAttempt(offer, attempt, core):
                journal.record_attempt(offer.key, attempt, core)
            case RecordOpening(offer, opening):
                self._record_opening(offer, opening)
            case RecordEnd(offer, survived, verified, aborted):
                keep_state = survived and work.keep_state(offer)
                journal.record_end(offer.key, keep_state=keep_state, verified=verified, aborted=aborted)
            case StopJob(offer, reason):
                journal.stop_job(offer.key.job, reason)
            case Alarm(offer, what, detail):
                log.error(
                    "alarm", peer=Role.COORDINATOR, what=what, job=offer.key.job, round=offer.key.number, detail=detail
                )
                self._around.observer.alarmed(what)
            case Say(message):
                self._say(message)
            case StartWork(offer):
                work.start_work(offer)
            case StartUpload(offer, update, attempt, protection):
                work.start_upload(offer, update, attempt, protection)
            case Stop(offer):
                work.stop(offer)
            case Erase(offer):
                work.erase(offer)
            case _:
                assert_never(effect)

    def _record_opening(self, offer: Offer, opening: Opening) -> None:
        """And say so when it is another total on a model: only an allowance leads here, and this is when it counts."""
        plan, other = offer.plan.value, how_another_total(opening.total, self._records.opened_before(offer))
        self._around.journal.record_opening(offer.key, plan.purpose, offer.spec.task, plan.model, opening)
        log_opened(offer, opening)
        if other is not None:
            log.warning(
                "repeat_opened", job=offer.key.job, round=offer.key.number, model=str(plan.model),
                detail=f"as allowed for this job: a total {other} the one that this silo helped to open on this model",
            )  # fmt: skip


def _declined(state: RoundState) -> bool:
    """Declined, and nothing on record: asked again, the silo looks again. A withdrawal is for good, and repeated."""
    return isinstance(state, Out) and isinstance(state.said, Decline)


def _say_nothing(_: RoundReply) -> None:
    """No session: the coordinator will ask again."""
