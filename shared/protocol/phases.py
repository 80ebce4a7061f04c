"""The phases of the conversation about one round, and the table that both sides obey.

There is one conversation per (round, participant). Each side keeps its own idea of the phase, and moves it with every
message that it sends or receives by looking up `(who speaks, phase, message)` in TABLE. What is not in the table is a
`PhaseError`: it changes nothing and is charged to the identity that sent it. This file knows neither which side it runs
on nor what messages contain; that a repeated message has the same content is for the machines to check.

    UNPLANNED --plan--> PLANNED --consent--> TRAINING --ready--> READY --attempt--> UPLOADING --commit--> COMMITTED
                           |                    |                  |                   |                 |    |
                           +---- decline, withdraw (each of these) +-------------------+-----------------+ survivors
                           v                                                                                  v
                          OUT                                                                               FIXED
    any of these --result or aborted--> FINISHED

Secure aggregation adds the phases advertise and share between READY and UPLOADING, and consistency and unmask after
COMMITTED; nothing above moves.

Two kinds of row need a reason. *Repeats*: after a reconnect each side says again what still matters, so a message that
was already counted is allowed in later phases and leaves the phase as it is. *Crossings*: the two streams are not
ordered against each other, so a reply may arrive when its receiver has moved on (a Ready after an abort), and a
broadcast may reach a participant that is out; these too change nothing.

A Decline may come after a Consent: a silo that withdrew and restarted before it was heard finds the round over in its
own journal when it is asked again, and declines to play it twice.
"""

from __future__ import annotations

from enum import StrEnum

from shared.errors import PhaseError


class Role(StrEnum):
    """Who speaks."""

    COORDINATOR = "coordinator"
    PARTICIPANT = "participant"


class Phase(StrEnum):
    """Where the conversation about one round is."""

    UNPLANNED = "unplanned"
    PLANNED = "planned"
    TRAINING = "training"
    READY = "ready"
    UPLOADING = "uploading"
    COMMITTED = "committed"
    FIXED = "fixed"
    OUT = "out"
    FINISHED = "finished"


class Kind(StrEnum):
    """The messages of a round."""

    ROUND_PLAN = "round_plan"
    CONSENT = "consent"
    DECLINE = "decline"
    PROGRESS = "progress"
    READY = "ready"
    WITHDRAW = "withdraw"
    ATTEMPT_START = "attempt_start"
    UPLOAD_COMMIT = "upload_commit"
    SURVIVOR_LIST = "survivor_list"
    ROUND_RESULT = "round_result"
    ROUND_ABORTED = "round_aborted"


_P, _C = Role.PARTICIPANT, Role.COORDINATOR

_FIRSTS: dict[tuple[Role, Phase, Kind], Phase] = {
    (_C, Phase.UNPLANNED, Kind.ROUND_PLAN): Phase.PLANNED,
    (_P, Phase.PLANNED, Kind.CONSENT): Phase.TRAINING,
    (_P, Phase.TRAINING, Kind.PROGRESS): Phase.TRAINING,
    (_P, Phase.TRAINING, Kind.READY): Phase.READY,
    (_C, Phase.READY, Kind.ATTEMPT_START): Phase.UPLOADING,
    (_P, Phase.UPLOADING, Kind.UPLOAD_COMMIT): Phase.COMMITTED,
    # A higher attempt starts the upload again, whether or not the last one was committed.
    (_C, Phase.UPLOADING, Kind.ATTEMPT_START): Phase.UPLOADING,
    (_C, Phase.COMMITTED, Kind.ATTEMPT_START): Phase.UPLOADING,
    (_C, Phase.COMMITTED, Kind.SURVIVOR_LIST): Phase.FIXED,
}

# Until its update is fixed among the survivors, a participant can leave, whatever it said before.
_LEAVES = {
    (_P, phase, kind): Phase.OUT
    for phase in (Phase.PLANNED, Phase.TRAINING, Phase.READY, Phase.UPLOADING, Phase.COMMITTED)
    for kind in (Kind.DECLINE, Kind.WITHDRAW)
}

_AFTER_PLAN = (Phase.PLANNED, Phase.TRAINING, Phase.READY, Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED)

_ENDS = {
    (_C, phase, kind): Phase.FINISHED
    for phase in (*_AFTER_PLAN, Phase.OUT, Phase.FINISHED)
    for kind in (Kind.ROUND_RESULT, Kind.ROUND_ABORTED)
}

_REPEATS = {
    **{(_C, phase, Kind.ROUND_PLAN): phase for phase in _AFTER_PLAN},
    **{(_P, phase, Kind.CONSENT): phase for phase in _AFTER_PLAN[1:]},
    **{(_P, phase, Kind.READY): phase for phase in _AFTER_PLAN[2:]},
    (_P, Phase.COMMITTED, Kind.UPLOAD_COMMIT): Phase.COMMITTED,
    (_P, Phase.FIXED, Kind.UPLOAD_COMMIT): Phase.FIXED,
    (_C, Phase.FIXED, Kind.SURVIVOR_LIST): Phase.FIXED,
    (_P, Phase.OUT, Kind.DECLINE): Phase.OUT,
    (_P, Phase.OUT, Kind.WITHDRAW): Phase.OUT,
}

_CROSSINGS = {
    **{
        (_P, Phase.FINISHED, kind): Phase.FINISHED
        for kind in (Kind.CONSENT, Kind.DECLINE, Kind.PROGRESS, Kind.READY, Kind.WITHDRAW)
    },
    **{(_P, phase, Kind.PROGRESS): phase for phase in (Phase.PLANNED, *_AFTER_PLAN[2:])},
    # A Consent can be lost (a session that broke, a coordinator that restarted), and the work be done before the plan
    # is repeated: being Ready says that the silo consented.
    (_P, Phase.PLANNED, Kind.READY): Phase.READY,
    **{(_C, Phase.OUT, kind): Phase.OUT for kind in (Kind.ROUND_PLAN, Kind.ATTEMPT_START, Kind.SURVIVOR_LIST)},
    # A participant that lost its update (a restart before it was spooled) trains again while the attempt is announced;
    # its second Ready asks for the announcement again.
    **{(_C, phase, Kind.ATTEMPT_START): phase for phase in (Phase.PLANNED, Phase.TRAINING)},
    # One that left when its survivors were being fixed: it counts.
    **{(_P, Phase.FIXED, kind): Phase.FIXED for kind in (Kind.DECLINE, Kind.WITHDRAW)},
    # The list may overtake the acknowledgement of the upload; being on it is the acknowledgement.
    (_C, Phase.UPLOADING, Kind.SURVIVOR_LIST): Phase.FIXED,
    # And the attempt may be announced again to one whose list is already on the way.
    (_C, Phase.FIXED, Kind.ATTEMPT_START): Phase.FIXED,
}

TABLE: dict[tuple[Role, Phase, Kind], Phase] = {**_FIRSTS, **_LEAVES, **_ENDS, **_REPEATS, **_CROSSINGS}


def advance(role: Role, phase: Phase, kind: Kind) -> Phase:
    """The phase after `role` says `kind` in `phase`. Raises PhaseError for what is not in the table."""
    try:
        return TABLE[role, phase, kind]
    except KeyError:
        raise PhaseError(f"{role} may not send {kind} in phase {phase}") from None
