"""A recorded session, read with today's code: what has to hold of it, whoever recorded it and when.

Each check goes through the frames in the order in which they were heard. The relay heard a frame after it was said and
before it was taken in, so what one side may say after what it has heard from the other holds here as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeAlias

from shared.consortium import Consortium
from shared.identity import Identity, Role, VerifyingKey, verify_signing_certificate
from shared.ids import AttemptKey, AttemptNumber, JobId, ParticipantId, RoundKey
from shared.job import JobSpec, parse_jobspec
from shared.protocol import phases
from shared.protocol.messages import (
    SIGNER_COORDINATOR,
    AttemptAnswer,
    AttemptStart,
    Hello,
    RoundAborted,
    RoundPlan,
    RoundResult,
    Welcome,
)
from shared.protocol.phases import Kind, Phase
from shared.update import Encoding
from shared.wire.sealed import open_sealed, reopen, seal
from shared.wire.session import ShutEnvelope
from shared.wire.transfer import CommitRequest
from tests.releases.frames import Recorded
from tests.releases.meaning import CODECS, decode, envelopes_in, job_of, meaning, signed_words

Told: TypeAlias = tuple[Recorded, Any]
"""A frame and its value."""

_ANNOUNCEMENTS = {Kind.PLAIN_ATTEMPT, Kind.ATTEMPT_START}
_SIDES = {False: phases.Role.PARTICIPANT, True: phases.Role.COORDINATOR}


@dataclass(frozen=True)
class Conversation:
    """Frames in order, and what is needed to believe them."""

    frames: Sequence[Recorded]
    consortium: Consortium
    ca_pem: bytes
    recorded_at: datetime

    @cached_property
    def told(self) -> Sequence[Told]:
        return [(one, decode(one.method, one.frame, from_coordinator=one.from_coordinator)) for one in self.frames]

    @cached_property
    def jobs(self) -> Mapping[JobId, JobSpec]:
        """Of every job that was planned."""
        plans = (
            reopen(RoundPlan, value.envelope).value
            for _, value in self.told
            if isinstance(value, ShutEnvelope) and value.kind is RoundPlan
        )
        return {plan.key.job: parse_jobspec(plan.jobspec) for plan in plans}

    def check_values(self) -> None:
        """Every frame means what it meant, and is what we would write."""
        for one, value in self.told:
            assert meaning(value) == one.value, one.method
            assert CODECS[one.method, one.from_coordinator].encode(value) == one.frame, (one.method, value)
            for kind, envelope in signed_words(value):
                again = seal(reopen(kind, envelope).value, signer=_NoSigner(), index=0)
                assert again.payload == envelope.payload, kind

    def check_signatures(self) -> None:
        """Every envelope was signed by who had to, and every certificate is of the consortium's authority."""
        for one, value in self.told:
            words = list(signed_words(value))
            assert len(words) >= envelopes_in(value), f"an envelope in a {type(value).__name__} that nobody opened"
            for kind, envelope in words:
                verifier = self._verifier(value, envelope.signer)
                open_sealed(kind, envelope, verifier=verifier, index=envelope.signer)
            if isinstance(value, Hello):
                self._check_certificate(value.signing_certificate, who=one.peer)
            if isinstance(value, ShutEnvelope) and value.kind is Welcome:
                said = reopen(Welcome, value.envelope).value
                self._check_certificate(said.signing_certificate, who="coordinator/coordinator")

    def _verifier(self, value: Any, signer: int) -> VerifyingKey:
        if signer == SIGNER_COORDINATOR:
            (key,) = self.consortium.coordinator_keys
            return key
        member = self.consortium.participant_key(self.jobs[job_of(value)].members[signer - 1])
        assert member is not None
        return member

    def _check_certificate(self, der: bytes, *, who: str) -> None:
        found = verify_signing_certificate(der, ca_pem=self.ca_pem, now=self.recorded_at)
        role, _, name = who.partition("/")
        assert found.identity == Identity(self.consortium.name, Role(role), ParticipantId(name))
        assert found.verifying_key == self.consortium.members[found.identity]

    def check_phases(self) -> int:
        """The table lets both sides say all that they said. How many words of rounds that were.

        What is said again to one who came back, word for word, moves nothing: that it is the same is for the machines
        to see, and here it is seen by its bytes. Neither does a word about an attempt after which another was
        announced: the two crossed, and the coordinator takes it for late.
        """
        reached: dict[tuple[str, RoundKey], Phase] = {}
        announced: dict[tuple[str, RoundKey], int] = {}
        said: set[tuple[str, bytes]] = set()
        words = 0
        for one, value in self.told:
            again = (one.peer, one.frame) in said
            said.add((one.peer, one.frame))
            for key, kind, attempt in () if again else _round_words(value):
                conversation = one.peer, key
                if kind in _ANNOUNCEMENTS and attempt is not None:
                    announced[conversation] = attempt
                if attempt is None or attempt >= announced.get(conversation, 0):
                    before = reached.get(conversation, Phase.UNPLANNED)
                    reached[conversation] = phases.advance(_SIDES[one.from_coordinator], before, kind)
                words += 1
        return words


class _NoSigner:
    """What is looked at is the payload."""

    def sign(self, message_type: str, payload: bytes) -> bytes:
        return bytes(64)


def _round_words(value: Any) -> Iterator[tuple[RoundKey, Kind, AttemptNumber | None]]:
    """What the table calls it, when it is about a round; and the attempt that it is about, if it is about one."""
    match value:
        case ShutEnvelope(kind, envelope) if kind is AttemptStart:
            start = reopen(AttemptStart, envelope).value
            plain = start.encoding is Encoding.PLAIN
            yield start.key.round, Kind.PLAIN_ATTEMPT if plain else Kind.ATTEMPT_START, start.key.attempt
        case ShutEnvelope(kind, envelope) if kind in {RoundPlan, RoundResult, RoundAborted}:
            sealed: Any = reopen(kind, envelope)
            yield sealed.value.key, Kind[_constant(kind.__name__)], None
        case AttemptAnswer(attempt=key, kind=answer):
            yield key.round, Kind[answer.name], key.attempt
        case CommitRequest(key=key):
            yield key.round, Kind.UPLOAD_COMMIT, key.attempt
        case _ if (name := _constant(type(value).__name__)) in Kind.__members__:
            of_attempt = isinstance(value.key, AttemptKey)
            round_key = value.key.round if of_attempt else value.key
            yield round_key, Kind[name], value.key.attempt if of_attempt else None
        case _:
            pass  # of the session, of an operator, or bulk data


def _constant(name: str) -> str:
    """`RoundPlan` as ROUND_PLAN."""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).lstrip("_").upper()
