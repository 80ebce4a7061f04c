"""What members answer in a masked attempt: verified, checked, taken.

The coordinator checks what it can, so that one broken member costs an attempt as little as possible; nobody relies on
that. Each silo checks all of it again, with keys that it has from the consortium's manifest (PROTOCOL.md 5.11).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias, TypeVar, assert_never

from coordinator.aggregation.unmask import check_revealed
from coordinator.round.effects import Effect, Journal, SharesRevealed
from coordinator.round.exchanges import masking_of
from coordinator.round.members import without
from coordinator.round.phases import Advertising, AttemptState, Confirming, Dealt, Folding, Sharing, Unmasking
from shared.errors import ConflictError, LateError, PhaseError
from shared.ids import Digest, ParticipantId
from shared.protocol.messages import (
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    Checkpoint,
    ConsistencySignature,
    RoundResult,
    Sealed,
    ShareKeys,
    UnmaskShares,
    result_digest,
)
from shared.protocol.phases import Kind, Phase
from shared.reasons import AttemptAbortReason
from shared.secagg.keys import check_public_key
from shared.secagg.sealing import shares_root
from shared.wire.sealed import decode_envelope, open_sealed, reopen

Taken: TypeAlias = tuple[AttemptState, tuple[Effect, ...]]
"""What an answer leads to: the attempt with it, and what to do first."""

T = TypeVar("T", AdvertiseKeys, ShareKeys, ConsistencySignature, UnmaskShares, AttemptAbort)

_IN_AN_ATTEMPT = frozenset(
    {Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED, Phase.OPENING}
)

ANSWERS: Mapping[AnswerKind, Kind] = {
    AnswerKind.ADVERTISE_KEYS: Kind.ADVERTISE_KEYS,
    AnswerKind.SHARE_KEYS: Kind.SHARE_KEYS,
    AnswerKind.CONSISTENCY_SIGNATURE: Kind.CONSISTENCY_SIGNATURE,
    AnswerKind.UNMASK_SHARES: Kind.UNMASK_SHARES,
    AnswerKind.ATTEMPT_ABORT: Kind.ATTEMPT_ABORT,
}


def answered(state: AttemptState, participant: ParticipantId, answer: AttemptAnswer) -> Taken:
    """A member's sealed word about this attempt. Raises PeerError for one that is wrong, LateError for a late one."""
    if answer.attempt != state.key:
        raise LateError(f"an answer about attempt {answer.attempt}, but attempt {state.key} runs")
    match answer.kind:
        case AnswerKind.ADVERTISE_KEYS:
            return _advertised(state, participant, _opened(state, participant, AdvertiseKeys, answer))
        case AnswerKind.SHARE_KEYS:
            return _shared(state, participant, _opened(state, participant, ShareKeys, answer), answer)
        case AnswerKind.CONSISTENCY_SIGNATURE:
            return _confirmed(state, participant, _opened(state, participant, ConsistencySignature, answer))
        case AnswerKind.UNMASK_SHARES:
            return _revealed(state, participant, _opened(state, participant, UnmaskShares, answer))
        case AnswerKind.ATTEMPT_ABORT:
            return _left(state, participant, _opened(state, participant, AttemptAbort, answer).value.reason)
        case _:
            assert_never(answer.kind)


def _opened(state: AttemptState, participant: ParticipantId, kind: type[T], answer: AttemptAnswer) -> Sealed[T]:
    """Verified with the member's key of the manifest, and of this attempt as it was announced."""
    index = state.frame.index_of(participant)
    opened = open_sealed(kind, answer.envelope, verifier=state.frame.keys[participant], index=index)
    if opened.value.attempt != state.h0 or opened.value.index != index:
        raise ConflictError(f"{kind.__name__} is not for attempt {state.key} as it was announced")
    return opened


def _advertised(state: AttemptState, participant: ParticipantId, advert: Sealed[AdvertiseKeys]) -> Taken:
    if not isinstance(state, Advertising):
        roster = state.roster if isinstance(state, Sharing) else masking_of(state).roster
        return _said_before(state, roster.adverts.get(participant), advert)
    if participant in state.adverts:
        return _said_before(state, state.adverts[participant], advert)
    if participant not in state.cohort:
        raise PhaseError(f"{participant} is not in the cohort of attempt {state.key}")
    _require_in(state, participant)
    _check_advert(state, advert.value)
    return replace(state, adverts={**state.adverts, participant: advert}), ()


def _check_advert(state: Advertising, value: AdvertiseKeys) -> None:
    """What every silo would leave the attempt for, if it came from one member only."""
    keys = [value.mask_key, value.share_key]
    for key in keys:
        check_public_key(key)
    known = [key for advert in state.adverts.values() for key in (advert.value.mask_key, advert.value.share_key)]
    if len({*keys, *known}) != len(keys) + len(known):
        raise ConflictError("a public key that was advertised before: each is to be fresh")
    if value.checkpoint is not None:
        _check_checkpoint(state, value.checkpoint)


def _check_checkpoint(state: Advertising, checkpoint: Checkpoint) -> None:
    """A silo that took up this plan has verified the result in it, and none after it."""
    previous = state.frame.plan.value.previous_result
    last = reopen(RoundResult, decode_envelope(previous)).value.key.number if previous else 0
    if checkpoint.size != last or checkpoint.root != result_digest(previous):
        raise ConflictError(f"a checkpoint of round {checkpoint.size} that is not this job's result")


def _shared(state: AttemptState, participant: ParticipantId, word: Sealed[ShareKeys], answer: AttemptAnswer) -> Taken:
    if isinstance(state, Advertising):
        raise LateError(f"shares for attempt {state.key} before its roster")
    if not isinstance(state, Sharing):
        known = masking_of(state).dealt.get(participant)
        return _said_before(state, None if known is None else known.word, word)
    if participant in state.dealt:
        return _said_before(state, state.dealt[participant].word, word)
    if participant not in state.roster.adverts:
        raise PhaseError(f"{participant} is not on the roster of attempt {state.key}")
    _require_in(state, participant)
    if word.value.roster != state.roster.digest:
        raise ConflictError(f"shares under another roster than that of attempt {state.key}")
    holders = [state.frame.index_of(member) for member in state.roster.adverts]
    if [share.holder for share in answer.shares] != holders:
        raise ConflictError("sealed shares are one for each on the roster, in order")
    if shares_root(answer.shares) != word.value.shares_root:
        raise ConflictError("the sealed shares are not those that the signed root covers")
    return replace(state, dealt={**state.dealt, participant: Dealt(word, answer.shares)}), ()


def _confirmed(state: AttemptState, participant: ParticipantId, word: Sealed[ConsistencySignature]) -> Taken:
    state = _of_survivor(state, participant, word.value.survivors)
    if not isinstance(state, Confirming) or participant in state.signatures:
        return state, ()  # one more than were needed, or one that is said again
    return replace(state, signatures={**state.signatures, participant: word.envelope}), ()


def _revealed(state: AttemptState, participant: ParticipantId, word: Sealed[UnmaskShares]) -> Taken:
    state = _of_survivor(state, participant, word.value.survivors)
    if isinstance(state, Confirming):
        raise LateError(f"opened shares for attempt {state.key}, for which nobody was asked")
    known = (state.revealed if isinstance(state, Unmasking) else state.opened).get(participant)
    if known is not None and known != word.value:
        raise ConflictError(f"other shares than those that were opened before in attempt {state.key}")
    if known is not None or isinstance(state, Folding):
        return state, ()  # said again, or more than were needed
    check_revealed(
        word.value,
        masking=state.masking,
        survivors=state.survivors,
        holder=state.frame.index_of(participant),
        members=state.frame.spec.members,
    )
    moved = replace(state, revealed={**state.revealed, participant: word.value})
    return moved, (Journal(SharesRevealed(participant, word)),)


def _of_survivor(state: AttemptState, participant: ParticipantId, named: Digest) -> Confirming | Unmasking | Folding:
    """The state, in which survivors may speak of who they are."""
    if not isinstance(state, Confirming | Unmasking | Folding):
        raise LateError(f"a word about the survivors of attempt {state.key}, which are not fixed")
    if participant not in state.survivors:
        raise PhaseError(f"{participant} is not among the survivors of attempt {state.key}")
    if named != (state.transcript if isinstance(state, Folding) else state.digest):
        raise ConflictError(f"a word about other survivors than those of attempt {state.key}")
    return state


def _left(state: AttemptState, participant: ParticipantId, reason: AttemptAbortReason) -> Taken:
    """Out of the attempt, though not out of the round. What others were not told of it yet goes with it; an update that
    is in, stays.
    """
    if isinstance(state, Folding) or state.conversations[participant].phase not in _IN_AN_ATTEMPT:
        return state, ()
    moved = without(state, participant) if isinstance(state, Advertising | Sharing) else state
    return replace(moved, lefts={**state.lefts, participant: reason}), ()


def _require_in(state: Advertising | Sharing, participant: ParticipantId) -> None:
    if participant in state.lefts:
        raise LateError(f"{participant} left attempt {state.key}, and takes part in the next one at the earliest")


def _said_before(state: AttemptState, known: Sealed[T] | None, said: Sealed[T]) -> Taken:
    if known is None:
        raise LateError(f"too late for this step of attempt {state.key}")
    if known.payload != said.payload:
        raise ConflictError(f"another {type(said.value).__name__} was taken before in attempt {state.key}")
    return state, ()
