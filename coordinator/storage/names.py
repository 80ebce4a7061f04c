"""Names on the way to becoming paths.

Everything here was parsed before it reached storage, so a bad name is a bug of ours and not a peer's doing. It is
checked all the same: these strings become file names, and one `..` that slipped through would be somebody else's file.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.ids import (
    AttemptKey,
    Digest,
    ParticipantId,
    RoundKey,
    parse_attempt_number,
    parse_job_id,
    parse_participant_id,
    parse_round_number,
)

SPOOL_SUFFIX = ".update"
MODEL_SUFFIX = ".safetensors"


def round_parts(key: RoundKey) -> tuple[str, str]:
    """The folders of one round: job, round. Raises RuntimeError."""
    try:
        return parse_job_id(key.job), str(parse_round_number(key.number))
    except ValueError as error:
        raise RuntimeError(f"not a round's key: {error}") from None


def attempt_parts(key: AttemptKey) -> tuple[str, str, str]:
    """The folders of one attempt: job, round, attempt. Raises RuntimeError."""
    try:
        return (*round_parts(key.round), str(parse_attempt_number(key.attempt)))
    except ValueError as error:
        raise RuntimeError(f"not an attempt's key: {error}") from None


def spool_parts(key: AttemptKey, participant: ParticipantId) -> tuple[str, str, str, str]:
    """The folders and the stem of one spool: job, round, attempt, participant. Raises RuntimeError."""
    try:
        return (*attempt_parts(key), parse_participant_id(participant))
    except ValueError as error:
        raise RuntimeError(f"not a spool's key: {error}") from None


def spool_of_parts(parts: Sequence[str]) -> tuple[AttemptKey, ParticipantId] | None:
    """Whose spool a path of folders and a file is; None for one that storage would not have made."""
    try:
        job, number, attempt, name = parts
        key = RoundKey(parse_job_id(job), parse_round_number(int(number)))
        spool = AttemptKey(key, parse_attempt_number(int(attempt))), parse_participant_id(name[: -len(SPOOL_SUFFIX)])
    except ValueError:
        return None
    return spool if (*spool_parts(*spool)[:3], f"{spool[1]}{SPOOL_SUFFIX}") == tuple(parts) else None


def model_of_name(name: str) -> Digest | None:
    """Which model a file is; None for one that storage would not have made."""
    try:
        digest = Digest.parse(name.removesuffix(MODEL_SUFFIX))
    except ValueError:
        return None
    return digest if name == f"{digest}{MODEL_SUFFIX}" else None


def staged_name(name: str) -> str:
    """A staged file's name: a DNS label. Raises RuntimeError."""
    try:
        return parse_job_id(name)  # the same alphabet: a DNS label
    except ValueError as error:
        raise RuntimeError(f"not a staged file's name: {error}") from None
