"""What was seen until now: everything that left a silo, that reached one, and that one held. The invariants read it."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.storage.interface import RoundRecord
from shared.control import AS_SUBMITTED, JobControl, Pause
from shared.errors import ConflictError, PeerError, PhaseError
from shared.ids import AttemptKey, Digest, ParticipantId, RoundKey
from shared.protocol.messages import AdvertiseKeys, AnswerKind, AttemptAnswer, Envelope, RoundReply, UnmaskShares
from shared.reasons import AttemptAbortReason
from shared.secagg.keys import AttemptSecrets
from shared.wire.sealed import reopen
from tests.simulation.settings import Convicted, hold

# Alarms that an honest coordinator can cause. A round that nobody could open is followed by one on the same model; a
# silo that helped to open the first does not help with a total over others.
HONEST_ALARMS = frozenset({AttemptAbortReason.REPEATED_TOTAL})


@dataclass(slots=True)
class Evidence:
    """Implements `Witness`. Raises Convicted for what no silo may ever say."""

    values: dict[tuple[ParticipantId, RoundKey], float] = field(default_factory=dict)
    """What a silo's update of a round has in its own cell."""
    commitments: set[tuple[ParticipantId, AttemptKey]] = field(default_factory=set)
    acknowledgements: set[tuple[ParticipantId, AttemptKey]] = field(default_factory=set)
    openings: dict[tuple[ParticipantId, RoundKey], Digest] = field(default_factory=dict)
    """The survivors (t3) for which a silo gave its shares."""
    opened: dict[RoundKey, Digest] = field(default_factory=dict)
    """The same of any silo. The key has the purpose in it: a round has one."""
    kinds: dict[tuple[Digest, int], str] = field(default_factory=dict)
    """Which kind of share of a member was given, by attempt (h0)."""
    keys: dict[bytes, bytes] = field(default_factory=dict)
    """Public keys, and the advert that each was in."""
    secrets: set[bytes] = field(default_factory=set)
    frames: set[bytes] = field(default_factory=set)
    """All that went over the wire, in both directions."""
    texts: list[str] = field(default_factory=list)
    """Errors, as they were told."""
    revoked: set[ParticipantId] = field(default_factory=set)

    paused_at: tuple[Pause, int] | None = None
    """The pause that the job is under, and how many rounds were planned when it came."""
    planned: int = 0
    controls: set[JobControl] = field(default_factory=lambda: {AS_SUBMITTED})
    """The job's control when it was looked at last."""

    finished: dict[RoundKey, RoundRecord] = field(default_factory=dict)
    lines: list[bytes] = field(default_factory=list)
    model: Digest | None = None
    models: int = 1
    journaled: int = 0
    misses: int = 0
    """Finished rounds in which a member said that its update does not fit."""

    # --- Witness ------------------------------------------------------------------------------------------------------

    def trained(self, participant: ParticipantId, key: RoundKey, value: float) -> None:
        self.values[participant, key] = value

    def sent(self, participant: ParticipantId, attempt: AttemptKey) -> None:
        self.commitments.add((participant, attempt))

    def acknowledged(self, participant: ParticipantId, attempt: AttemptKey, update: Digest) -> None:
        self.acknowledgements.add((participant, attempt))

    def said(self, participant: ParticipantId, message: RoundReply, frame: bytes) -> None:
        self.frames.add(frame)
        if not isinstance(message, AttemptAnswer):
            return
        if message.kind is AnswerKind.ADVERTISE_KEYS:
            self._advertised(participant, message.envelope)
        elif message.kind is AnswerKind.UNMASK_SHARES:
            self._opened(participant, message)

    def heard(self, frame: bytes) -> None:
        self.frames.add(frame)

    def holds(self, secrets: AttemptSecrets) -> None:
        drawn = (secrets.self_seed, secrets.mask_seed, secrets.share_private, secrets.encoding_seed)
        self.secrets.update(secret.reveal() for secret in drawn)

    def refused(self, participant: ParticipantId, error: PeerError, said: str, *, gap: bool) -> None:
        """An honest word met a closed door. Words about what is over here are no breach."""
        self.texts.append(str(error))
        if participant in self.revoked or "is not open here" in str(error):
            return
        if gap and isinstance(error, PhaseError | ConflictError):
            return
        raise Convicted("honest-refused", f"{said} at {participant}: {type(error).__name__}: {error}")

    def alarmed(self, participant: ParticipantId, what: str) -> None:
        hold(what in HONEST_ALARMS, "honest-refused", f"{participant} raises the alarm {what}")

    # --- what an answer says ------------------------------------------------------------------------------------------

    def _advertised(self, participant: ParticipantId, envelope: Envelope) -> None:
        advert = reopen(AdvertiseKeys, envelope).value
        for key in (advert.mask_key, advert.share_key):
            first = self.keys.setdefault(key, envelope.payload)
            hold(first == envelope.payload, "fresh-keys", f"{participant} advertises a public key a second time")

    def _opened(self, participant: ParticipantId, message: AttemptAnswer) -> None:
        word, key = reopen(UnmaskShares, message.envelope).value, message.key
        for kind, shares in (("self", word.self_shares), ("mask", word.mask_shares)):
            for dealer, _ in shares:
                known = self.kinds.setdefault((word.attempt, dealer), kind)
                hold(
                    known == kind, "one-kind", f"both kinds of share of member {dealer} left silos in {message.attempt}"
                )
        first = self.opened.setdefault(key, word.survivors)
        hold(first == word.survivors, "opened-once", f"{participant} helps to open another total of round {key}")
        self.openings[participant, key] = word.survivors
