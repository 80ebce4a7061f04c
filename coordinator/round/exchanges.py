"""The short exchanges of masking at the coordinator: keys, shares, the survivors' word, opened shares.

`answers` takes what members say; here is what follows from it. What is fixed is journaled before it is told: U1 before
the roster, U2 and its shares before the delivery, the survivors before their list, the signatures before the bundle.
Each `x_entered` is the state alone, which a restart goes through as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from coordinator.round.attempts import may_try_again
from coordinator.round.effects import (
    BundleMade,
    Effect,
    Journal,
    RosterFixed,
    Send,
    SharesFixed,
    StartFold,
    SurvivorsFixed,
)
from coordinator.round.frame import RoundFrame
from coordinator.round.members import moved_phases
from coordinator.round.phases import (
    Advertising,
    AttemptState,
    Confirming,
    Contribution,
    Conversations,
    Dealt,
    Fit,
    Folding,
    Lefts,
    Masking,
    Opening,
    Outs,
    Roster,
    Rules,
    Sharing,
    Unmasking,
    Uploading,
)
from coordinator.round.transition import Transition
from shared.ids import ParticipantId
from shared.protocol.messages import (
    AdvertiseKeys,
    AttemptStart,
    ConsistencyBundle,
    DeliveredShare,
    Envelope,
    KeyRoster,
    Sealed,
    ShareDelivery,
    SurvivorList,
)
from shared.protocol.phases import Kind
from shared.reasons import AttemptAbortReason
from shared.secagg.sealing import share_paths
from shared.secagg.transcript import delivery_digest, roster_digest, survivors_digest

# --- keys (U1) --------------------------------------------------------------------------------------------------------


def fix_roster(state: Advertising, now: float) -> Transition:
    """U1: no other keys are taken in this attempt."""
    adverts = {member: state.adverts[member] for member in sorted(state.adverts)}
    fixed = roster_entered(state, adverts, now)
    sends = (Send(member, key_roster(fixed)) for member in adverts)
    return Transition(fixed, (Journal(RosterFixed(adverts)), *sends))


def roster_entered(state: Advertising, adverts: Mapping[ParticipantId, Sealed[AdvertiseKeys]], now: float) -> Sharing:
    digest = roster_digest(state.h0, _payloads(state, {member: advert.envelope for member, advert in adverts.items()}))
    return Sharing(
        *_carried(state, adverts, Kind.KEY_ROSTER),
        roster=Roster(digest, adverts),
        dealt={},
        deadline=now + state.frame.spec.round.exchange_deadline_s,
    )


def key_roster(state: Sharing) -> KeyRoster:
    return KeyRoster(state.key, tuple(advert.envelope for advert in state.roster.adverts.values()))


# --- shares (U2) ------------------------------------------------------------------------------------------------------


def fix_shares(state: Sharing, now: float) -> Transition:
    """U2: no other shares are taken, and each of it gets what was dealt to it."""
    dealt = {member: state.dealt[member] for member in sorted(state.dealt)}
    fixed = delivery_entered(state, dealt, now)
    sends = (Send(member, delivery) for member, delivery in _share_deliveries(fixed).items())
    return Transition(fixed, (Journal(SharesFixed(dealt)), *sends))


def delivery_entered(state: Sharing, dealt: Mapping[ParticipantId, Dealt], now: float) -> Uploading:
    envelopes = {member: one.word.envelope for member, one in dealt.items()}
    digest = delivery_digest(state.roster.digest, _payloads(state, envelopes))
    return Uploading(
        *_carried(state, dealt, Kind.SHARE_DELIVERY),
        cohort=frozenset(dealt),
        masking=Masking(state.roster, digest, dealt),
        contributions={},
        deadline=now + state.frame.spec.round.upload_deadline_s,
    )


def share_delivery(state: Uploading, holder: ParticipantId) -> ShareDelivery:
    """What the others, and it itself, dealt to one of U2."""
    return _delivery_to(state, state.frame.index_of(holder), _trees(state))


def _share_deliveries(state: Uploading) -> Mapping[ParticipantId, ShareDelivery]:
    """The same for all of U2; each dealer's tree is hashed once."""
    trees = _trees(state)
    return {member: _delivery_to(state, state.frame.index_of(member), trees) for member in masking_of(state).dealt}


def _trees(state: Uploading) -> Sequence[Mapping[int, DeliveredShare]]:
    """For each dealer its shares by holder, with their paths."""
    return [
        {
            share.holder: DeliveredShare(state.frame.index_of(dealer), share, path)
            for share, path in zip(one.shares, share_paths(one.shares).values(), strict=True)
        }
        for dealer, one in masking_of(state).dealt.items()
    ]


def _delivery_to(state: Uploading, holder: int, trees: Sequence[Mapping[int, DeliveredShare]]) -> ShareDelivery:
    dealers = tuple(one.word.envelope for one in masking_of(state).dealt.values())
    return ShareDelivery(state.key, dealers, tuple(tree[holder] for tree in trees))


# --- survivors (U3) ---------------------------------------------------------------------------------------------------


def fix_survivors(state: Uploading, now: float) -> Transition:
    """Nobody else's update is taken from here on."""
    survivors = {member: state.contributions[member] for member in sorted(state.contributions)}
    fixed = survivors_entered(state, survivors, now)
    listed = survivor_list(fixed)
    effects: tuple[Effect, ...] = (
        Journal(SurvivorsFixed(tuple(survivors))),
        *(Send(member, listed) for member in survivors),
    )
    return Transition(fixed, (*effects, start_fold(fixed)) if isinstance(fixed, Folding) else effects)


def survivors_entered(
    state: Uploading, survivors: Mapping[ParticipantId, Contribution], now: float
) -> Confirming | Folding:
    carried = _carried(state, survivors, Kind.SURVIVOR_LIST)
    if state.masking is None:
        return Folding(*carried, survivors=survivors, opening=None)
    envelopes = {member: kept.commit for member, kept in survivors.items()}
    return Confirming(
        *carried,
        masking=state.masking,
        survivors=survivors,
        digest=survivors_digest(state.masking.digest, _payloads(state, envelopes)),
        signatures={},
        deadline=now + state.frame.spec.round.exchange_deadline_s,
    )


def survivor_list(state: Confirming | Unmasking | Folding) -> SurvivorList:
    return SurvivorList(state.key, tuple(kept.commit for kept in state.survivors.values()))


def make_bundle(state: Confirming, now: float) -> Transition:
    """Enough survivors signed one list: they may open their shares, and there is no way back."""
    opening = bundle_entered(state, state.signatures, now)
    bundle = ConsistencyBundle(opening.key, opening.bundle)
    sends = (Send(member, bundle) for member in opening.survivors)
    return Transition(opening, (Journal(BundleMade(state.signatures)), *sends))


def bundle_entered(state: Confirming, signatures: Mapping[ParticipantId, Envelope], now: float) -> Unmasking:
    return Unmasking(
        *_carried(state, state.survivors, Kind.CONSISTENCY_BUNDLE),
        masking=state.masking,
        survivors=state.survivors,
        digest=state.digest,
        bundle=tuple(signatures[member] for member in sorted(signatures)),
        revealed={},
        # Waiting longer costs nothing: it ends with the share that is needed, and giving up costs the round.
        deadline=now + max(state.frame.spec.round.upload_deadline_s, state.frame.spec.round.exchange_deadline_s),
    )


# --- opening ----------------------------------------------------------------------------------------------------


def fold_entered(state: Unmasking) -> Folding:
    opening = Opening(state.masking, state.digest, state.revealed)
    return Folding(*_common(state, state.conversations), survivors=state.survivors, opening=opening)


def start_fold(state: Folding) -> StartFold:
    return StartFold(state.key, state.attempt.value.encoding, state.survivors, state.opening)


# --- leaving and finding ----------------------------------------------------------------------------------------------


def lost_before_shares(state: Advertising | Sharing) -> bool:
    """A member lost its keys while another attempt still costs nothing but two short exchanges."""
    asked = state.cohort if isinstance(state, Advertising) else state.roster.adverts.keys()
    gone = (member for member, reason in state.lefts.items() if reason is AttemptAbortReason.GONE)
    return any(member in asked and member not in state.outs for member in gone) and may_try_again(state)


# --- small things -----------------------------------------------------------------------------------------------------

_Common: TypeAlias = tuple[RoundFrame, Conversations, Outs, Rules, Fit, Sealed[AttemptStart], Lefts]


def _carried(state: AttemptState, told: Collection[ParticipantId], said: Kind) -> _Common:
    """What the next state of the attempt has from this one, after the coordinator says this to these members."""
    return _common(state, moved_phases(state, told, said))


def _common(state: AttemptState, conversations: Conversations) -> _Common:
    return state.frame, conversations, state.outs, state.rules, state.fit, state.attempt, state.lefts


def masking_of(state: Uploading | Confirming | Unmasking | Folding) -> Masking:
    masking = state.opening.masking if isinstance(state, Folding) and state.opening is not None else None
    if not isinstance(state, Folding):
        masking = state.masking
    if masking is None:
        raise RuntimeError("a plain attempt has no masking")
    return masking


def _payloads(state: AttemptState, envelopes: Mapping[ParticipantId, Envelope]) -> list[tuple[int, bytes]]:
    """What a transcript is made of: positions, ascending, and exact payloads."""
    return [(state.frame.index_of(member), envelopes[member].payload) for member in sorted(envelopes)]
