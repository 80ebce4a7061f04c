"""The participant's machine alone, played as a transcript: words in, a line for each effect out."""

from __future__ import annotations

from typing import Any, assert_never

import pytest

from participant.round.effects import (
    AbortCame,
    Alarm,
    AttemptAnnounced,
    Effect,
    Erase,
    Event,
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
    SurvivorsListed,
    UploadAcknowledged,
    WorkDone,
)
from participant.round.machine import accept, step
from participant.round.phases import Offer, RoundState, SpooledUpdate, phase_of
from participant.round.transition import Tools, Transition
from shared.entropy import SeededEntropy
from shared.errors import PeerError
from shared.ids import ParticipantId
from shared.protocol.messages import (
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    AttemptStart,
    Consent,
    Decline,
    Progress,
    Ready,
    RoundReply,
    Sealed,
    Withdraw,
    attempt_digest,
)
from shared.protocol.phases import Phase
from shared.wire.sealed import reopen
from tests.support.rounds import (
    A,
    B,
    C,
    aborted_of,
    commit_of,
    key_of,
    list_of,
    make_offer,
    result_of,
    spooled,
    start_of,
)


class Silo:
    """One round at one silo, from its consent on. Each word returns what was done about it."""

    def __init__(self, *, participant: ParticipantId = A, opening: Transition | None = None) -> None:
        self.tools = tools_of(participant)
        begun = opening or accept(make_offer(participant))
        self.offer: Offer = begun.state.offer
        self.state: RoundState = begun.state
        self.opening = self._take(begun)

    @property
    def phase(self) -> Phase:
        return phase_of(self.state)

    def is_in(self, phase: Phase) -> bool:
        return self.phase is phase

    def hear(self, event: Event) -> list[str]:
        return self._take(step(self.state, event, self.tools))

    def refuses(self, event: Event, error: type[PeerError], match: str | None = None) -> None:
        """The event raises and changes nothing: same object, same content."""
        before, content = self.state, repr(self.state)
        with pytest.raises(error, match=match):
            step(self.state, event, self.tools)
        assert self.state is before
        assert repr(self.state) == content

    def ignores(self, event: Event) -> None:
        """The event is allowed and changes nothing: the same object, and nothing is done."""
        transition = step(self.state, event, self.tools)
        assert transition.state is self.state
        assert transition.effects == ()

    # --- words --------------------------------------------------------------------------------------------------------

    def start(self, number: int = 1, **changed: Any) -> Sealed[AttemptStart]:
        return start_of(self.offer.plan, self.offer.spec, attempt=number, **changed)

    def trained(self, update: SpooledUpdate | None = None) -> list[str]:
        return self.hear(WorkDone(update or spooled()))

    def announced(self, number: int = 1, **changed: Any) -> list[str]:
        return self.hear(AttemptAnnounced(self.start(number, **changed)))

    def acknowledged(self, number: int = 1) -> list[str]:
        start = self.start(number)
        return self.hear(UploadAcknowledged(attempt_digest(start), commit_of(A, start)[0]))

    def listed(self, *survivors: ParticipantId, number: int = 1) -> list[str]:
        return self.hear(self.listing(*survivors, number=number))

    def listing(self, *survivors: ParticipantId, number: int = 1) -> SurvivorsListed:
        return SurvivorsListed(list_of(self.start(number), *(survivors or (A, B, C))), (), repeats_allowed=False)

    def result(self, *survivors: int, number: int = 1, **changed: Any) -> ResultCame:
        return ResultCame(result_of(self.start(number), survivors, **changed))

    def aborted(self) -> AbortCame:
        return AbortCame(aborted_of(self.offer.plan))

    def asked_again(self) -> list[str]:
        return self.hear(PlanRepeated())

    def to(self, phase: Phase) -> Silo:
        """As far as this phase, the way of a good round."""
        for reached, go in (
            (Phase.READY, self.trained),
            (Phase.UPLOADING, self.announced),
            (Phase.COMMITTED, self.acknowledged),
            (Phase.FIXED, self.listed),
        ):
            if self.phase is phase:
                return self
            go()
            assert self.phase is reached
        if phase is Phase.FINISHED:
            self.hear(self.result(1, 2, 3))
        return self

    def _take(self, transition: Transition) -> list[str]:
        self.state = transition.state
        return [line_of(effect) for effect in transition.effects]


def tools_of(participant: ParticipantId) -> Tools:
    """Of that member; its randomness is the same in every run."""
    return Tools(draw=SeededEntropy(participant.encode()).take, signer=key_of(participant))


def line_of(effect: Effect) -> str:
    match effect:
        case RecordPlan():
            return "record plan"
        case RecordUpdate():
            return "record update"
        case RecordAttempt(_, attempt):
            return f"record attempt {attempt.value.key.attempt}"
        case RecordOpening():
            return "record opening"
        case StopJob():
            return "stop job"
        case Alarm(_, what):
            return f"alarm {what}"
        case RecordEnd(_, survived):
            return "record end, survived" if survived else "record end"
        case Say(message):
            return "say " + _said(message)
        case StartWork():
            return "start work"
        case StartUpload(_, _, attempt):
            return f"start upload {attempt.value.key.attempt}"
        case Stop():
            return "stop"
        case Erase():
            return "erase"
        case _:
            assert_never(effect)


def _said(message: RoundReply) -> str:
    match message:
        case Consent():
            return "consent"
        case Ready():
            return "ready"
        case Progress(percent=percent):
            return f"progress {percent}"
        case Decline(rule=rule):
            return f"decline: {rule}"
        case Withdraw(reason=reason):
            return f"withdraw: {reason}"
        case AttemptAnswer(kind=AnswerKind.ATTEMPT_ABORT, envelope=envelope):
            return f"abort: {reopen(AttemptAbort, envelope).value.reason}"
        case AttemptAnswer(kind=kind):
            return kind.name.lower()
        case _:
            assert_never(message)
