"""What a participant does not believe once keys are exchanged: deliveries, lists of survivors, bundles.

Until it signed the survivors, a silo leaves the attempt and says by which check; afterwards it refuses the word and
stays. In both cases nothing is signed, and nothing opened, that the check forbids. PROTOCOL.md section 5.11.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from participant.round.checks import terms_of
from participant.round.effects import (
    AttemptAnnounced,
    BundleCame,
    DeliveryCame,
    SurvivorsListed,
    UploadAcknowledged,
)
from participant.round.phases import Total
from shared.errors import ConflictError, IdentityError, PeerError, PhaseError, WireError
from shared.ids import ParticipantId
from shared.protocol.messages import (
    AnswerKind,
    ConsistencySignature,
    DeliveredShare,
    ShareKeys,
    UploadCommit,
)
from shared.protocol.phases import Phase
from shared.reasons import AttemptAbortReason
from shared.secagg.sealing import shares_root
from shared.wire.sealed import reopen, seal
from tests.support.masked_cohort import ALL, ME, NOBODY, Cohort, changed, leaves
from tests.support.rounds import MEMBERS, key_of, make_masked_spec

LOW_ORDER = bytes(32)
NOT_CANONICAL = (2**255 - 19 + 9).to_bytes(32, "little")
TOP_BIT = bytes(31) + b"\x80"


# --- row 4: the delivery ----------------------------------------------------------------------------------------------


def dealt(**fields: Any) -> Callable[[Cohort], DeliveryCame]:
    def make(cohort: Cohort) -> DeliveryCame:
        said = [*cohort.said(ShareKeys)]
        said[1] = cohort.resealed(ShareKeys, 2, **fields)
        return changed(cohort.delivery(), dealers=tuple(said))

    return make


def with_share(make: Callable[[Cohort], DeliveredShare]) -> Callable[[Cohort], DeliveryCame]:
    """What member 2 dealt is something else."""

    def delivery(cohort: Cohort) -> DeliveryCame:
        honest = cohort.delivery()
        shares = (honest.delivery.shares[0], make(cohort), *honest.delivery.shares[2:])
        return changed(honest, shares=shares)

    return delivery


def altered(**fields: Any) -> Callable[[Cohort], DeliveredShare]:
    def make(cohort: Cohort) -> DeliveredShare:
        honest = cohort.share(2)
        return replace(honest, share=replace(honest.share, **fields))

    return make


def of_another_attempt(cohort: Cohort) -> DeliveryCame:
    """Dealt in an attempt with other keys: the words are of that attempt."""
    before = cohort.delivery()
    return changed(before, dealers=tuple(cohort.resealed(ShareKeys, index, attempt=NOBODY) for index in ALL))


DELIVERIES: dict[str, tuple[Callable[[Cohort], DeliveryCame], str]] = {
    "below the threshold": (lambda cohort: cohort.delivery(1, 2), "2 members dealt shares, expected 3"),
    "without mine": (lambda cohort: cohort.delivery(2, 3, 4), "without this participant's own word"),
    "mine altered": (
        lambda cohort: changed(
            cohort.delivery(),
            dealers=(cohort.resealed(ShareKeys, 1, self_commitment=NOBODY), *cohort.said(ShareKeys)[1:]),
        ),
        "another word of this participant",
    ),
    "one dealer twice": (lambda cohort: cohort.delivery(1, 2, 3, 3), "two words of member 3"),
    "another attempt": (dealt(attempt=NOBODY), "about another attempt"),
    "everybody of another attempt": (of_another_attempt, "another word of this participant"),
    "another roster": (dealt(roster=NOBODY), "for another roster"),
    "index is not the signer": (dealt(index=3), "says it is of member 3"),
    "signed by a stranger": (
        lambda cohort: changed(
            cohort.delivery(),
            dealers=(
                cohort.said(ShareKeys)[0],
                seal(reopen(ShareKeys, cohort.said(ShareKeys)[1]).value, signer=key_of("mallory"), index=2).envelope,
                *cohort.said(ShareKeys)[2:],
            ),
        ),
        "not made by the expected key",
    ),
    "a share too few": (
        lambda cohort: changed(cohort.delivery(), shares=cohort.delivery().delivery.shares[:3]),
        "other shares than one",
    ),
    "a share too many": (
        lambda cohort: changed(cohort.delivery(1, 2, 3), shares=cohort.delivery().delivery.shares),
        "other shares than one",
    ),
    "two shares of one dealer": (with_share(lambda cohort: cohort.share(3)), "other shares than one"),
    "a share for another holder": (with_share(lambda cohort: cohort.share(2, to=3)), "is for holder 3"),
    "a share for another holder under my name": (
        with_share(lambda cohort: replace(cohort.share(2), share=replace(cohort.share(2, to=3).share, holder=ME))),
        "Merkle path does not fit",
    ),
    "a path of another holder": (
        with_share(lambda cohort: replace(cohort.share(2), path=cohort.share(2, to=3).path)), "Merkle path",
    ),
    "what another dealer dealt": (
        with_share(lambda cohort: replace(cohort.share(3), dealer=2)), "Merkle path does not fit",
    ),
    "another ciphertext": (with_share(altered(ciphertext=bytes(160))), "Merkle path does not fit"),
    "another commitment": (with_share(altered(self_commitment=NOBODY)), "Merkle path does not fit"),
}  # fmt: skip


@pytest.mark.parametrize("case", DELIVERIES)
def test_a_delivery_that_does_not_hold_ends_the_attempt(case: str) -> None:
    make, why = DELIVERIES[case]
    cohort = Cohort().to(Phase.SHARING)
    leaves(cohort, make(cohort), AttemptAbortReason.BAD_SHARES, why)


def test_a_dealer_that_is_not_on_the_roster_ends_the_attempt() -> None:
    cohort = Cohort().to(Phase.ADVERTISING)
    cohort.all_rostered()
    full = cohort.delivery()
    cohort.me.hear(AttemptAnnounced(cohort.start(2)))
    narrow = Cohort().to(Phase.ADVERTISING)
    for index in (1, 3, 4):
        narrow.silos[index].hear(narrow.roster(1, 3, 4))
    event = changed(narrow.delivery(1, 3, 4), dealers=(*narrow.said(ShareKeys, [1, 3, 4]), full.delivery.dealers[1]))
    leaves(narrow, event, AttemptAbortReason.BAD_SHARES, "without having advertised keys")


def test_a_dealing_that_is_sealed_wrongly_ends_the_attempt() -> None:
    """A dealer that signs a root over what does not open: its own signature holds, the share does not."""
    cohort = Cohort().to(Phase.SHARING)
    silo = cohort.silos[2]
    said = silo.answers[AnswerKind.SHARE_KEYS]
    bad = tuple(replace(share, ciphertext=bytes(len(share.ciphertext))) for share in said.shares)
    silo.answers[AnswerKind.SHARE_KEYS] = replace(said, shares=bad)
    silo.answers[AnswerKind.SHARE_KEYS] = replace(
        silo.answers[AnswerKind.SHARE_KEYS], envelope=cohort.resealed(ShareKeys, 2, shares_root=shares_root(bad))
    )
    leaves(cohort, cohort.delivery(), AttemptAbortReason.BAD_SHARES, "does not decrypt")


@pytest.mark.parametrize("phase", [Phase.UPLOADING, Phase.COMMITTED])
def test_a_second_delivery_with_other_dealers_is_equivocation(phase: Phase) -> None:
    cohort = Cohort().to(phase)
    leaves(cohort, cohort.delivery(1, 2, 3), AttemptAbortReason.EQUIVOCATION, "second delivery")


# --- row 6: the survivors ---------------------------------------------------------------------------------------------


def listed(member: int, **fields: Any) -> Callable[[Cohort], SurvivorsListed]:
    def make(cohort: Cohort) -> SurvivorsListed:
        commits = dict(cohort.commits)
        commits[member] = cohort.resealed(UploadCommit, member, **fields)
        return changed(cohort.listing(), commits=tuple(commits.values()))

    return make


LISTS: dict[str, tuple[Callable[[Cohort], SurvivorsListed], str]] = {
    "below the threshold": (lambda cohort: cohort.listing(1, 2), "over 2 members, expected 3"),
    "without mine": (lambda cohort: cohort.listing(2, 3, 4), "without this participant's commitment"),
    "one survivor twice": (lambda cohort: cohort.listing(1, 2, 3, 3), "two words of member 3"),
    "another attempt": (listed(2, attempt=NOBODY), "about another attempt"),
    "mine of another attempt": (listed(1, attempt=NOBODY), "about another attempt"),
    "other dealers": (listed(2, transcript=NOBODY), "masked its update for other dealers"),
    "mine for other dealers": (listed(1, transcript=NOBODY), "masked its update for other dealers"),
    "index is not the signer": (listed(2, index=3), "says it is of member 3"),
    "invented": (
        lambda cohort: changed(
            cohort.listing(),
            commits=(
                cohort.commits[1],
                seal(reopen(UploadCommit, cohort.commits[2]).value, signer=key_of("mallory"), index=2).envelope,
                cohort.commits[3],
            ),
        ),
        "not made by the expected key",
    ),
    "mine invented": (
        lambda cohort: changed(
            cohort.listing(),
            commits=(
                seal(reopen(UploadCommit, cohort.commits[1]).value, signer=key_of("mallory"), index=1).envelope,
                *[cohort.commits[index] for index in (2, 3, 4)],
            ),
        ),
        "not made by the expected key",
    ),
}


@pytest.mark.parametrize("phase", [Phase.UPLOADING, Phase.COMMITTED])
@pytest.mark.parametrize("case", LISTS)
def test_a_list_of_survivors_that_does_not_hold_ends_the_attempt(case: str, phase: Phase) -> None:
    make, why = LISTS[case]
    cohort = Cohort().to(phase)
    leaves(cohort, make(cohort), AttemptAbortReason.BAD_SURVIVORS, why)


def test_a_list_with_another_commitment_of_mine_ends_the_attempt() -> None:
    cohort = Cohort().to(Phase.COMMITTED)
    other = listed(1, update=NOBODY)(cohort)
    leaves(cohort, other, AttemptAbortReason.BAD_SURVIVORS, "another word of this participant")


def test_a_survivor_that_dealt_nothing_ends_the_attempt() -> None:
    cohort = Cohort().to(Phase.SHARING)
    for index in (1, 2, 3):
        cohort.silos[index].hear(cohort.delivery(1, 2, 3, to=index))
        cohort.commit(index)
    cohort.silos[4].hear(cohort.delivery(to=4))
    cohort.commit(4)
    mine = reopen(UploadCommit, cohort.commits[ME]).value.transcript
    cohort.commits[4] = cohort.resealed(UploadCommit, 4, transcript=mine)
    leaves(cohort, cohort.listing(), AttemptAbortReason.BAD_SURVIVORS, "without having dealt shares")


def test_a_floor_above_the_threshold_counts() -> None:
    cohort = Cohort(min_survivors=4, quorum=4).to(Phase.COMMITTED)
    leaves(cohort, cohort.listing(1, 2, 3), AttemptAbortReason.BAD_SURVIVORS, "over 3 members, expected 4")


def total(*members: ParticipantId, **masking: Any) -> Total:
    """That this silo helped to open on the model before."""
    return Total(members, terms_of(make_masked_spec(masking=masking)))


OTHERWISE: dict[str, dict[str, Any]] = {
    "another cap": {"max_weight": 260.0},
    "equal weights": {"weights": "equal"},
    "another bound": {"metric_bound": 1.0},
    "another encoding": {"encoding": "u64"},
    "another assumption": {"max_colluding": 2},
}


def test_another_total_on_the_same_model_is_not_signed() -> None:
    cohort = Cohort().to(Phase.COMMITTED)
    repeated = cohort.listing(opened_before=[total(*MEMBERS), total(*MEMBERS[:3])])
    leaves(cohort, repeated, AttemptAbortReason.REPEATED_TOTAL, "over other members")


@pytest.mark.parametrize("masking", OTHERWISE.values(), ids=OTHERWISE.keys())
def test_a_total_over_the_same_members_that_counts_them_otherwise_is_not_signed(masking: dict[str, Any]) -> None:
    """Of two caps on weights the difference is the update of whoever is above the lower one."""
    cohort = Cohort().to(Phase.COMMITTED)
    repeated = cohort.listing(opened_before=[total(*MEMBERS, **masking)])
    leaves(cohort, repeated, AttemptAbortReason.REPEATED_TOTAL, "counts the same members otherwise")
    cohort, since = Cohort().to(Phase.FIXED), [total(*MEMBERS, **masking)]
    cohort.me.refuses(cohort.bundle(opened_before=since), ConflictError, "counts the same members otherwise")


def test_what_a_job_measures_is_among_the_terms_of_its_totals() -> None:
    spec = make_masked_spec()
    assert terms_of(spec) != terms_of(spec.model_copy(update={"metrics": ("accuracy",)}))
    assert terms_of(spec) == terms_of(spec.model_copy(update={"name": "lung", "seed": 7, "rounds": 9}))


def test_the_same_total_again_or_one_that_a_person_allowed_is_signed() -> None:
    for before, allowed in (
        (total(*MEMBERS), False),
        (total(*MEMBERS[:3]), True),
        (total(*MEMBERS, max_weight=260.0), True),
    ):
        cohort = Cohort().to(Phase.COMMITTED)
        event = cohort.listing(opened_before=[before], repeats_allowed=allowed)
        assert cohort.me.hear(event) == ["stop", "say consistency_signature"]


def test_one_list_is_signed_for_an_attempt() -> None:
    cohort = Cohort().to(Phase.FIXED)
    cohort.me.refuses(cohort.listing(1, 2, 3), ConflictError, "second survivor list")
    cohort.me.refuses(cohort.listing(1, 2, 3, 3), ConflictError, "second survivor list")


# --- row 8: the bundle ------------------------------------------------------------------------------------------------


def bundled(**fields: Any) -> Callable[[Cohort], BundleCame]:
    def make(cohort: Cohort) -> BundleCame:
        words = [*cohort.said(ConsistencySignature)]
        words[1] = cohort.resealed(ConsistencySignature, 2, **fields)
        return changed(cohort.bundle(), signatures=tuple(words))

    return make


def by_a_stranger(cohort: Cohort) -> BundleCame:
    words = [*cohort.said(ConsistencySignature)]
    words[1] = seal(reopen(ConsistencySignature, words[1]).value, signer=key_of("mallory"), index=2).envelope
    return changed(cohort.bundle(), signatures=tuple(words))


BUNDLES: dict[str, tuple[Callable[[Cohort], BundleCame], type[PeerError], str]] = {
    "below the threshold": (lambda cohort: cohort.bundle(1, 2), ConflictError, "2 members signed"),
    "one signature twice": (lambda cohort: cohort.bundle(1, 2, 2), ConflictError, "two words of member 2"),
    "other survivors": (bundled(survivors=NOBODY), ConflictError, "signed other survivors"),
    "another attempt": (bundled(attempt=NOBODY), ConflictError, "about another attempt"),
    "index is not the signer": (bundled(index=3), WireError, "says it is of member 3"),
    "signed by a stranger": (by_a_stranger, IdentityError, "not made by the expected key"),
}


@pytest.mark.parametrize("case", BUNDLES)
def test_a_bundle_that_does_not_hold_is_refused_and_opens_nothing(case: str) -> None:
    make, error, why = BUNDLES[case]
    cohort = Cohort().to(Phase.FIXED)
    cohort.me.refuses(make(cohort), error, why)
    assert cohort.me.hear(cohort.bundle()) == ["record opening", "say unmask_shares"], "and an honest one is followed"


def test_a_total_that_was_opened_since_the_list_was_signed_is_the_only_one() -> None:
    """Two jobs on one model: a coordinator shows both lists before either bundle."""
    cohort, since = Cohort().to(Phase.FIXED), [total(*MEMBERS[:3])]
    cohort.me.refuses(cohort.bundle(opened_before=since), ConflictError, "over other members")
    allowed = cohort.bundle(opened_before=since, repeats_allowed=True)
    assert cohort.me.hear(allowed) == ["record opening", "say unmask_shares"]


def test_a_signature_of_one_that_dropped_counts_for_nothing() -> None:
    cohort = Cohort().to(Phase.COMMITTED)
    for index in ALL:
        cohort.silos[index].hear(cohort.listing(1, 2, 3) if index != 4 else cohort.listing())
    stray = cohort.resealed(ConsistencySignature, 4, survivors=_t3(cohort))
    event = changed(cohort.bundle(1, 2), signatures=(*cohort.said(ConsistencySignature, [1, 2]), stray))
    cohort.me.refuses(event, ConflictError, "but is none of them")


def _t3(cohort: Cohort) -> Any:
    return reopen(ConsistencySignature, cohort.said(ConsistencySignature, [1])[0]).value.survivors


def test_no_shares_are_opened_before_the_survivors_are_signed() -> None:
    honest = Cohort().to(Phase.FIXED)
    for phase in (Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED):
        cohort = Cohort().to(phase)
        cohort.me.refuses(honest.bundle(), PhaseError, "consistency_bundle")


def test_one_that_left_after_its_upload_gives_no_shares() -> None:
    cohort = Cohort().to(Phase.COMMITTED)
    cohort.me.hear(cohort.delivery(1, 2, 3))
    assert cohort.me.is_in(Phase.READY)
    cohort.me.ignores(cohort.listing())
    for index in (2, 3, 4):
        cohort.silos[index].hear(cohort.listing())
    cohort.me.ignores(cohort.bundle(2, 3, 4))
    assert AnswerKind.UNMASK_SHARES not in cohort.me.answers


def test_an_acknowledgement_of_an_attempt_that_was_left_changes_nothing() -> None:
    cohort = Cohort().to(Phase.UPLOADING)
    cohort.me.hear(cohort.delivery(1, 2, 3))
    cohort.me.ignores(UploadAcknowledged(NOBODY, None))
