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
from shared.ids import JobId, ParticipantId, RoundKey
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
        to see, and here it is seen by its bytes.
        """
        reached: dict[tuple[str, RoundKey], Phase] = {}
        said: set[tuple[str, bytes]] = set()
        words = 0
        for one, value in self.told:
            again = (one.peer, one.frame) in said
            said.add((one.peer, one.frame))
            for key, kind in () if again else _round_words(value):
                before = reached.get((one.peer, key), Phase.UNPLANNED)
                reached[one.peer, key] = phases.advance(_SIDES[one.from_coordinator], before, kind)
                words += 1
        return words


class _NoSigner:
    """What is looked at is the payload."""

    def sign(self, message_type: str, payload: bytes) -> bytes:
        return bytes(64)


def _round_words(value: Any) -> Iterator[tuple[RoundKey, Kind]]:
    """What the table calls it, when it is about a round."""
    match value:
        case ShutEnvelope(kind, envelope) if kind is AttemptStart:
            start = reopen(AttemptStart, envelope).value
            plain = start.encoding is Encoding.PLAIN
            yield start.key.round, Kind.PLAIN_ATTEMPT if plain else Kind.ATTEMPT_START
        case ShutEnvelope(kind, envelope) if kind in {RoundPlan, RoundResult, RoundAborted}:
            sealed: Any = reopen(kind, envelope)
            yield sealed.value.key, Kind[_constant(kind.__name__)]
        case AttemptAnswer(kind=answer):
            yield value.key, Kind[answer.name]
        case CommitRequest(key=key):
            yield key.round, Kind.UPLOAD_COMMIT
        case _ if _constant(type(value).__name__) in Kind.__members__:
            key = value.key
            yield (key if isinstance(key, RoundKey) else key.round), Kind[_constant(type(value).__name__)]
        case _:
            pass  # of the session, of an operator, or bulk data


def _constant(name: str) -> str:
    """`RoundPlan` as ROUND_PLAN."""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).lstrip("_").upper()
