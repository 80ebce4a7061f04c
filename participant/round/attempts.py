"""An attempt at a participant: how it is taken part in, and how it is left (pure).

A plain attempt is an upload. A masked one begins with secrets that are drawn for it alone: they are in the state that
follows, never on disk, and gone with that state. So a process that restarted cannot go on with the attempt that it was
in. It says `gone`, and waits for a higher one.

What does not hold in a masked attempt is no error of the session: the silo leaves the attempt, tells the coordinator by
which check, and is Ready for a higher one. Until it signed which survivors it was shown, nobody can open a total with
its update in it unless it helps. After that it stays: what does not hold is refused, and changes nothing.
"""

from __future__ import annotations

from typing import TypeAlias

from participant.round.checks import carried_result, check_attempt, core_of
from participant.round.effects import Alarm, Effect, RecordAttempt, Say, StartUpload, Stop
from participant.round.phases import (
    Advertised,
    Committed,
    Confirmed,
    Finished,
    Fixed,
    InAttempt,
    Offer,
    Opened,
    Out,
    Plain,
    Ready,
    RoundState,
    Shared,
    Uploading,
    Working,
    phase_of,
)
from participant.round.transition import Tools, Transition
from shared.errors import ConflictError, PeerError
from shared.protocol.messages import (
    NONCE_BYTES,
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    AttemptStart,
    Checkpoint,
    CheckpointKind,
    Envelope,
    Sealed,
    attempt_digest,
)
from shared.protocol.phases import Kind, Phase, Role, advance
from shared.reasons import AttemptAbortReason
from shared.secagg.keys import AttemptSecrets
from shared.secagg.sealing import SealedShare
from shared.update import Encoding
from shared.wire.sealed import seal

Leavable: TypeAlias = Advertised | Shared | Uploading | Committed
"""In an attempt, and nothing signed about its survivors."""


def announced(state: RoundState, attempt: Sealed[AttemptStart], tools: Tools) -> Transition:
    """The coordinator announces an attempt, or says again that it did."""
    kind = Kind.PLAIN_ATTEMPT if attempt.value.encoding is Encoding.PLAIN else Kind.ATTEMPT_START
    advance(Role.COORDINATOR, phase_of(state), kind)
    match state:
        case Working() | Fixed() | Out() | Finished():
            return Transition(state)
        case Opened():
            if attempt.payload != state.attempt.payload:
                raise ConflictError(f"attempt {attempt.value.key} comes after this silo helped to open a total")
            return Transition(state, (_opened_again(state),))
        case Ready() if not state.offer.masked:
            return _begin_upload(state, attempt, before=())
        case Uploading() | Committed() if not state.offer.masked:
            if _is_the_same(state.attempt, attempt):
                return Transition(state)
            return _begin_upload(state, attempt, before=(Stop(state.offer),))
        case _:
            return _masked_announced(state, attempt, tools)


def answer(
    attempt: Sealed[AttemptStart], kind: AnswerKind, envelope: Envelope, shares: tuple[SealedShare, ...] = ()
) -> Say:
    """A sealed word about an attempt, on its way."""
    return Say(AttemptAnswer(attempt.value.key, kind, envelope, shares))


def leave(state: Leavable, reason: AttemptAbortReason, detail: str, tools: Tools) -> Transition:
    """Out of this attempt, Ready for a higher one. Its secrets go with the state."""
    advance(Role.PARTICIPANT, phase_of(state), Kind.ATTEMPT_ABORT)
    said = _abort(state.offer, state.attempt, reason, tools)
    alarm = Alarm(state.offer, reason, f"attempt {state.attempt.value.key}: {detail}")
    ready = Ready(state.offer, state.update, last=state.attempt)
    return Transition(ready, (*_stop_upload(state), alarm, said))


def refuse(
    state: Ready | Leavable, attempt: Sealed[AttemptStart], reason: AttemptAbortReason, detail: str, tools: Tools
) -> Transition:
    """Not into this attempt, and out of the one before it, which the coordinator gave up. Also for an attempt that the
    journal refuses, because its core is another one.
    """
    advance(Role.PARTICIPANT, Phase.ADVERTISING, Kind.ATTEMPT_ABORT)
    said = _abort(state.offer, attempt, reason, tools)
    alarm = Alarm(state.offer, reason, detail)
    ready = state if isinstance(state, Ready) else Ready(state.offer, state.update, last=state.attempt)
    return Transition(ready, (*_stop_upload(state), alarm, said))


# --- plain ------------------------------------------------------------------------------------------------------------


def _begin_upload(
    state: Ready | Uploading | Committed, attempt: Sealed[AttemptStart], *, before: tuple[Effect, ...]
) -> Transition:
    offer, update = state.offer, state.update
    check_attempt(offer, attempt.value, update, None)
    recorded = RecordAttempt(offer, attempt, core=None)
    started = StartUpload(offer, update, attempt, Plain())
    return Transition(Uploading(offer, update, attempt, Plain(), None), (*before, recorded, started))


def _is_the_same(known: Sealed[AttemptStart], attempt: Sealed[AttemptStart]) -> bool:
    """Or a higher one. Raises ConflictError for the same number with other content, and for a lower one."""
    if known.value.key.attempt > attempt.value.key.attempt:
        raise ConflictError(f"attempt {attempt.value.key} comes after attempt {known.value.key.attempt}")
    if known.value.key.attempt < attempt.value.key.attempt:
        return False
    if known.payload != attempt.payload:
        raise ConflictError(f"attempt {attempt.value.key} was announced before with other content")
    return True


# --- masked -----------------------------------------------------------------------------------------------------------


def _masked_announced(state: Ready | InAttempt, attempt: Sealed[AttemptStart], tools: Tools) -> Transition:
    known = state.last if isinstance(state, Ready) else state.attempt
    if known is not None and known.value.key.attempt > attempt.value.key.attempt:
        raise ConflictError(f"attempt {attempt.value.key} comes after attempt {known.value.key.attempt}")
    if known is not None and known.value.key.attempt == attempt.value.key.attempt:
        return _announced_again(state, known, attempt, tools)
    try:
        check_attempt(state.offer, attempt.value, state.update, None if known is None else known.value)
    except PeerError as error:
        if isinstance(state, Confirmed):
            raise
        return refuse(state, attempt, AttemptAbortReason.BAD_ATTEMPT, str(error), tools)
    return _advertise(state, attempt, tools)


def _announced_again(
    state: Ready | InAttempt, known: Sealed[AttemptStart], attempt: Sealed[AttemptStart], tools: Tools
) -> Transition:
    if known.payload != attempt.payload:
        detail = f"attempt {attempt.value.key} was announced before with other content"
        match state:
            case Confirmed():
                raise ConflictError(detail)
            case Ready():
                return refuse(state, attempt, AttemptAbortReason.EQUIVOCATION, detail, tools)
            case _:
                return leave(state, AttemptAbortReason.EQUIVOCATION, detail, tools)
    match state:
        case Ready():
            advance(Role.PARTICIPANT, phase_of(state), Kind.ATTEMPT_ABORT)
            return Transition(state, (_abort(state.offer, attempt, AttemptAbortReason.GONE, tools),))
        case Advertised() | Shared():
            advance(Role.PARTICIPANT, phase_of(state), Kind.ADVERTISE_KEYS)
            return Transition(state, (answer(attempt, AnswerKind.ADVERTISE_KEYS, state.advert.envelope),))
        case _:
            return Transition(state)


def _advertise(state: Ready | InAttempt, attempt: Sealed[AttemptStart], tools: Tools) -> Transition:
    """Fresh secrets, on record which attempt they are for, and then their public keys."""
    offer, update = state.offer, state.update
    advance(Role.PARTICIPANT, Phase.ADVERTISING, Kind.ADVERTISE_KEYS)
    h0 = attempt_digest(attempt)
    secrets = AttemptSecrets.draw(tools.draw)
    keys = AdvertiseKeys(
        attempt=h0,
        index=offer.index,
        mask_key=secrets.mask_public(h0),
        share_key=secrets.share_public(),
        nonce=tools.draw(NONCE_BYTES),
        checkpoint=next(iter(known_checkpoints(offer)), None),
    )
    advert = seal(keys, signer=tools.signer, index=offer.index)
    recorded = RecordAttempt(offer, attempt, core_of(offer, update))
    said = answer(attempt, AnswerKind.ADVERTISE_KEYS, advert.envelope)
    return Transition(Advertised(offer, update, attempt, secrets, advert), (*_stop_upload(state), recorded, said))


def known_checkpoints(offer: Offer) -> tuple[Checkpoint, ...]:
    """How far this silo has verified what the coordinator did, the furthest first."""
    known = [result for result in (offer.verified, carried_result(offer)) if result is not None]
    latest = sorted(known, key=lambda result: result.number, reverse=True)
    return tuple(Checkpoint(CheckpointKind.CHAIN, result.number, result.digest) for result in latest)


def _stop_upload(state: RoundState) -> tuple[Effect, ...]:
    return (Stop(state.offer),) if isinstance(state, Uploading) else ()


def _abort(offer: Offer, attempt: Sealed[AttemptStart], reason: AttemptAbortReason, tools: Tools) -> Say:
    word = AttemptAbort(attempt_digest(attempt), offer.index, reason)
    return answer(attempt, AnswerKind.ATTEMPT_ABORT, seal(word, signer=tools.signer, index=offer.index).envelope)


def _opened_again(state: Opened) -> Say:
    advance(Role.PARTICIPANT, phase_of(state), Kind.UNMASK_SHARES)
    return answer(state.attempt, AnswerKind.UNMASK_SHARES, state.opening.reply)
