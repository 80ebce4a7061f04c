"""Names of things, parsed once and then trusted.

Every identifier that crosses a wall (wire, configuration file, command line) goes through one of the `parse_*`
functions here; the rest of the code holds a value whose type says that it was checked. Names are DNS labels, because
they stand in SPIFFE URIs, file paths and metric labels, and a DNS label is safe in all three.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NewType

ParticipantId = NewType("ParticipantId", str)
JobId = NewType("JobId", str)
TaskName = NewType("TaskName", str)
RoundNumber = NewType("RoundNumber", int)
AttemptNumber = NewType("AttemptNumber", int)

LABEL_MAX_CHARS = 63  # RFC 1035, section 2.3.4
DIGEST_BYTES = 32
COUNTER_MAX = 2**31 - 1  # rounds and attempts travel as uint32 and are stored as signed integers

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 value: 32 bytes, printed as 64 lower-case hexadecimal digits."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DIGEST_BYTES:
            raise ValueError(f"a digest has {DIGEST_BYTES} bytes, got {len(self.raw)}")

    @classmethod
    def of(cls, data: bytes | memoryview) -> Digest:
        """The SHA-256 of `data`."""
        return cls(hashlib.sha256(data).digest())

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read 64 lower-case hexadecimal digits. Raises ValueError."""
        if not _HEX_DIGEST.fullmatch(text):
            raise ValueError(f"expected 64 lower-case hexadecimal digits, got {_shown(text)}")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.raw.hex()


@dataclass(frozen=True, slots=True, order=True)
class RoundKey:
    """One round of one job. Rounds are keyed, never "the current one"."""

    job: JobId
    number: RoundNumber

    def __str__(self) -> str:
        return f"{self.job}/{self.number}"


@dataclass(frozen=True, slots=True, order=True)
class AttemptKey:
    """One attempt at one round. `attempt` grows strictly within a round."""

    round: RoundKey
    attempt: AttemptNumber

    def __str__(self) -> str:
        return f"{self.round}/{self.attempt}"


def parse_participant_id(text: str) -> ParticipantId:
    """A participant's name: a DNS label such as `hospital-a`. Raises ValueError."""
    return ParticipantId(_label(text, "a participant id"))


def parse_job_id(text: str) -> JobId:
    """A job's id: a DNS label such as `heart-3f9a21c0`. Raises ValueError."""
    return JobId(_label(text, "a job id"))


def parse_task_name(text: str) -> TaskName:
    """The name under which a silo installed a task: a DNS label such as `heart`. Raises ValueError."""
    return TaskName(_label(text, "a task name"))


def parse_round_number(value: int) -> RoundNumber:
    """Rounds count from 1. Raises ValueError."""
    return RoundNumber(_counter(value, "a round number"))


def parse_attempt_number(value: int) -> AttemptNumber:
    """Attempts count from 1. Raises ValueError."""
    return AttemptNumber(_counter(value, "an attempt number"))


def _label(text: str, what: str) -> str:
    if len(text) > LABEL_MAX_CHARS or not _LABEL.fullmatch(text):
        raise ValueError(
            f"{what} has 1 to {LABEL_MAX_CHARS} characters a-z, 0-9 and '-', none of them '-' at an end; "
            f"got {_shown(text)}"
        )
    return text


def _counter(value: int, what: str) -> int:
    if not 1 <= value <= COUNTER_MAX:
        raise ValueError(f"{what} is from 1 to {COUNTER_MAX}, got {value}")
    return value


def _shown(text: str) -> str:
    """Hostile text, cut to a length that a log line can carry."""
    return repr(text if len(text) <= LABEL_MAX_CHARS else text[:LABEL_MAX_CHARS] + "...")
