"""What a silo checks of the exchanges of a masked attempt: rosters, deliveries, survivors, bundles (pure).

The coordinator only passes on what members signed. So everything is read from their envelopes, under the keys of the
manifest that this silo pinned, and compared with what this silo said itself. PROTOCOL.md section 5.11 lists the checks.
Every refusal is a PeerError; what follows from one is for `participant.round.masking`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from participant.round.attempts import known_checkpoints
from participant.round.phases import Advertised, Committed, Confirmed, Dealt, Offer, Shared, Uploading
from shared.errors import ConflictError, IdentityError, WireError
from shared.ids import AttemptKey, Digest, ParticipantId
from shared.protocol.messages import (
    AdvertiseKeys,
    AttemptStart,
    CheckpointKind,
    ConsistencyBundle,
    ConsistencySignature,
    DeliveredShare,
    Envelope,
    KeyRoster,
    Sealed,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UploadCommit,
    attempt_digest,
)
from shared.secagg.keys import check_public_key
from shared.secagg.sealing import OpenedShare, open_share
from shared.secagg.transcript import delivery_digest, roster_digest, survivors_digest
from shared.wire.sealed import open_sealed

Signed = TypeVar("Signed", AdvertiseKeys, ShareKeys, UploadCommit, ConsistencySignature)
Chain: TypeAlias = Callable[[Digest, Iterable[tuple[int, bytes]]], Digest]


@dataclass(frozen=True, slots=True)
class Survivors:
    """Who is in the total."""

    t3: Digest
    indexes: tuple[int, ...]
    """U3, ascending."""
    names: tuple[ParticipantId, ...]


def require_running(attempt: Sealed[AttemptStart], key: AttemptKey) -> None:
    """Raises ConflictError for an exchange of another attempt; it says nothing about this one."""
    if key != attempt.value.key:
        raise ConflictError(f"an exchange of attempt {key}, but attempt {attempt.value.key} runs")


def chained(chain: Chain, before: Digest, envelopes: Sequence[Envelope]) -> Digest | None:
    """The digest of an exchange, by its payloads; None when two are of one signer, which no exchange that was taken
    ever has.
    """
    if len({envelope.signer for envelope in envelopes}) < len(envelopes):
        return None
    return chain(before, [(envelope.signer, envelope.payload) for envelope in envelopes])


# --- who advertised ---------------------------------------------------------------------------------------------------


def check_roster(state: Advertised, roster: KeyRoster) -> tuple[Mapping[int, AdvertiseKeys], Digest]:
    """The keys of U1 by index, and t1."""
    offer, h0 = state.offer, attempt_digest(state.attempt)
    adverts = _opened(offer, AdvertiseKeys, roster.adverts)
    _require_threshold(offer, len(adverts), "advertised keys")
    _require_own(offer, adverts, state.advert.payload)
    for index, advert in adverts.items():
        _require_attempt(index, advert.value.attempt, h0)
        check_public_key(advert.value.mask_key)
        check_public_key(advert.value.share_key)
    keys = {key for advert in adverts.values() for key in (advert.value.mask_key, advert.value.share_key)}
    if len(keys) < 2 * len(adverts):
        raise ConflictError("a roster in which one public key is advertised twice")
    _require_one_history(offer, [advert.value for advert in adverts.values()])
    t1 = roster_digest(h0, _payloads(adverts))
    return {index: advert.value for index, advert in adverts.items()}, t1


def _require_one_history(offer: Offer, adverts: Sequence[AdvertiseKeys]) -> None:
    """Checkpoints of one kind and size have one root: else the coordinator showed two histories."""
    roots: dict[tuple[CheckpointKind, int], Digest] = {
        (known.kind, known.size): known.root for known in known_checkpoints(offer)
    }
    for advert in adverts:
        point = advert.checkpoint
        if point is not None and roots.setdefault((point.kind, point.size), point.root) != point.root:
            raise ConflictError(
                f"member {advert.index} verified another result of round {point.size} than others: "
                "the coordinator showed two histories"
            )


# --- who dealt --------------------------------------------------------------------------------------------------------


def check_delivery(state: Shared, delivery: ShareDelivery) -> Dealt:
    """The shares of every dealer in U2, opened, and t2."""
    offer, h0 = state.offer, attempt_digest(state.attempt)
    words = _opened(offer, ShareKeys, delivery.dealers)
    _require_threshold(offer, len(words), "dealt shares")
    _require_own(offer, words, state.word.payload)
    for index, word in words.items():
        if index not in state.roster:
            raise ConflictError(f"member {index} dealt shares without having advertised keys")
        _require_attempt(index, word.value.attempt, h0)
        if word.value.roster != state.t1:
            raise ConflictError(f"member {index} dealt shares for another roster")
    delivered = {share.dealer: share for share in delivery.shares}
    if len(delivered) != len(delivery.shares) or delivered.keys() != words.keys():
        raise ConflictError("a delivery with other shares than one of each dealer")
    held = {index: _open_share(state, word.value, delivered[index]) for index, word in words.items()}
    return Dealt(state.t1, delivery_digest(state.t1, _payloads(words)), held)


def _open_share(state: Shared, word: ShareKeys, delivered: DeliveredShare) -> OpenedShare:
    holders = sorted(state.roster)
    return open_share(
        secrets=state.secrets,
        index=state.offer.index,
        dealer=word.index,
        dealer_public=state.roster[word.index].share_key,
        t1=state.t1,
        sealed=delivered.share,
        root=word.shares_root,
        position=holders.index(state.offer.index),
        count=len(holders),
        path=delivered.path,
    )


# --- who is in the total ----------------------------------------------------------------------------------------------


def check_survivors(state: Uploading | Committed, dealt: Dealt, listed: SurvivorList) -> Survivors:
    """U3 and t3."""
    offer, h0 = state.offer, attempt_digest(state.attempt)
    commits = _opened(offer, UploadCommit, listed.commits)
    for index, commit in commits.items():
        if index not in dealt.held:
            raise ConflictError(f"member {index} is listed as a survivor without having dealt shares")
        _require_attempt(index, commit.value.attempt, h0)
        if commit.value.transcript != dealt.t2:
            raise ConflictError(f"member {index} masked its update for other dealers than this silo was shown")
    if offer.index not in commits:
        raise ConflictError(f"a survivor list for {offer.key} without this participant's commitment")
    # While its acknowledgement is on the way the silo does not know its commit, but nobody else can have signed it.
    if isinstance(state, Committed) and state.commit is not None:
        _require_own(offer, commits, state.commit.payload)
    if len(commits) < offer.spec.floor:
        raise ConflictError(f"a total over {len(commits)} members, expected {offer.spec.floor} at least")
    indexes = tuple(commits)
    return Survivors(survivors_digest(dealt.t2, _payloads(commits)), indexes, names_of(offer, indexes))


def names_of(offer: Offer, indexes: Iterable[int]) -> tuple[ParticipantId, ...]:
    return tuple(offer.spec.members[index - 1] for index in indexes)


def check_bundle(state: Confirmed, bundle: ConsistencyBundle) -> None:
    """Enough survivors were shown the survivors that this silo was shown."""
    offer, h0 = state.offer, attempt_digest(state.attempt)
    words = _opened(offer, ConsistencySignature, bundle.signatures)
    _require_threshold(offer, len(words), "signed the survivors")
    for index, word in words.items():
        if index not in state.survivors:
            raise ConflictError(f"member {index} signed the survivors, but is none of them")
        _require_attempt(index, word.value.attempt, h0)
        if word.value.survivors != state.t3:
            raise ConflictError(f"member {index} signed other survivors than this silo was shown")


# --- of all of them ---------------------------------------------------------------------------------------------------


def _opened(offer: Offer, kind: type[Signed], envelopes: Sequence[Envelope]) -> dict[int, Sealed[Signed]]:
    """Each verified under the key that the manifest has for the member at its place; by index, ascending."""
    opened: dict[int, Sealed[Signed]] = {}
    for envelope in sorted(envelopes, key=lambda envelope: envelope.signer):
        index = envelope.signer
        if not 1 <= index <= len(offer.spec.members):
            raise IdentityError(f"a word of member {index}, but the job has {len(offer.spec.members)}")
        if index in opened:
            raise ConflictError(f"two words of member {index} where one is expected")
        key = None if offer.consortium is None else offer.consortium.participant_key(offer.spec.members[index - 1])
        if key is None:
            raise IdentityError(f"the manifest that this silo pinned has no key for member {index}")
        word = open_sealed(kind, envelope, verifier=key, index=index)
        if word.value.index != index:
            raise WireError(f"member {index} signed a word that says it is of member {word.value.index}")
        opened[index] = word
    return opened


def _payloads(words: Mapping[int, Sealed[Signed]]) -> list[tuple[int, bytes]]:
    return [(index, word.payload) for index, word in words.items()]


def _require_threshold(offer: Offer, count: int, what: str) -> None:
    if count < offer.spec.threshold:
        raise ConflictError(f"{count} members {what}, expected {offer.spec.threshold} at least")


def _require_own(offer: Offer, words: Mapping[int, Sealed[Signed]], mine: bytes) -> None:
    if offer.index not in words:
        raise ConflictError("an exchange without this participant's own word")
    if words[offer.index].payload != mine:
        raise ConflictError("an exchange with another word of this participant than the one that it said")


def _require_attempt(index: int, named: Digest, h0: Digest) -> None:
    if named != h0:
        raise ConflictError(f"the word of member {index} is about another attempt")
