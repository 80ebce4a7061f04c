"""Every message of a round at every time at which it must not come, over real TLS: refused, charged to the connection's
identity, and without effect on the round, which commits with the honest.

The times are those of a plain round, in which a member speaks for itself; the same product for masked rounds is held at
the machines (tests/protocol).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, RoundKey, RoundNumber
from shared.protocol.messages import (
    AnswerKind,
    AttemptAnswer,
    Consent,
    Decline,
    Envelope,
    ParticipantMessage,
    Progress,
    Ready,
    RoundPlan,
    Withdraw,
    plan_digest,
)
from shared.protocol.phases import TABLE, Kind, Phase, Role
from shared.reasons import ConsentRule, DropReason
from tests.support.credentials import CONSORTIUM, Consortium
from tests.support.fake_participant import FakeParticipant, Talk, fake_participant
from tests.support.live_coordinator import LiveCoordinator, live_coordinator

HONEST = ("hospital-a", "hospital-b", "hospital-c")
HOSTILE = "hospital-x"
# A commitment has a call of its own and is no message of a session.
SPOKEN = [kind for kind in Kind if any(role is Role.PARTICIPANT and said is kind for role, _, said in TABLE)]
SPOKEN.remove(Kind.UPLOAD_COMMIT)
OF_MASKING = {
    Kind.ADVERTISE_KEYS: AnswerKind.ADVERTISE_KEYS,
    Kind.SHARE_KEYS: AnswerKind.SHARE_KEYS,
    Kind.CONSISTENCY_SIGNATURE: AnswerKind.CONSISTENCY_SIGNATURE,
    Kind.UNMASK_SHARES: AnswerKind.UNMASK_SHARES,
    Kind.ATTEMPT_ABORT: AnswerKind.ATTEMPT_ABORT,
}


def spoken(kind: Kind, key: RoundKey, plan: Digest) -> ParticipantMessage:
    """This message about this round, well-formed; what is signed in it is not."""
    match kind:
        case Kind.CONSENT:
            return Consent(key, plan)
        case Kind.DECLINE:
            return Decline(key, plan, ConsentRule.JOB_NOT_ALLOWED)
        case Kind.PROGRESS:
            return Progress(key, plan, 50)
        case Kind.READY:
            return Ready(key, plan, fits=True)
        case Kind.WITHDRAW:
            return Withdraw(key, plan, DropReason.DISK)
        case _:
            return AttemptAnswer(AttemptKey(key, AttemptNumber(1)), OF_MASKING[kind], Envelope(b"", bytes(64), 4))


def forbidden(phase: Phase) -> list[Kind]:
    """What a participant may not say in a phase. Answers of masked attempts are in none of a plain round's."""
    return [kind for kind in SPOKEN if kind in OF_MASKING or (Role.PARTICIPANT, phase, kind) not in TABLE]


@dataclass(slots=True)
class Attack:
    """A hostile member in one round after the other."""

    live: LiveCoordinator
    hostile: FakeParticipant
    talk: Talk
    said: int = 0
    phases: list[Phase] = field(default_factory=list)

    @property
    def refused(self) -> int:
        """Everything that was said on sessions and refused, for whatever reason."""
        (family,) = [one for one in self.live.metrics.registry.collect() if one.name == "consilo_coordinator_refused"]
        samples = [sample for sample in family.samples if sample.name.endswith("_total")]
        return int(sum(sample.value for sample in samples if sample.labels["method"] == "Session"))

    async def everything_forbidden(self, phase: Phase, key: RoundKey, plan: Digest) -> None:
        """All of it, and three kinds of nonsense beside; each is refused by itself."""
        nonsense = RoundKey(JobId("another"), RoundNumber(1))
        for message in (
            *(spoken(kind, key, plan) for kind in forbidden(phase)),
            Consent(nonsense, plan),
            Ready(key, Digest.of(b"another plan"), fits=True),
            b"\x0a\xff",
        ):
            await self.talk.say(message)
            self.said += 1
            await self.live.until(lambda: self.refused >= self.said)
            assert self.refused == self.said, f"{phase}: {message!r}"
        self.phases.append(phase)


def test_what_comes_at_the_wrong_time_is_refused_and_the_round_commits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> Attack:
        consortium = Consortium(tmp_path)
        async with AsyncExitStack() as open_, live_coordinator(consortium, tmp_path) as live:
            members = []
            for name in (*HONEST, HOSTILE):
                entering = fake_participant(live.port, name, consortium.participant(name), consortium.coordinator())
                members.append(await open_.enter_async_context(entering))
            model, _ = await live.add_model(100)
            talks = [(await member.open())[0] for member in members]
            attack = Attack(live, members[-1], talks[-1])
            await live.submit("heart-1", [*HONEST, HOSTILE], model, quorum=3)
            await _round(attack, members, talks)
            return attack

    attack = asyncio.run(run())
    assert attack.phases == [Phase.PLANNED, Phase.TRAINING, Phase.READY, Phase.OUT, Phase.FINISHED]
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    refused = [line for line in lines if line["event"] in {"message_refused", "message_late"}]
    assert {line["peer"] for line in refused} == {f"spiffe://{CONSORTIUM}/participant/{HOSTILE}"}
    assert attack.said > 40


async def _round(attack: Attack, members: list[FakeParticipant], talks: list[Talk]) -> None:
    plan = await attack.talk.expect(RoundPlan)
    key, digest = plan.value.key, plan_digest(plan)
    await attack.everything_forbidden(Phase.PLANNED, key, digest)
    await attack.talk.say(Consent(key, digest))
    await attack.everything_forbidden(Phase.TRAINING, key, digest)
    await attack.talk.say(Ready(key, digest, fits=True))
    await attack.everything_forbidden(Phase.READY, key, digest)
    await attack.talk.say(Withdraw(key, digest, DropReason.DISK))
    await attack.everything_forbidden(Phase.OUT, key, digest)
    honest = list(zip(members[:-1], talks[:-1], strict=True))
    attempts = await asyncio.gather(*(member.train(talk) for member, talk in honest))
    for (member, _), attempt in zip(honest, attempts, strict=True):
        await member.upload(attempt)
        await member.commit(attempt)
    results = [await member.result(talk) for member, talk in honest]
    assert all(result.survivors == (1, 2, 3) for result in results), "all of the honest, and nobody else"
    await attack.everything_forbidden(Phase.FINISHED, key, digest)


def test_every_message_is_known_here() -> None:
    assert {kind for kind in SPOKEN if kind not in OF_MASKING} == {
        Kind.CONSENT,
        Kind.DECLINE,
        Kind.PROGRESS,
        Kind.READY,
        Kind.WITHDRAW,
    }
    assert set(OF_MASKING.values()) == set(AnswerKind)
