"""The steps of a masked attempt at a participant, from the roster to the shares that it opens (pure).

    Advertised --roster--> Shared --delivery--> Uploading --> Committed --survivors--> Confirmed --bundle--> Opened

Each word of the coordinator is checked (`participant.round.exchanges`) and answered once. Said again with the same
content, the stored answer is said again: shares are never dealt twice, and one list of survivors is signed. Said again
with other content it is equivocation. Before Confirmed whatever does not hold ends the attempt for this silo
(`attempts.leave`); afterwards it is refused, and the secrets stay until the round ends.

Of each member this silo opens one kind of share: the self share of a survivor, or the mask share of one that dropped.
With both, the member's upload could be unmasked. That is why it opens for one list of survivors in a round, puts that
on record before it says anything, and forgets the rest.
"""

from __future__ import annotations

from participant.round.attempts import answer, leave
from participant.round.checks import how_another_total, scale_exponents, terms_of
from participant.round.effects import BundleCame, RecordOpening, Say, StartUpload, Stop, SurvivorsListed
from participant.round.exchanges import (
    Survivors,
    chained,
    check_bundle,
    check_delivery,
    check_roster,
    check_survivors,
    names_of,
    require_running,
)
from participant.round.phases import (
    Advertised,
    Committed,
    Confirmed,
    Dealt,
    Fixed,
    Masked,
    Opened,
    Opening,
    RoundState,
    Shared,
    Total,
    Uploading,
    phase_of,
)
from participant.round.transition import Tools, Transition
from shared.errors import ConflictError, PeerError, PhaseError
from shared.protocol.messages import (
    AnswerKind,
    ConsistencySignature,
    KeyRoster,
    ShareDelivery,
    ShareKeys,
    UnmaskShares,
    attempt_digest,
)
from shared.protocol.phases import Kind, Phase, Role, advance
from shared.reasons import AttemptAbortReason
from shared.secagg.masking import Masks, participant_terms
from shared.secagg.sealing import deal, shares_root
from shared.secagg.transcript import delivery_digest, roster_digest, self_seed_commitment, survivors_digest
from shared.wire.sealed import seal

# --- the roster: who advertised keys ----------------------------------------------------------------------------------


def roster_came(state: RoundState, roster: KeyRoster, tools: Tools) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.KEY_ROSTER)
    match state:
        case Advertised():
            require_running(state.attempt, roster.key)
            try:
                shared = _deal(state, roster, tools)
            except PeerError as error:
                return leave(state, AttemptAbortReason.BAD_ROSTER, str(error), tools)
            return Transition(shared, (_shares_said(shared),))
        case Shared():
            require_running(state.attempt, roster.key)
            if chained(roster_digest, attempt_digest(state.attempt), roster.adverts) != state.t1:
                return leave(state, AttemptAbortReason.EQUIVOCATION, "a second roster with other content", tools)
            return Transition(state, (_shares_said(state),))
        case _:
            return Transition(state)


def _deal(state: Advertised, roster: KeyRoster, tools: Tools) -> Shared:
    offer, secrets = state.offer, state.secrets
    keys, t1 = check_roster(state, roster)
    shares = deal(
        secrets=secrets,
        index=offer.index,
        t1=t1,
        threshold=offer.spec.threshold,
        members=len(offer.spec.members),
        holders={index: advert.share_key for index, advert in keys.items()},
        draw=tools.draw,
    )
    word = ShareKeys(
        attempt=attempt_digest(state.attempt),
        roster=t1,
        index=offer.index,
        self_commitment=self_seed_commitment(t1, offer.index, secrets.self_seed.reveal()),
        shares_root=shares_root(shares),
    )
    sealed = seal(word, signer=tools.signer, index=offer.index)
    return Shared(offer, state.update, state.attempt, secrets, state.advert, keys, t1, sealed, shares)


def _shares_said(state: Shared) -> Say:
    advance(Role.PARTICIPANT, phase_of(state), Kind.SHARE_KEYS)
    return answer(state.attempt, AnswerKind.SHARE_KEYS, state.word.envelope, state.shares)


# --- the delivery: who dealt shares -----------------------------------------------------------------------------------


def delivery_came(state: RoundState, delivery: ShareDelivery, tools: Tools) -> Transition:
    advance(Role.COORDINATOR, phase_of(state), Kind.SHARE_DELIVERY)
    match state:
        case Shared():
            require_running(state.attempt, delivery.key)
            try:
                uploading = _mask(state, delivery)
            except PeerError as error:
                return leave(state, AttemptAbortReason.BAD_SHARES, str(error), tools)
            start = StartUpload(state.offer, state.update, state.attempt, uploading.protection)
            return Transition(uploading, (start,))
        case Uploading() | Committed():
            dealt = _dealt(state, Kind.SHARE_DELIVERY)
            require_running(state.attempt, delivery.key)
            if chained(delivery_digest, dealt.t1, delivery.dealers) != dealt.t2:
                return leave(state, AttemptAbortReason.EQUIVOCATION, "a second delivery with other dealers", tools)
            return Transition(state)
        case _:
            return Transition(state)


def _mask(state: Shared, delivery: ShareDelivery) -> Uploading:
    offer, h0 = state.offer, attempt_digest(state.attempt)
    dealt = check_delivery(state, delivery)
    terms = participant_terms(
        secrets=state.secrets,
        index=offer.index,
        h0=h0,
        t2=dealt.t2,
        mask_publics={index: state.roster[index].mask_key for index in dealt.held},
    )
    masked = Masked(
        h0=h0,
        transcript=dealt.t2,
        masks=Masks(terms),
        encoding_seed=state.secrets.encoding_seed,
        scale_exponents=scale_exponents(offer, state.update, state.attempt.value.encoding),
    )
    return Uploading(offer, state.update, state.attempt, masked, dealt)


def _dealt(state: Uploading | Committed, kind: Kind) -> Dealt:
    if state.dealt is None:
        raise PhaseError(f"{Role.COORDINATOR} may not send {kind} in a plain attempt")
    return state.dealt


# --- the survivors: whose update is in the total ----------------------------------------------------------------------


def survivors_listed(state: RoundState, event: SurvivorsListed, tools: Tools) -> Transition:
    """Of a masked attempt; `machine` has the plain one."""
    listed = event.survivors
    match state:
        case Uploading() | Committed():
            dealt = _dealt(state, Kind.SURVIVOR_LIST)
            require_running(state.attempt, listed.key)
            try:
                survivors = check_survivors(state, dealt, listed)
            except PeerError as error:
                return leave(state, AttemptAbortReason.BAD_SURVIVORS, str(error), tools)
            total = Total(survivors.names, terms_of(state.offer.spec))
            other = None if event.repeats_allowed else how_another_total(total, event.opened_before)
            if other is not None:
                detail = (
                    f"a total {other} the one that this silo helped to open on this model: start from another initial "
                    "model, or with the same members; or, if somebody here accepts what the difference of the two "
                    f"totals tells of this silo: `consilo participant allow {state.offer.key.job}`"
                )
                return leave(state, AttemptAbortReason.REPEATED_TOTAL, detail, tools)
            return _confirm(state, dealt, survivors, tools)
        case Confirmed():
            require_running(state.attempt, listed.key)
            if chained(survivors_digest, state.dealt.t2, listed.commits) != state.t3:
                raise ConflictError(f"a second survivor list for attempt {listed.key}, with other content")
            return Transition(state, (_confirmed(state),))
        case Opened():
            names = names_of(state.offer, _known(state, [commit.signer for commit in listed.commits]))
            if listed.key != state.attempt.value.key or names != state.opening.names:
                raise ConflictError(f"another survivor list than the one that this silo opened {listed.key} for")
            return Transition(state)
        case _:
            return Transition(state)


def _confirm(state: Uploading | Committed, dealt: Dealt, survivors: Survivors, tools: Tools) -> Transition:
    offer = state.offer
    said = ConsistencySignature(attempt_digest(state.attempt), survivors.t3, offer.index)
    word = seal(said, signer=tools.signer, index=offer.index)
    confirmed = Confirmed(offer, state.update, state.attempt, dealt, survivors.t3, survivors.indexes, word)
    # Also after the acknowledgement: an upload that is still being tried is in the total already.
    return Transition(confirmed, (Stop(offer), _confirmed(confirmed)))


def _confirmed(state: Confirmed) -> Say:
    advance(Role.PARTICIPANT, phase_of(state), Kind.CONSISTENCY_SIGNATURE)
    return answer(state.attempt, AnswerKind.CONSISTENCY_SIGNATURE, state.word.envelope)


def _known(state: Opened, indexes: list[int]) -> list[int]:
    members = len(state.offer.spec.members)
    return [index for index in sorted(indexes) if 1 <= index <= members]


# --- the bundle: the total may be opened ------------------------------------------------------------------------------


def bundle_came(state: RoundState, event: BundleCame, tools: Tools) -> Transition:
    bundle = event.bundle
    advance(Role.COORDINATOR, phase_of(state), Kind.CONSISTENCY_BUNDLE)
    match state:
        case Confirmed():
            require_running(state.attempt, bundle.key)
            check_bundle(state, bundle)
            opened = _open(state, tools)
            other = None if event.repeats_allowed else how_another_total(opened.opening.total, event.opened_before)
            if other is not None:
                raise ConflictError(
                    f"{bundle.key} would open a total {other} the one that this silo helped to open on its model "
                    "since it was shown these survivors"
                )
            return Transition(opened, (RecordOpening(state.offer, opened.opening), _shares_opened(opened)))
        case Opened():
            require_running(state.attempt, bundle.key)
            return Transition(state, (_shares_opened(state),))
        case Fixed():
            raise PhaseError(f"{Role.COORDINATOR} may not send {Kind.CONSISTENCY_BUNDLE} in a plain attempt")
        case _:
            return Transition(state)


def _open(state: Confirmed, tools: Tools) -> Opened:
    """One kind of share of each dealer; everything else that this silo holds is forgotten with the state."""
    offer, held, survivors = state.offer, state.dealt.held, frozenset(state.survivors)
    advance(Role.PARTICIPANT, Phase.OPENING, Kind.UNMASK_SHARES)
    said = UnmaskShares(
        attempt=attempt_digest(state.attempt),
        survivors=state.t3,
        index=offer.index,
        self_shares=tuple((index, held[index].self_share.reveal()) for index in sorted(held) if index in survivors),
        mask_shares=tuple((index, held[index].mask_share.reveal()) for index in sorted(held) if index not in survivors),
    )
    reply = seal(said, signer=tools.signer, index=offer.index).envelope
    names = names_of(offer, state.survivors)
    opening = Opening(said.attempt, state.t3, names, terms_of(offer.spec), reply)
    return Opened(offer, state.update, state.attempt, opening)


def _shares_opened(state: Opened) -> Say:
    advance(Role.PARTICIPANT, phase_of(state), Kind.UNMASK_SHARES)
    return answer(state.attempt, AnswerKind.UNMASK_SHARES, state.opening.reply)
