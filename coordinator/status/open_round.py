"""The open round in words: where it is, whom it waits for and why, who is out (pure).

Of updates that came only their number is read: the header of a plain one has its silo's weight.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import assert_never

from coordinator.round.gathering import answered, owing
from coordinator.round.phases import (
    Advertising,
    Away,
    Confirming,
    Conversation,
    Folding,
    Gracing,
    NeverSeen,
    OpenState,
    Present,
    Recruiting,
    Sharing,
    Unmasking,
    Uploading,
    phase_name,
)
from coordinator.status.advice import for_dropped
from coordinator.status.look import LiveRoundSeen
from shared.ids import ParticipantId
from shared.protocol.phases import Phase

PLAIN_PHASES = ("recruiting", "gracing", "uploading", "folding")
MASKED_PHASES = (
    "recruiting", "gracing", "advertising", "sharing", "uploading", "confirming", "unmasking", "folding",
)  # fmt: skip
EXPLAINED = {
    "recruiting": "members fetch the model, evaluate it and train",
    "gracing": "the quorum is Ready; the others have a little time left",
    "advertising": "fresh keys for this attempt",
    "sharing": "sealed shares of the masks",
    "uploading": "updates come in",
    "confirming": "survivors sign that they were shown one list",
    "unmasking": "shares that open the total, and nothing else",
    "folding": "the updates are added up to the next version",
}
_NOT_READY = frozenset({Phase.UNPLANNED, Phase.PLANNED, Phase.TRAINING})
_OWED = {
    "advertising": "its keys have not come",
    "sharing": "its sealed shares have not come",
    "uploading": "its update has not arrived",
    "confirming": "its signature has not come",
    "unmasking": "its shares have not come",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One phase in the bar."""

    name: str
    explained: str
    standing: str
    """`done`, `current`, `ahead`; a phase that was passed without waiting is done too."""
    spent_s: float | None
    """How long the round was, or is, in it; None where it has not been."""


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """One member in the open round."""

    participant: str
    phase: str
    connected: bool
    away_s: float | None
    """How long it has had no session; None for one that has one, or had none in this round."""
    percent: int | None
    """How far it says that its training is."""
    waited_for: str
    """Why the round waits for it; empty when it does not."""
    dropped: str
    """The reason for which it is out of the round; empty while it is in."""
    advice: str


@dataclass(frozen=True, slots=True)
class OpenRound:
    """Everything that an operator may know of it."""

    number: int
    purpose: str
    phase: str
    explained: str
    steps: tuple[Step, ...]
    age_s: float
    phase_age_s: float
    ends_in_s: float | None
    """When it goes on at the latest, whatever comes; None for never (a fold takes as long as it takes)."""
    ready: int
    quorum: int
    updates: int
    floor: int
    attempt: int
    """0 before the first."""
    members: tuple[MemberSeen, ...]

    @property
    def waited_for(self) -> tuple[MemberSeen, ...]:
        return tuple(member for member in self.members if member.waited_for)

    @property
    def dropped(self) -> tuple[MemberSeen, ...]:
        return tuple(member for member in self.members if member.dropped)

    @property
    def overdue(self) -> bool:
        """Its deadline is over, and it has not gone on: something holds the conductor up."""
        return self.ends_in_s is not None and self.ends_in_s < 0


def open_round(seen: LiveRoundSeen, now: float) -> OpenRound:
    """`now`: the moment of the look (monotonic seconds)."""
    state, times = seen.state, seen.times
    frame, phase = state.frame, phase_name(state)
    waiting = _waited_for(state)
    ends_in_s = times.deadline - now
    return OpenRound(
        number=frame.key.number,
        purpose=str(frame.plan.value.purpose),
        phase=phase,
        explained=EXPLAINED[phase],
        steps=_steps(seen, phase, now),
        age_s=now - times.started,
        phase_age_s=now - times.phase_since,
        ends_in_s=ends_in_s if ends_in_s < float("inf") else None,
        ready=_ready(state),
        quorum=frame.quorum,
        updates=len(_arrived(state)),
        floor=frame.floor,
        attempt=0 if isinstance(state, Recruiting | Gracing) else state.key.attempt,
        members=tuple(_member(seen, member, waiting, now) for member in frame.spec.members),
    )


def _steps(seen: LiveRoundSeen, phase: str, now: float) -> tuple[Step, ...]:
    names = MASKED_PHASES if seen.state.frame.spec.masking.masked else PLAIN_PHASES
    at = names.index(phase)
    spent = {**seen.times.spent_s, phase: seen.times.spent_s.get(phase, 0.0) + now - seen.times.phase_since}
    return tuple(
        Step(name, EXPLAINED[name], "done" if place < at else "current" if place == at else "ahead", spent.get(name))
        for place, name in enumerate(names)
    )


def _member(
    seen: LiveRoundSeen, participant: ParticipantId, waiting: Collection[ParticipantId], now: float
) -> MemberSeen:
    state = seen.state
    talk = state.conversations.get(participant, Conversation(Phase.UNPLANNED, NeverSeen()))
    percent = seen.progress.get(participant)
    dropped = str(state.outs.get(participant, ""))
    away = max(0.0, now - talk.link.since) if isinstance(talk.link, Away) else None
    return MemberSeen(
        participant=participant,
        phase=str(talk.phase),
        connected=isinstance(talk.link, Present),
        away_s=away,
        percent=percent,
        waited_for=_why(phase_name(state), talk, percent) if participant in waiting else "",
        dropped=dropped,
        advice=for_dropped(dropped),
    )


def _why(phase: str, talk: Conversation, percent: int | None) -> str:
    owed = _OWED.get(phase) or _before_ready(talk.phase, percent)
    match talk.link:
        case Present():
            return owed
        case Away():
            return f"{owed}; it is not connected"
        case NeverSeen():
            return f"{owed}; it was not connected in this round"
        case _:
            assert_never(talk.link)


def _before_ready(phase: Phase, percent: int | None) -> str:
    if phase is Phase.TRAINING:
        return "it trains" if percent is None else f"it trains, {percent} % done"
    return "it has not answered the plan"


def _waited_for(state: OpenState) -> Collection[ParticipantId]:
    match state:
        case Recruiting() | Gracing():
            late = {name for name, talk in state.conversations.items() if talk.phase in _NOT_READY}
            return late - state.outs.keys()
        case Folding():
            return ()
        case Advertising() | Sharing() | Uploading() | Confirming() | Unmasking():
            return owing(state)
        case _:
            assert_never(state)


def _ready(state: OpenState) -> int:
    """Of a round before its attempt, who is Ready now; later, who was when the attempt began and is not out."""
    match state:
        case Recruiting() | Gracing():
            return len(state.conversations.keys() - state.outs.keys() - set(_waited_for(state)))
        case Advertising() | Uploading():
            return len(state.cohort)
        case Sharing():
            return len(state.roster.adverts)
        case Confirming() | Unmasking() | Folding():
            return len(state.survivors)
        case _:
            assert_never(state)


def _arrived(state: OpenState) -> Collection[ParticipantId]:
    """Whose update is here."""
    match state:
        case Recruiting() | Gracing() | Advertising() | Sharing():
            return ()
        case Uploading():
            return answered(state)
        case Confirming() | Unmasking() | Folding():
            return state.survivors.keys()
        case _:
            assert_never(state)
