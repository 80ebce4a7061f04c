"""The phases of the conversation about one round, and the table that both sides obey.

There is one conversation per (round, participant). Each side keeps its own idea of the phase, and moves it with every
message that it sends or receives by looking up `(who speaks, phase, message)` in TABLE. What is not in the table is a
`PhaseError`: it changes nothing and is charged to the identity that sent it. This file knows neither which side it runs
on nor what messages contain; that a repeated message has the same content is for the machines to check.

    UNPLANNED --plan--> PLANNED --consent--> TRAINING --ready--> READY
    plain:   READY --attempt--> UPLOADING --commit--> COMMITTED --survivors--> FIXED
    masked:  READY --attempt--> ADVERTISING --roster--> SHARING --delivery--> UPLOADING --commit--> COMMITTED
             --survivors--> FIXED --bundle--> OPENING
    up to COMMITTED, a participant may --decline, withdraw--> OUT; any of these --result or aborted--> FINISHED

In the masked steps the coordinator's word moves the phase and the participant's answer (its keys, its shares, its
signature, its opened shares) leaves it: an answer is said again whenever the question is, and which answers are in is
for the machine to know. A participant that leaves an *attempt* is READY for a higher one, unless its update is in
already: then it stays where it is and answers no more.

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
    ADVERTISING = "advertising"
    SHARING = "sharing"
    UPLOADING = "uploading"
    COMMITTED = "committed"
    FIXED = "fixed"
    OPENING = "opening"
    OUT = "out"
    FINISHED = "finished"


class Kind(StrEnum):
    """The messages of a round. One announces an attempt, but it leads to two places: PLAIN_ATTEMPT is its kind when the
    encoding is plain.
    """

    ROUND_PLAN = "round_plan"
    CONSENT = "consent"
    DECLINE = "decline"
    PROGRESS = "progress"
    READY = "ready"
    WITHDRAW = "withdraw"
    PLAIN_ATTEMPT = "plain_attempt"
    ATTEMPT_START = "attempt_start"
    ADVERTISE_KEYS = "advertise_keys"
    KEY_ROSTER = "key_roster"
    SHARE_KEYS = "share_keys"
    SHARE_DELIVERY = "share_delivery"
    UPLOAD_COMMIT = "upload_commit"
    SURVIVOR_LIST = "survivor_list"
    CONSISTENCY_SIGNATURE = "consistency_signature"
    CONSISTENCY_BUNDLE = "consistency_bundle"
    UNMASK_SHARES = "unmask_shares"
    ATTEMPT_ABORT = "attempt_abort"
    ROUND_RESULT = "round_result"
    ROUND_ABORTED = "round_aborted"


_P, _C = Role.PARTICIPANT, Role.COORDINATOR

_AFTER_PLAN = (
    Phase.PLANNED,
    Phase.TRAINING,
    Phase.READY,
    Phase.ADVERTISING,
    Phase.SHARING,
    Phase.UPLOADING,
    Phase.COMMITTED,
    Phase.FIXED,
    Phase.OPENING,
)
_AFTER_READY = _AFTER_PLAN[2:]
_LEAVABLE = _AFTER_PLAN[:7]  # until its update is fixed among the survivors
_OF_AN_ATTEMPT = _AFTER_READY[1:]

_FIRSTS: dict[tuple[Role, Phase, Kind], Phase] = {
    (_C, Phase.UNPLANNED, Kind.ROUND_PLAN): Phase.PLANNED,
    (_P, Phase.PLANNED, Kind.CONSENT): Phase.TRAINING,
    (_P, Phase.TRAINING, Kind.PROGRESS): Phase.TRAINING,
    (_P, Phase.TRAINING, Kind.READY): Phase.READY,
    (_P, Phase.ADVERTISING, Kind.ADVERTISE_KEYS): Phase.ADVERTISING,
    (_C, Phase.ADVERTISING, Kind.KEY_ROSTER): Phase.SHARING,
    (_P, Phase.SHARING, Kind.SHARE_KEYS): Phase.SHARING,
    (_C, Phase.SHARING, Kind.SHARE_DELIVERY): Phase.UPLOADING,
    (_P, Phase.UPLOADING, Kind.UPLOAD_COMMIT): Phase.COMMITTED,
    (_C, Phase.COMMITTED, Kind.SURVIVOR_LIST): Phase.FIXED,
    (_P, Phase.FIXED, Kind.CONSISTENCY_SIGNATURE): Phase.FIXED,
    (_C, Phase.FIXED, Kind.CONSISTENCY_BUNDLE): Phase.OPENING,
    (_P, Phase.OPENING, Kind.UNMASK_SHARES): Phase.OPENING,
    # A higher attempt starts again from wherever the last one got to; not once a total is being opened.
    **{(_C, phase, Kind.PLAIN_ATTEMPT): Phase.UPLOADING for phase in (Phase.READY, Phase.UPLOADING, Phase.COMMITTED)},
    **{(_C, phase, Kind.ATTEMPT_START): Phase.ADVERTISING for phase in _AFTER_READY if phase is not Phase.OPENING},
}

_LEAVES = {
    **{(_P, phase, kind): Phase.OUT for phase in _LEAVABLE for kind in (Kind.DECLINE, Kind.WITHDRAW)},
    **{(_P, phase, Kind.ATTEMPT_ABORT): Phase.READY for phase in (Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING)},
    **{(_P, phase, Kind.ATTEMPT_ABORT): phase for phase in (Phase.COMMITTED, Phase.FIXED, Phase.OPENING)},
}

_ENDS = {
    (_C, phase, kind): Phase.FINISHED
    for phase in (*_AFTER_PLAN, Phase.OUT, Phase.FINISHED)
    for kind in (Kind.ROUND_RESULT, Kind.ROUND_ABORTED)
}

_REPEATS = {
    **{(_C, phase, Kind.ROUND_PLAN): phase for phase in _AFTER_PLAN},
    **{(_P, phase, Kind.CONSENT): phase for phase in _AFTER_PLAN[1:]},
    **{(_P, phase, Kind.READY): phase for phase in _AFTER_READY},
    **{(_P, phase, Kind.ADVERTISE_KEYS): phase for phase in _OF_AN_ATTEMPT},
    **{(_P, phase, Kind.SHARE_KEYS): phase for phase in _OF_AN_ATTEMPT[1:]},
    **{(_P, phase, Kind.UPLOAD_COMMIT): phase for phase in (Phase.COMMITTED, Phase.FIXED, Phase.OPENING)},
    (_P, Phase.OPENING, Kind.CONSISTENCY_SIGNATURE): Phase.OPENING,
    (_C, Phase.SHARING, Kind.KEY_ROSTER): Phase.SHARING,
    **{(_C, phase, Kind.SHARE_DELIVERY): phase for phase in (Phase.UPLOADING, Phase.COMMITTED)},
    **{(_C, phase, Kind.SURVIVOR_LIST): phase for phase in (Phase.FIXED, Phase.OPENING)},
    (_C, Phase.OPENING, Kind.CONSISTENCY_BUNDLE): Phase.OPENING,
    (_P, Phase.READY, Kind.ATTEMPT_ABORT): Phase.READY,
    (_P, Phase.OUT, Kind.DECLINE): Phase.OUT,
    (_P, Phase.OUT, Kind.WITHDRAW): Phase.OUT,
}

_EXCHANGES = (Kind.KEY_ROSTER, Kind.SHARE_DELIVERY, Kind.SURVIVOR_LIST, Kind.CONSISTENCY_BUNDLE)
_ATTEMPTS = (Kind.PLAIN_ATTEMPT, Kind.ATTEMPT_START)
_ANSWERS = (Kind.ADVERTISE_KEYS, Kind.SHARE_KEYS, Kind.CONSISTENCY_SIGNATURE, Kind.UNMASK_SHARES, Kind.ATTEMPT_ABORT)

_CROSSINGS = {
    **{
        (_P, Phase.FINISHED, kind): Phase.FINISHED
        for kind in (Kind.CONSENT, Kind.DECLINE, Kind.PROGRESS, Kind.READY, Kind.WITHDRAW, *_ANSWERS)
    },
    **{(_P, phase, Kind.PROGRESS): phase for phase in (Phase.PLANNED, *_AFTER_READY)},
    # A Consent can be lost (a session that broke, a coordinator that restarted), and the work be done before the plan
    # is repeated: being Ready says that the silo consented.
    (_P, Phase.PLANNED, Kind.READY): Phase.READY,
    **{(_C, Phase.OUT, kind): Phase.OUT for kind in (Kind.ROUND_PLAN, *_ATTEMPTS, *_EXCHANGES)},
    # A participant that lost its update (a restart before it was spooled) trains again while the attempt is announced;
    # its second Ready asks for the announcement again.
    **{(_C, phase, kind): phase for phase in (Phase.PLANNED, Phase.TRAINING) for kind in _ATTEMPTS},
    # One that left the attempt, and is told how it goes on.
    **{(_C, phase, kind): phase for phase in (Phase.TRAINING, Phase.READY) for kind in _EXCHANGES},
    # An answer to an attempt that the coordinator gave up while it was on its way. What comes after it on the stream
    # answers the next attempt. Not opened shares: they follow a bundle, and no attempt is given up after that.
    **{(_P, Phase.ADVERTISING, kind): Phase.ADVERTISING for kind in (Kind.SHARE_KEYS, Kind.CONSISTENCY_SIGNATURE)},
    # One that left when its survivors were being fixed: it counts.
    **{(_P, phase, kind): phase for phase in (Phase.FIXED, Phase.OPENING) for kind in (Kind.DECLINE, Kind.WITHDRAW)},
    # The list may overtake the acknowledgement of the upload; being on it is the acknowledgement.
    (_C, Phase.UPLOADING, Kind.SURVIVOR_LIST): Phase.FIXED,
    # And the attempt may be announced again to one whose list is already on the way.
    (_C, Phase.FIXED, Kind.PLAIN_ATTEMPT): Phase.FIXED,
    (_C, Phase.OPENING, Kind.ATTEMPT_START): Phase.OPENING,
}

# A row that says more stands above one that says less.
TABLE: dict[tuple[Role, Phase, Kind], Phase] = {**_CROSSINGS, **_REPEATS, **_ENDS, **_LEAVES, **_FIRSTS}


def advance(role: Role, phase: Phase, kind: Kind) -> Phase:
    """The phase after `role` says `kind` in `phase`. Raises PhaseError for what is not in the table."""
    try:
        return TABLE[role, phase, kind]
    except KeyError:
        raise PhaseError(f"{role} may not send {kind} in phase {phase}") from None
