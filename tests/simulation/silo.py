"""A participant as a process that can die: the real driver over a journal and a spool that survive it.

Theory of operation. What outlives the process is its journal and the updates of rounds that the journal has open; the
secrets of masked attempts do not. Each life has an entropy of its own, which is fixed by the participant's name and the
number of the life: a history replays, and no life draws what another drew. All that a silo says, hears and holds is
shown to a witness, against which the invariants are checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from participant.consent import Policy
from participant.round.effects import Event
from participant.round.phases import Offer, RoundState
from participant.round.surroundings import Surroundings
from shared.errors import PeerError, StorageError, UnreachableError
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey
from shared.protocol.messages import CAPABILITIES, PROTOCOL_VERSIONS, Envelope, Hello, RoundReply
from shared.secagg.keys import AttemptSecrets
from shared.wire.session import (
    ShutEnvelope,
    decode_coordinator_message,
    encode_participant_message,
    open_broadcast,
)
from tests.simulation.boundaries import ENDS
from tests.simulation.coordinator_process import Host
from tests.simulation.durable import durable_before_said
from tests.simulation.wire import Link
from tests.simulation.work import SimulatedWork, one_hot
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import COORDINATOR_KEY, TASK, key_of


class Witness(Protocol):
    """Told what each side did, so that the invariants can be checked against it."""

    def trained(self, participant: ParticipantId, key: RoundKey, value: float) -> None:
        """The silo has an update with this value in its own cell."""
        ...

    def sent(self, participant: ParticipantId, attempt: AttemptKey) -> None:
        """A signed commitment left this silo."""
        ...

    def acknowledged(self, participant: ParticipantId, attempt: AttemptKey, update: Digest) -> None: ...

    def said(self, participant: ParticipantId, message: RoundReply, frame: bytes) -> None:
        """A word left this silo."""
        ...

    def heard(self, frame: bytes) -> None:
        """A frame of the coordinator reached a silo."""
        ...

    def holds(self, secrets: AttemptSecrets) -> None:
        """A silo has these secrets now."""
        ...

    def refused(self, participant: ParticipantId, error: PeerError, said: str, *, gap: bool) -> None:
        """This participant did not accept what the coordinator said. `gap`: frames of this session went missing."""
        ...

    def alarmed(self, participant: ParticipantId, what: str) -> None:
        """This participant takes the coordinator for dishonest."""
        ...


class _Observer:
    def __init__(self, silo: Silo) -> None:
        self._silo = silo

    def moved(self, state: RoundState) -> None: ...

    def alarmed(self, what: str) -> None:
        self._silo.witness.alarmed(self._silo.name, what)


class Silo:
    """A participant's machine: what outlives the process, and the process."""

    def __init__(self, name: ParticipantId, host: Host, witness: Witness) -> None:
        self.name, self.host, self.witness = name, host, witness
        self.faults = host.parts.boundaries(name)
        self.journal: MemoryJournal = host.parts.journal(faults=self.faults)
        self.spool: dict[RoundKey, bytes] = {}
        self.link: Link | None = None
        self.revoked = False
        self.declines = False
        self.value = 1.0
        """What it trains next."""
        self.trained: Callable[[Offer], bytes] = self._one_hot
        self.bereaved: Counter[RoundKey] = Counter()
        """How often the secrets of an attempt at a round were lost with a process."""
        self.lives = 0
        self._begin()

    def _begin(self) -> None:
        while True:
            self.lives += 1
            try:
                self._live_again()
            except (StorageError, *ENDS):  # something starts it again
                self.journal = self.journal.crash()
            else:
                return

    def _live_again(self) -> None:
        self.work = SimulatedWork(self)
        policy = Policy(
            participant=self.name,
            tasks=frozenset({TASK}),
            minimum_members=9999 if self.declines else 1,
            allow_plain=True,
            allowed_jobs=("*",),
            max_deadline_s=3600.0,
            minimum_survivors=1,
            journal_doubtful=False,
            minimum_colluding=0,
            allow_two_party=True,
            allow_no_collusion=True,
            consortium=self.host.shape.consortium,
        )
        around = Surroundings(
            policy=policy,
            journal=self.journal,
            work=self.work,
            observer=_Observer(self),
            own_key=key_of(self.name).verifying_key,
            signer=key_of(self.name),
            entropy=self.host.parts.entropy(self.name, self.lives),
        )
        self.driver = self.host.parts.driver(around=around)
        self.driver.start()

    # --- what it holds ------------------------------------------------------------------------------------------------

    @property
    def states(self) -> Iterable[RoundState]:
        return self.driver._rounds.values()

    @property
    def holds_secrets(self) -> bool:
        """Whether an attempt of it would be lost with its process."""
        return any(map(_holds_secrets, self.states))

    def _show_secrets(self) -> None:
        for state in self.states:
            secrets = getattr(state, "secrets", None)
            if secrets is not None:
                self.witness.holds(secrets)

    def _one_hot(self, offer: Offer) -> bytes:
        return one_hot(self.host.shape, offer.index, offer.key.number, self.value)

    # --- life ---------------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Die, and come back with what is durable: the journal, and the spool of its open rounds."""
        self.bereaved.update(state.offer.key for state in self.states if _holds_secrets(state))
        self._part()
        self.journal = self.journal.crash()
        kept = {key for key, record in self.journal._kept.rounds.items() if record.update is not None}
        self.spool = {key: deltas for key, deltas in self.spool.items() if key in kept}
        self._begin()

    def connect(self) -> None:
        """Open a session, or a newer one."""
        self._part()
        heads: list[Envelope] = []
        self.live(lambda: heads.extend(self.driver.heads))
        hello = Hello(
            versions=PROTOCOL_VERSIONS,
            capabilities=CAPABILITIES,
            tasks=(TASK,),
            nonce=bytes(32),
            signing_certificate=b"certificate",
            software="simulated",
            open_rounds=self.driver.open_rounds,
            heads=tuple(heads),
        )
        try:
            self.link = self.host.open_session(self.name, encode_participant_message(hello))
        except UnreachableError:
            return
        self.driver.connected(self._say)

    def _say(self, message: RoundReply) -> None:
        if self.link is not None and not self.link.broken:
            frame = encode_participant_message(message)
            with self.faults.around("say"):
                self.witness.said(self.name, message, frame)
                durable_before_said(self.journal, message)
                self.link.to_coordinator.append(frame)

    def _part(self) -> None:
        """This side is without a session; what the coordinator knows is another matter."""
        if self.link is not None:
            self.link.break_off()
        self.link = None
        self.driver.disconnected()

    def notice(self) -> None:
        """This side finds that its connection is broken."""
        self._part()

    def hear(self) -> None:
        """Take the next frame."""
        assert self.link is not None
        frame = self.link.to_participant.popleft()
        self.witness.heard(frame)
        verifier = COORDINATOR_KEY.verifying_key
        message = decode_coordinator_message(frame)
        said = message.kind.__name__ if isinstance(message, ShutEnvelope) else type(message).__name__

        def take() -> None:
            if isinstance(message, ShutEnvelope):
                self.driver.received(open_broadcast(message, verifier=verifier), verifier)
            else:
                self.driver.received(message, verifier)  # type: ignore[arg-type] # exchanges are all that is left

        try:
            self.live(take)
        except PeerError as error:
            self.refused(error, said)

    def refused(self, error: PeerError, said: str) -> None:
        gap = self.link is not None and self.link.gap
        self.witness.refused(self.name, error, said, gap=gap)

    def report(self, key: RoundKey, event: Event) -> None:
        self.live(lambda: self.driver.report(key, event))

    def live(self, work: Callable[[], None]) -> None:
        """A journal that fails ends the daemon, as a kill does, and something starts it again."""
        try:
            work()
        except (StorageError, *ENDS):
            self.restart()
        else:
            self._show_secrets()


def _holds_secrets(state: RoundState) -> bool:
    return any(getattr(state, name, None) is not None for name in ("secrets", "dealt"))
