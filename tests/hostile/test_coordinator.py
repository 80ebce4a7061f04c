"""A coordinator that says what it must not, to a real session and driver of a silo over real TLS: each word is refused
and counted, nothing is promised because of it, and the silo works with an honest one next.

What it may do with models is in tests/unit/participant/rpc/test_transfers.py, with Welcomes in test_session_loop.py,
and with the words of a masked attempt in tests/attacks.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from participant.round.driver import OPEN_ROUNDS_MAX, Driver
from participant.rpc.opening import Credentials as SessionCredentials
from participant.rpc.opening import Guest
from participant.rpc.session import SessionLoop
from shared.clock import SystemClock
from shared.entropy import SystemEntropy
from shared.errors import FederationError, PeerError, UnreachableError
from shared.identity import Identity, Role, SigningKey, VerifyingKey
from shared.ids import AttemptKey, AttemptNumber, JobId, RoundNumber
from shared.log_budget import LINES_MAX
from shared.protocol.messages import (
    Consent,
    Decline,
    Envelope,
    Heartbeat,
    KeyRoster,
    ParticipantMessage,
    Refused,
    RoundBroadcast,
    RoundReply,
    Sealed,
)
from shared.reasons import RefusalReason
from shared.wire.sealed import seal
from shared.wire.session import encode_coordinator_message
from tests.support.credentials import Consortium
from tests.support.fake_coordinator import Stream, fake_coordinator
from tests.support.masked_cohort import Cohort
from tests.support.masked_daemon import Daemon
from tests.support.rounds import aborted_of, key_of, make_masked_spec, make_plan, result_of, start_of

SPEC = make_masked_spec(rounds=100)
PLAN = make_plan(SPEC, number=5)
LIMIT_S = 60.0
INVENTED = 1500

Frames = Callable[[Stream], Iterable[bytes]]


@dataclass
class Silo:
    """A daemon's driver behind a real session, which counts what it refuses."""

    daemon: Daemon = field(default_factory=lambda: Daemon(Cohort(rounds=100)))
    errors: Counter[str] = field(default_factory=Counter)
    said_messages: list[ParticipantMessage] = field(default_factory=list)

    @property
    def driver(self) -> Driver:
        return self.daemon.driver

    @property
    def open_rounds(self) -> Any:
        return self.driver.open_rounds

    @property
    def heads(self) -> tuple[Envelope, ...]:
        return ()

    def connected(self, say: Callable[[RoundReply], None]) -> None:
        self.driver.connected(say)

    def disconnected(self) -> None:
        self.driver.disconnected()

    def received(self, message: RoundBroadcast, verifier: VerifyingKey) -> None:
        self.driver.received(message, verifier)

    def session(self, *, open_now: bool) -> None: ...

    def session_failed(self, error: FederationError) -> None: ...

    def said(self, message: ParticipantMessage) -> None:
        self.said_messages.append(message)

    def refused(self, error: PeerError) -> None:
        self.errors[type(error).__name__] += 1

    @property
    def replies(self) -> list[str]:
        """What it answered, without heartbeats."""
        return [type(message).__name__ for message in self.said_messages if not isinstance(message, Heartbeat)]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("pki"))


async def _session(consortium: Consortium, silo: Silo, frames: Frames) -> FederationError:
    """One session in which the coordinator says these frames, hears the silo out, and ends it."""

    async def handler(stream: Stream) -> None:
        await stream.send(stream.welcome())
        for frame in frames(stream):
            await stream.send(frame)
        await stream.send(encode_coordinator_message(Refused(RefusalReason.DRAINING, "all is said")))
        while isinstance(await stream.context.read(), bytes):
            pass  # until the silo ends its side, which it does once it has heard all of it

    mine = consortium.participant("hospital-a")
    async with fake_coordinator(consortium.coordinator(), handler) as address:
        loop = SessionLoop(
            addresses=[address],
            guest=Guest(
                credentials=SessionCredentials(
                    identity=Identity(consortium.authority.consortium, Role.PARTICIPANT, "hospital-a"),
                    tls=mine.tls,
                    signing_certificate=lambda: mine.signing_certificate_der,
                ),
                consortium=None,
                tasks=(),
                software="test",
                clock=SystemClock(),
                entropy=SystemEntropy(),
            ),
            rounds=silo,
            observer=silo,
        )
        with pytest.raises(FederationError) as ended:
            await asyncio.wait_for(loop._session(address), LIMIT_S)
        return ended.value


def _sealed(
    stream: Stream, said: Sealed[Any], *, signer: SigningKey | None = None, index: int = 0, **changes: Any
) -> bytes:
    """What a message of the tests' own would be from this coordinator."""
    key = signer or stream.credentials.signing_key
    return encode_coordinator_message(seal(replace(said.value, **changes), signer=key, index=index))


OTHER_MEMBERS = (*SPEC.members[:-1], "hospital-y")

# After an honest plan of round 5, what comes next, and as what it is refused.
HOSTILE: dict[str, tuple[Callable[[Stream], bytes], str]] = {
    "the same round, planned otherwise": (lambda s: _sealed(s, PLAN, deadline_s=7.0), "ConflictError"),
    "an older round": (lambda s: _sealed(s, make_plan(SPEC, number=4)), "ConflictError"),
    "signed by a stranger": (
        lambda s: _sealed(s, make_plan(SPEC, number=6), signer=key_of("stranger")),
        "IdentityError",
    ),
    "signed by a member": (
        lambda s: _sealed(s, make_plan(SPEC, number=6), signer=key_of("hospital-b")),
        "IdentityError",
    ),
    "signed for another place": (lambda s: _sealed(s, make_plan(SPEC, number=6), index=1), "IdentityError"),
    "no specification": (lambda s: _sealed(s, make_plan(SPEC, number=6), jobspec=b"{}"), "WireError"),
    "an attempt before anybody is ready": (lambda s: _sealed(s, start_of(PLAN, SPEC), members=OTHER_MEMBERS), ""),
    "an attempt at another round": (lambda s: _sealed(s, start_of(make_plan(SPEC, number=9), SPEC)), "PhaseError"),
    "a result of a round that never was": (
        lambda s: _sealed(s, result_of(start_of(make_plan(SPEC, number=9), SPEC), (1, 2, 3))),
        "PhaseError",
    ),
    "an end of a round that never was": (lambda s: _sealed(s, aborted_of(make_plan(SPEC, number=9))), "PhaseError"),
    "keys of a round that never was": (
        lambda _: encode_coordinator_message(
            KeyRoster(AttemptKey(make_plan(SPEC, number=9).value.key, AttemptNumber(1)), ())
        ),
        "PhaseError",
    ),
    "a second Welcome": (lambda s: s.welcome(), "WireError"),
    "nothing": (lambda _: b"", "WireError"),
    "no message": (lambda _: b"\x0a\xff", "WireError"),
    "an unknown message": (lambda _: b"\xfa\x07\x00", "WireError"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_coordinator_must_not_say_changes_nothing(consortium: Consortium, case: str) -> None:
    make, error = HOSTILE[case]
    silo = Silo()
    asyncio.run(_session(consortium, silo, lambda stream: [_sealed(stream, PLAN), make(stream)]))
    assert silo.errors == (Counter({error: 1}) if error else Counter())
    assert silo.replies == ["Consent"], "to the honest plan, and nothing else"
    assert silo.open_rounds == (PLAN.value.key,)
    asyncio.run(_session(consortium, silo, lambda stream: [_sealed(stream, make_plan(SPEC, number=6))]))
    assert silo.replies == ["Consent", "Consent"], "and it works with an honest one next"


def test_another_specification_under_a_known_name_is_declined(consortium: Consortium) -> None:
    silo, other = Silo(), make_masked_spec(rounds=99)
    asyncio.run(
        _session(consortium, silo, lambda stream: [_sealed(stream, PLAN), _sealed(stream, make_plan(other, number=6))])
    )
    assert [type(message) for message in silo.said_messages if not isinstance(message, Heartbeat)] == [Consent, Decline]
    assert PLAN.value.key not in silo.open_rounds, "what was open of the job ends, and nothing is begun"


def test_a_message_that_is_too_large_ends_the_session_and_no_more(consortium: Consortium) -> None:
    silo = Silo()
    ended = asyncio.run(_session(consortium, silo, lambda _: [bytes(5 * 1024 * 1024)]))
    assert isinstance(ended, UnreachableError)
    asyncio.run(_session(consortium, silo, lambda stream: [_sealed(stream, PLAN)]))
    assert silo.replies == ["Consent"]


def test_jobs_by_the_thousand_open_a_few_rounds_and_a_few_lines(
    consortium: Consortium, capsys: pytest.CaptureFixture[str]
) -> None:
    silo = Silo()

    def flood(stream: Stream) -> Iterable[bytes]:
        for number in range(INVENTED):
            yield encode_coordinator_message(Heartbeat())
            yield _sealed(stream, make_plan(SPEC, job=JobId(f"invented-{number}"), number=RoundNumber(1)))

    asyncio.run(_session(consortium, silo, flood))
    assert len(silo.open_rounds) == OPEN_ROUNDS_MAX
    assert silo.errors["ConflictError"] == INVENTED - OPEN_ROUNDS_MAX
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    refused = [line for line in lines if line["event"] == "message_refused"]
    assert 0 < len(refused) <= 2 * LINES_MAX, "and each refusal is in the metric"


def test_a_flood_of_plans_that_are_declined_has_a_budget_too(
    consortium: Consortium, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    silo = Silo(Daemon(Cohort(rounds=100), allowed_jobs=("other",)))
    count = 3 * LINES_MAX

    def flood(stream: Stream) -> Iterable[bytes]:
        return [_sealed(stream, make_plan(SPEC, job=JobId(f"invented-{number}"))) for number in range(count)]

    asyncio.run(_session(consortium, silo, flood))
    assert silo.replies == ["Decline"] * count
    assert silo.open_rounds == ()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert 0 < len([line for line in lines if line["event"] == "round_declined"]) <= 2 * LINES_MAX
