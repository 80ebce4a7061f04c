"""The coordinator's machine alone, played as a transcript: words in, a line for each effect out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, assert_never

import pytest

from coordinator.round.effects import (
    Abort,
    AcknowledgeUpload,
    AttemptBegun,
    BundleMade,
    Commit,
    Connected,
    Contributed,
    Disconnected,
    Effect,
    Event,
    Folded,
    Journal,
    MemberOut,
    RangeMissed,
    Record,
    Replied,
    RosterFixed,
    Send,
    SharesFixed,
    SharesRevealed,
    StartFold,
    SurvivorsFixed,
    Tick,
    UploadOffered,
)
from coordinator.round.frame import RoundFrame
from coordinator.round.machine import begin, next_deadline, step
from coordinator.round.phases import Contribution, RoundState, Uploading, phase_name
from coordinator.round.transition import Transition
from shared.errors import PeerError
from shared.ids import AttemptKey, AttemptNumber, Digest, ParticipantId
from shared.protocol.messages import (
    AttemptStart,
    Consent,
    ConsistencyBundle,
    Decline,
    KeyRoster,
    Progress,
    Ready,
    RoundBroadcast,
    Sealed,
    ShareDelivery,
    SurvivorList,
    Withdraw,
    plan_digest,
)
from shared.protocol.phases import Phase
from shared.reasons import ConsentRule, DropReason
from tests.support.rounds import MEMBERS, commit_of, coordinator_seal, make_frame

FOLDED = Folded(Digest.of(b"next model"), 3.0, Digest.of(b"aggregate"), {"train.weight": 3.0})


def short(participant: ParticipantId) -> str:
    return participant.removeprefix("hospital-")


class Transcript:
    """A round from its plan on. Each word returns what was done about it."""

    def __init__(
        self, *, present: tuple[ParticipantId, ...] = MEMBERS, frame: RoundFrame | None = None, **policy: Any
    ) -> None:
        """Of a plain job with this policy, or of the job of `frame`."""
        self.frame: RoundFrame = frame or make_frame(**policy)
        self.now = 0.0
        self.records: list[Record] = []
        begun = begin(self.frame, present, self.now)
        self.state: RoundState = begun.state
        self.opening = self._take(begun)

    # --- words --------------------------------------------------------------------------------------------------------

    def hear(self, event: Event) -> list[str]:
        return self._take(step(self.state, event, self.now, coordinator_seal))

    def refuses(self, event: Event, error: type[PeerError], match: str | None = None) -> None:
        """The event raises and changes nothing: same object, same content."""
        before, content = self.state, repr(self.state)
        with pytest.raises(error, match=match):
            step(self.state, event, self.now, coordinator_seal)
        assert self.state is before
        assert repr(self.state) == content

    def ignores(self, event: Event) -> None:
        """The event is allowed, changes nothing and asks for nothing."""
        transition = step(self.state, event, self.now, coordinator_seal)
        assert transition.effects == ()
        assert transition.state == self.state

    def consents(self, *participants: ParticipantId) -> list[str]:
        return self._each(participants, lambda member: Replied(member, Consent(self.frame.key, self.plan)))

    def ready(self, *participants: ParticipantId) -> list[str]:
        return self._each(participants, self.says_ready)

    def uploads(self, *participants: ParticipantId) -> list[str]:
        return self._each(participants, self.offer)

    def connects(self, participant: ParticipantId) -> list[str]:
        return self.hear(Connected(participant))

    def disconnects(self, participant: ParticipantId) -> list[str]:
        return self.hear(Disconnected(participant))

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.hear(Tick())

    def to_uploading(self, *cohort: ParticipantId) -> list[str]:
        """All of these are Ready, and the grace is over."""
        self.consents(*cohort)
        lines = self.ready(*cohort)
        if not isinstance(self.state, Uploading):
            lines = self.after(next_deadline(self.state) - self.now)
        return lines

    # --- values -------------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> Digest:
        return plan_digest(self.frame.plan)

    @property
    def attempt(self) -> Sealed[AttemptStart]:
        assert isinstance(self.state, Uploading)
        return self.state.attempt

    def says_ready(self, participant: ParticipantId, *, fits: bool = True) -> Replied:
        return Replied(participant, Ready(self.frame.key, self.plan, fits))

    def says_consent(self, participant: ParticipantId, plan: Digest | None = None) -> Replied:
        return Replied(participant, Consent(self.frame.key, plan or self.plan))

    def says_progress(self, participant: ParticipantId, percent: int = 50) -> Replied:
        return Replied(participant, Progress(self.frame.key, self.plan, percent))

    def declines(self, participant: ParticipantId) -> Replied:
        return Replied(participant, Decline(self.frame.key, self.plan, ConsentRule.JOB_NOT_ALLOWED))

    def withdraws(self, participant: ParticipantId, reason: DropReason = DropReason.TASK_CRASHED) -> Replied:
        return Replied(participant, Withdraw(self.frame.key, self.plan, reason))

    def offer(
        self,
        participant: ParticipantId,
        *,
        content: bytes = b"update",
        attempt: int | None = None,
        start: Sealed[AttemptStart] | None = None,
    ) -> UploadOffered:
        start = start or self.attempt
        number = AttemptNumber(attempt or start.value.key.attempt)
        return UploadOffered(
            participant, AttemptKey(self.frame.key, number), *commit_of(participant, start, content=content)
        )

    @property
    def phase(self) -> str:
        return phase_name(self.state)

    @property
    def cohort(self) -> frozenset[ParticipantId]:
        return self.state.cohort if isinstance(self.state, Uploading) else frozenset()

    @property
    def contributions(self) -> Mapping[ParticipantId, Contribution]:
        return self.state.contributions if isinstance(self.state, Uploading) else {}

    def phases(self) -> dict[str, Phase]:
        """The conversation's phase with each member of an open round."""
        conversations = getattr(self.state, "conversations", {})
        return {short(member): told.phase for member, told in conversations.items()}

    # --- performing ---------------------------------------------------------------------------------------------------

    def _each(self, participants: tuple[ParticipantId, ...], event: Callable[[ParticipantId], Event]) -> list[str]:
        lines: list[str] = []
        for participant in participants:
            lines = self.hear(event(participant))
        return lines

    def _take(self, transition: Transition) -> list[str]:
        self.state = transition.state
        self.records += [effect.record for effect in transition.effects if isinstance(effect, Journal)]
        return [line_of(effect) for effect in transition.effects]


def line_of(effect: Effect) -> str:
    match effect:
        case Journal(record):
            return "journal " + _recorded(record)
        case Send(participant, message):
            return f"to {short(participant)}: {_said(message)}"
        case AcknowledgeUpload(participant, _):
            return f"acknowledge {short(participant)}"
        case StartFold(attempt, _, survivors, _):
            return f"fold attempt {attempt.attempt} of {' '.join(map(short, survivors))}"
        case Commit(result, dropped):
            return f"commit {list(result.value.survivors)}{_reasons(dropped)}"
        case Abort(aborted, dropped):
            return f"abort {aborted.value.reason}{_reasons(dropped)}"
        case _:
            assert_never(effect)


def _recorded(record: Record) -> str:
    match record:
        case MemberOut(participant, reason):
            return f"{short(participant)} out: {reason}"
        case AttemptBegun(start, cohort):
            return f"attempt {start.value.key.attempt} with {' '.join(map(short, cohort))}"
        case Contributed(participant, _):
            return f"update of {short(participant)}"
        case SurvivorsFixed(survivors):
            return f"survivors {' '.join(map(short, survivors))}"
        case RangeMissed():
            return "range missed"
        case RosterFixed(adverts):
            return f"keys of {' '.join(map(short, adverts))}"
        case SharesFixed(dealt):
            return f"shares of {' '.join(map(short, dealt))}"
        case BundleMade(signatures):
            return f"signatures of {' '.join(map(short, signatures))}"
        case SharesRevealed(participant, _):
            return f"opened by {short(participant)}"
        case _:
            assert_never(record)


def _said(message: RoundBroadcast) -> str:
    match message:
        case SurvivorList():
            return f"survivors of attempt {message.key.attempt} ({len(message.commits)})"
        case KeyRoster():
            return f"roster of {len(message.adverts)}"
        case ShareDelivery():
            return f"shares of {len(message.dealers)}"
        case ConsistencyBundle():
            return f"bundle of {len(message.signatures)}"
        case Sealed(AttemptStart() as start):
            return f"attempt {start.key.attempt}"
        case Sealed(value):
            return {"RoundPlan": "plan", "RoundResult": "result", "RoundAborted": "aborted"}[type(value).__name__]


def _reasons(dropped: Mapping[ParticipantId, DropReason]) -> str:
    return "".join(f"; {short(member)} {reason}" for member, reason in sorted(dropped.items()))
