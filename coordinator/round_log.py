"""A log line for each thing that became true of a round, and for who leaves it. Members are named, their numbers never
are.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from coordinator.round.phases import (
    Aborted,
    Advertising,
    Committed,
    RoundState,
    Uploading,
    phase_name,
)
from coordinator.round.surroundings import Observer
from shared.ids import ParticipantId, RoundKey
from shared.protocol.messages import AnswerKind, AttemptAbort, AttemptAnswer, Decline, RoundReply
from shared.reasons import Purpose
from shared.wire.sealed import reopen

_log = structlog.get_logger(__name__)


class RoundLog:
    """An `Observer` that logs, and passes everything on to the next one."""

    def __init__(self, *, following: Observer) -> None:
        self._following = following
        self._phases: dict[RoundKey, str] = {}

    def moved(self, state: RoundState) -> None:
        key, phase = state.frame.key, phase_name(state)
        if isinstance(state, Committed | Aborted):
            self._phases.pop(key, None)  # `finished` tells of it
        elif self._phases.get(key) != phase:
            self._phases[key] = phase
            cohort = {"cohort": sorted(state.cohort)} if isinstance(state, Advertising | Uploading) else {}
            _log.info("round_moved", job=key.job, round=key.number, phase=phase, **cohort)
        self._following.moved(state)

    def finished(self, key: RoundKey, purpose: Purpose, outcome: str, summary: Mapping[str, object]) -> None:
        _log.info("round_finished", job=key.job, round=key.number, purpose=purpose, outcome=outcome, **summary)
        self._following.finished(key, purpose, outcome, summary)


def log_who_leaves(participant: ParticipantId, message: RoundReply) -> None:
    """And why: by the rule or the check that the member names. It may be the first sign that somebody shows the members
    different things, or that they hold different manifests.
    """
    names = {"job": message.key.job, "round": message.key.number, "participant": participant}
    match message:
        case Decline(rule=rule):
            _log.info("round_declined", **names, rule=rule)
        case AttemptAnswer(attempt=attempt, kind=AnswerKind.ATTEMPT_ABORT, envelope=envelope):
            reason = reopen(AttemptAbort, envelope).value.reason
            _log.warning("attempt_left", **names, attempt=attempt.attempt, reason=reason)
        case _:
            pass
