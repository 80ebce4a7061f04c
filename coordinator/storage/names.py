"""Names on the way to becoming paths.

Everything here was parsed before it reached storage, so a bad name is a bug of ours and not a peer's doing. It is
checked all the same: these strings become file names, and one `..` that slipped through would be somebody else's file.
"""

from __future__ import annotations

from shared.ids import (
    AttemptKey,
    ParticipantId,
    RoundKey,
    parse_attempt_number,
    parse_job_id,
    parse_participant_id,
    parse_round_number,
)


def round_parts(key: RoundKey) -> tuple[str, str]:
    """The folders of one round: job, round. Raises RuntimeError."""
    try:
        return parse_job_id(key.job), str(parse_round_number(key.number))
    except ValueError as error:
        raise RuntimeError(f"not a round's key: {error}") from None


def spool_parts(key: AttemptKey, participant: ParticipantId) -> tuple[str, str, str, str]:
    """The folders and the stem of one spool: job, round, attempt, participant. Raises RuntimeError."""
    try:
        attempt, stem = str(parse_attempt_number(key.attempt)), parse_participant_id(participant)
    except ValueError as error:
        raise RuntimeError(f"not a spool's key: {error}") from None
    return (*round_parts(key.round), attempt, stem)


def staged_name(name: str) -> str:
    """A staged file's name: a DNS label. Raises RuntimeError."""
    try:
        return parse_job_id(name)  # the same alphabet: a DNS label
    except ValueError as error:
        raise RuntimeError(f"not a staged file's name: {error}") from None
