"""A masked round at the participant: the good way, what is said again, and what a restart and a result mean."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from participant.round.effects import (
    AttemptAnnounced,
    PassedOver,
    PlanRepeated,
    RecordEnd,
    Say,
    StartUpload,
    StopJob,
    UploadAcknowledged,
    UploadImpossible,
    WorkDone,
)
from participant.round.machine import resume
from participant.round.phases import Advertised, Confirmed, Masked, Opened, Ready, Shared, Uploading
from shared.errors import ConflictError, PhaseError
from shared.protocol.messages import AnswerKind, ShareKeys, UnmaskShares, attempt_digest
from shared.protocol.phases import Phase
from shared.reasons import AttemptAbortReason, DropReason, Purpose
from shared.secagg.masking import Masks
from shared.secagg.reconstruct import reconstruct_pair_roots, reconstruct_self_root
from shared.update import RANGE_NONE, Encoding
from shared.wire.sealed import reopen
from tests.support.masked_cohort import ALL, CELLS, ME, NOBODY, Cohort, MaskedSilo
from tests.support.participant_transcript import Silo
from tests.support.rounds import spooled

IN_ATTEMPT = [Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED]
AFTER_READY = [Phase.READY, *IN_ATTEMPT, Phase.FIXED, Phase.OPENING]


# --- the good round ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_round_in_which_all_goes_well(purpose: Purpose) -> None:
    cohort = Cohort(purpose=purpose)
    me = cohort.me
    assert me.opening == ["record plan", "say consent", "start work"]
    assert me.hear(WorkDone(cohort.update)) == ["record update", "say ready"]
    for silo in list(cohort.silos.values())[1:]:
        silo.hear(WorkDone(cohort.update))
    assert me.announced_to(cohort) == ["record attempt 1", "say advertise_keys"], "on record before it is said"
    for silo in list(cohort.silos.values())[1:]:
        silo.announced_to(cohort)
    cohort.all_rostered()
    assert me.lines == ["say share_keys"]
    cohort.all_delivered()
    assert me.lines == ["start upload 1"]
    cohort.all_acknowledged()
    assert me.lines == []
    cohort.all_listed()
    assert me.lines == ["stop", "say consistency_signature"]
    assert me.hear(cohort.bundle(1, 2, 4)) == ["record opening", "say unmask_shares"], "on record before it is said"
    t3 = _opening(me).survivors
    assert me.hear(cohort.result(transcript=t3)) == ["stop", "record end, survived", "erase"]


@pytest.mark.parametrize("dropped", [None, 1, 3])
def test_what_silos_open_takes_the_masks_off_the_sum_and_off_nothing_else(dropped: int | None) -> None:
    cohort = Cohort().to(Phase.COMMITTED)
    words = {index: np.arange(50, dtype="<u8") + 1000 * index for index in ALL}
    survivors = tuple(index for index in ALL if index != dropped)
    total = np.zeros(50, "<u8")
    t2 = NOBODY
    for index in ALL:
        state = cohort.silos[index].state
        masked = state.protection  # type: ignore[union-attr] # Committed
        assert isinstance(masked, Masked)
        t2 = masked.transcript
        upload = words[index].copy()
        masked.masks.apply(upload, section=0, first_byte=0)
        assert not np.array_equal(upload, words[index])
        if index in survivors:
            total += upload
    publics = {index: cohort.advert(index).mask_key for index in ALL}
    shared = {index: reopen(ShareKeys, cohort.said(ShareKeys, [index])[0]).value for index in ALL}
    for index in survivors:
        cohort.silos[index].hear(cohort.listing(*survivors))
    for index in survivors:
        cohort.silos[index].hear(cohort.bundle(*survivors))
    replies = {index: reopen(UnmaskShares, cohort.said(UnmaskShares, [index])[0]).value for index in survivors}
    for reply in replies.values():
        assert [dealer for dealer, _ in reply.self_shares] == list(survivors)
        assert [dealer for dealer, _ in reply.mask_shares] == ([] if dropped is None else [dropped])
    held = {index: (dict(reply.self_shares), dict(reply.mask_shares)) for index, reply in replies.items()}
    h0, threshold = attempt_digest(cohort.start()), cohort.spec.threshold
    terms = [
        (
            reconstruct_self_root(
                shares={holder: shares[0][index] for holder, shares in held.items()},
                threshold=threshold,
                t1=shared[index].roster,
                t2=t2,
                index=index,
                commitment=shared[index].self_commitment,
            ),
            1,
        )
        for index in survivors
    ]
    if dropped is not None:
        pairs = reconstruct_pair_roots(
            shares={holder: shares[1][dropped] for holder, shares in held.items()},
            threshold=threshold,
            h0=h0,
            t2=t2,
            dropped=dropped,
            mask_public=publics[dropped],
            survivors={index: publics[index] for index in survivors},
        )
        terms.extend(pairs.values())
    Masks(terms).remove(total, section=0, first_byte=0)
    assert np.array_equal(total, sum(words[index] for index in survivors))


def test_the_list_may_overtake_the_acknowledgement() -> None:
    cohort = Cohort().to(Phase.UPLOADING)
    assert cohort.me.hear(cohort.listing()) == ["stop", "say consistency_signature"]
    cohort.me.ignores(UploadAcknowledged(attempt_digest(cohort.start()), cohort.commits[ME]))


def test_a_commitment_that_the_coordinator_had_before_is_known_by_its_signature() -> None:
    cohort = Cohort().to(Phase.UPLOADING)
    cohort.me.hear(UploadAcknowledged(attempt_digest(cohort.start()), None))
    assert cohort.me.hear(cohort.listing()) == ["stop", "say consistency_signature"]


def test_every_attempt_has_secrets_of_its_own() -> None:
    cohort = Cohort().to(Phase.ADVERTISING)
    first = cohort.me.state
    assert isinstance(first, Advertised)
    cohort.all_announced(2)
    second = cohort.me.state
    assert isinstance(second, Advertised)
    for name in ("self_seed", "mask_seed", "share_private", "encoding_seed"):
        assert getattr(first.secrets, name) != getattr(second.secrets, name)
    assert first.advert.value.nonce != second.advert.value.nonce


@pytest.mark.parametrize("phase", IN_ATTEMPT)
def test_a_higher_attempt_begins_with_new_keys(phase: Phase) -> None:
    cohort = Cohort().to(phase)
    stop = ["stop"] if phase is Phase.UPLOADING else []
    assert cohort.me.hear(AttemptAnnounced(cohort.start(2))) == [*stop, "record attempt 2", "say advertise_keys"]
    assert cohort.me.is_in(Phase.ADVERTISING)


def test_a_higher_attempt_may_come_after_the_signature_but_not_after_the_opening() -> None:
    cohort = Cohort().to(Phase.FIXED)
    assert cohort.me.hear(AttemptAnnounced(cohort.start(2))) == ["record attempt 2", "say advertise_keys"]
    opened = Cohort().to(Phase.OPENING)
    opened.me.refuses(AttemptAnnounced(opened.start(2)), ConflictError, "after this silo helped to open")


# --- again ------------------------------------------------------------------------------------------------------------


def test_what_is_asked_again_is_answered_from_store() -> None:
    cohort = Cohort().to(Phase.ADVERTISING)
    me = cohort.me
    advert = me.answers[AnswerKind.ADVERTISE_KEYS]
    assert me.hear(AttemptAnnounced(cohort.start())) == ["say advertise_keys"]
    cohort.to(Phase.SHARING)
    word = me.answers[AnswerKind.SHARE_KEYS]
    assert me.hear(AttemptAnnounced(cohort.start())) == ["say advertise_keys"]
    assert me.hear(cohort.roster(4, 3, 2, 1)) == ["say share_keys"], "in any order"
    assert (me.answers[AnswerKind.ADVERTISE_KEYS], me.answers[AnswerKind.SHARE_KEYS]) == (advert, word)
    cohort.to(Phase.UPLOADING)
    me.ignores(AttemptAnnounced(cohort.start()))
    me.ignores(cohort.delivery())
    cohort.to(Phase.FIXED)
    signature = me.answers[AnswerKind.CONSISTENCY_SIGNATURE]
    assert me.hear(cohort.listing(4, 3, 2, 1)) == ["say consistency_signature"]
    assert me.answers[AnswerKind.CONSISTENCY_SIGNATURE] == signature
    me.ignores(AttemptAnnounced(cohort.start()))
    cohort.to(Phase.OPENING)
    shares = me.answers[AnswerKind.UNMASK_SHARES]
    assert me.hear(cohort.bundle(1, 2, 3)) == ["say unmask_shares"], "another valid bundle is not equivocation"
    assert me.hear(AttemptAnnounced(cohort.start())) == ["say unmask_shares"]
    me.ignores(cohort.listing())
    assert me.answers[AnswerKind.UNMASK_SHARES] == shares


@pytest.mark.parametrize("phase", AFTER_READY)
def test_asked_again_for_the_round_it_says_what_still_matters(phase: Phase) -> None:
    assert Cohort().to(phase).me.hear(PlanRepeated()) == ["say consent", "say ready"]


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.READY])
def test_exchanges_of_an_attempt_that_it_is_not_in_change_nothing(phase: Phase) -> None:
    cohort = Cohort().to(Phase.FIXED)
    late = Cohort().to(phase)
    for event in (cohort.roster(), cohort.delivery(), cohort.listing(), cohort.bundle()):
        late.me.ignores(event)


def test_an_exchange_of_another_attempt_is_refused_and_says_nothing_about_this_one() -> None:
    for phase, said in (
        (Phase.ADVERTISING, Cohort.roster),
        (Phase.SHARING, Cohort.roster),
        (Phase.SHARING, Cohort.delivery),
        (Phase.UPLOADING, Cohort.delivery),
        (Phase.UPLOADING, Cohort.listing),
        (Phase.COMMITTED, Cohort.listing),
        (Phase.FIXED, Cohort.listing),
        (Phase.FIXED, Cohort.bundle),
        (Phase.OPENING, Cohort.listing),
        (Phase.OPENING, Cohort.bundle),
    ):
        cohort = Cohort().to(phase)
        cohort.me.refuses(said(cohort, number=2), ConflictError)


def test_a_plain_round_has_no_exchanges() -> None:
    cohort = Cohort().to(Phase.FIXED)
    Silo().to(Phase.UPLOADING).refuses(cohort.delivery(), PhaseError, "in a plain attempt")
    Silo().to(Phase.FIXED).refuses(cohort.bundle(), PhaseError, "in a plain attempt")


# --- the update -------------------------------------------------------------------------------------------------------


def test_the_update_is_masked_under_what_was_exchanged() -> None:
    cohort = Cohort(number=2, after=CELLS).to(Phase.UPLOADING)
    effects = cohort.me.transition.effects
    assert isinstance(effects[0], StartUpload)
    masked = effects[0].protection
    assert isinstance(masked, Masked)
    assert masked.h0 == attempt_digest(cohort.start())
    assert masked.scale_exponents == (31 - 3 - (3 + 2),), "32 bits, 4 members, and the range of the last round"


def test_a_chunk_that_would_differ_ends_the_attempt_and_nothing_else() -> None:
    cohort = Cohort().to(Phase.UPLOADING)
    reason = AttemptAbortReason.RESEND_DIFFERS
    cohort.me.ignores(UploadImpossible(NOBODY, reason))
    differs = UploadImpossible(attempt_digest(cohort.start()), reason)
    assert cohort.me.hear(differs) == ["stop", "alarm resend_differs", "say abort: resend_differs"]
    assert cohort.me.is_in(Phase.READY)


def test_a_spool_that_cannot_be_sent_ends_the_round() -> None:
    cohort = Cohort().to(Phase.UPLOADING)
    lost = UploadImpossible(attempt_digest(cohort.start()), DropReason.OUT_OF_RANGE)
    assert cohort.me.hear(lost) == ["stop", "record end", "say withdraw: out_of_range", "erase"]


def test_an_update_that_does_not_fit_is_ready_and_says_so() -> None:
    wide = spooled(cells=(9,), fits=False)
    cohort = Cohort(number=2, after=CELLS, update=wide).to(Phase.READY)
    assert _fits(cohort.me) is False
    first = Cohort(update=wide)
    assert first.me.hear(WorkDone(wide))[2:] == ["say withdraw: out_of_range", "erase"], "there is no wider encoding"


def test_after_three_misses_the_answer_is_always_no() -> None:
    assert _fits(Cohort(number=2, after=CELLS, misses=2).to(Phase.READY).me) is True
    assert _fits(Cohort(number=2, after=CELLS, misses=3).to(Phase.READY).me) is False


# --- restart ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [*IN_ATTEMPT, Phase.FIXED])
def test_after_a_restart_the_attempt_is_gone_and_a_higher_one_is_taken_part_in(phase: Phase) -> None:
    cohort = Cohort().to(phase)
    again = MaskedSilo(cohort.me.offer, cohort.me.name, resume(cohort.me.offer, cohort.update, cohort.start(), None))
    assert (again.opening, again.phase) == ([], Phase.READY)
    assert again.hear(PlanRepeated()) == ["say consent", "say ready"]
    assert again.hear(AttemptAnnounced(cohort.start())) == ["say abort: gone"], "and no alarm: it is our own doing"
    assert again.hear(AttemptAnnounced(cohort.start())) == ["say abort: gone"]
    again.ignores(cohort.listing() if cohort.commits else cohort.roster())
    assert again.hear(AttemptAnnounced(cohort.start(2))) == ["record attempt 2", "say advertise_keys"]


def test_after_a_restart_what_was_opened_is_said_again_byte_for_byte_and_nothing_else() -> None:
    cohort = Cohort().to(Phase.OPENING)
    said = cohort.me.answers[AnswerKind.UNMASK_SHARES]
    opening = _opening(cohort.me)
    offer = cohort.me.offer
    again = MaskedSilo(offer, cohort.me.name, resume(offer, cohort.update, cohort.start(), opening))
    assert (again.opening, again.phase) == ([], Phase.OPENING)
    assert again.hear(AttemptAnnounced(cohort.start())) == ["say unmask_shares"]
    assert again.answers[AnswerKind.UNMASK_SHARES] == said
    assert again.hear(cohort.bundle(2, 3, 4)) == ["say unmask_shares"]
    again.ignores(cohort.listing())
    again.refuses(cohort.listing(1, 2, 3), ConflictError, "another survivor list")
    again.refuses(AttemptAnnounced(cohort.start(2)), ConflictError, "after this silo helped to open")


# --- the result -------------------------------------------------------------------------------------------------------


def test_a_verified_result_is_on_record() -> None:
    cohort = Cohort().to(Phase.OPENING)
    result = cohort.result(transcript=_opening(cohort.me).survivors)
    cohort.me.hear(result)
    ended = next(effect for effect in cohort.me.transition.effects if isinstance(effect, RecordEnd))
    assert ended.verified == result.result


def test_the_total_is_over_the_survivors_that_were_shown() -> None:
    for phase in (Phase.FIXED, Phase.OPENING):
        cohort = Cohort().to(phase)
        state = cohort.me.state
        assert isinstance(state, Confirmed | Opened)
        t3 = state.t3 if isinstance(state, Confirmed) else state.opening.survivors
        cohort.me.refuses(cohort.result(), ConflictError, "other survivors")
        cohort.me.refuses(cohort.result(1, 2, 3, transcript=t3), ConflictError, "other survivors")
        cohort.me.refuses(cohort.result(transcript=t3, number=2), ConflictError, "another attempt")
        cohort.me.hear(cohort.result(transcript=t3))


def test_a_result_without_this_silo_of_an_attempt_that_it_never_heard_of() -> None:
    cohort = Cohort().to(Phase.FIXED)
    assert cohort.me.hear(cohort.result(2, 3, 4, number=2)) == ["stop", "record end", "erase"]
    opened = Cohort().to(Phase.OPENING)
    opened.me.refuses(opened.result(2, 3, 4, number=2), ConflictError, "than this silo helped to open")


def test_an_update_that_was_committed_before_a_restart_may_be_counted() -> None:
    cohort = Cohort().to(Phase.COMMITTED)
    offer = cohort.me.offer
    again = MaskedSilo(offer, cohort.me.name, resume(offer, cohort.update, cohort.start(), None))
    again.refuses(cohort.result(number=2), ConflictError, "never sent")
    assert again.hear(cohort.result()) == ["stop", "record end, survived", "erase"]


@pytest.mark.parametrize("phase", [Phase.READY, Phase.ADVERTISING, Phase.SHARING])
def test_what_was_never_sent_is_not_counted(phase: Phase) -> None:
    cohort = Cohort().to(phase)
    cohort.me.refuses(cohort.result(), ConflictError, "never sent")


@pytest.mark.parametrize(
    ("top_cells", "survivors", "wrong"),
    [
        ((CELLS[0] - 1,), ALL, "below this silo's own"),
        ((RANGE_NONE,), ALL, "below this silo's own"),
        ((), ALL, "of 0 tensors, expected 1"),
        ((CELLS[0], 1), ALL, "of 2 tensors, expected 1"),
        ((), (2, 3, 4), "of 0 tensors, expected 1"),
    ],
)
def test_a_range_that_cannot_be_true_ends_the_job_for_this_silo(
    top_cells: tuple[int, ...], survivors: tuple[int, ...], wrong: str
) -> None:
    cohort = Cohort().to(Phase.COMMITTED)
    lines = cohort.me.hear(cohort.result(*survivors, top_cells=top_cells))
    assert lines == ["stop", "alarm range_understated", "stop job", "record end", "erase"]
    stopped = next(effect for effect in cohort.me.transition.effects if isinstance(effect, StopJob))
    assert wrong in stopped.reason


def test_a_range_above_ones_own_or_without_ones_update_is_believed() -> None:
    for survivors, top in ((ALL, CELLS[0] + 1), ((2, 3, 4), CELLS[0] - 1)):
        cohort = Cohort().to(Phase.COMMITTED)
        assert "stop job" not in cohort.me.hear(cohort.result(*survivors, top_cells=(top,)))


@pytest.mark.parametrize("phase", AFTER_READY)
def test_a_round_may_end_in_every_phase(phase: Phase) -> None:
    for ending in (PassedOver(), Cohort().me.aborted()):
        silo = Cohort().to(phase).me
        assert silo.hear(ending) == ["stop", "record end", "erase"]


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", AFTER_READY)
def test_no_state_and_no_effect_prints_a_secret(phase: Phase) -> None:
    cohort = Cohort()
    secrets: set[bytes] = set()
    for reached in [*AFTER_READY[: AFTER_READY.index(phase)], phase]:
        cohort.to(reached)
        secrets |= _secrets_of(cohort.me.state)
    effects = [effect for effect in cohort.me.transition.effects if not _is_said(effect)]
    shown = repr(cohort.me.state) + repr(effects)
    for secret in secrets:
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert phase is Phase.READY or secrets


def test_what_has_been_opened_leaves_no_secret_behind() -> None:
    cohort = Cohort().to(Phase.OPENING)
    assert _secrets_of(cohort.me.state) == set()
    assert re.search("Secret|Masks|OpenedShare", repr(cohort.me.state)) is None


def _is_said(effect: object) -> bool:
    """It is on its way to the coordinator, shares that are opened among it."""
    return isinstance(effect, Say)


def _secrets_of(state: Any) -> set[bytes]:
    found: set[bytes] = set()
    if isinstance(state, Advertised | Shared):
        seeds = state.secrets
        found |= {
            secret.reveal() for secret in (seeds.self_seed, seeds.mask_seed, seeds.share_private, seeds.encoding_seed)
        }
    if isinstance(state, Uploading) and isinstance(state.protection, Masked):
        found.add(state.protection.encoding_seed.reveal())
    dealt = getattr(state, "dealt", None)
    if dealt is not None:
        for held in dealt.held.values():
            found |= {held.self_share.reveal(), held.mask_share.reveal()}
    return found


# --- small words ------------------------------------------------------------------------------------------------------


def _opening(silo: MaskedSilo) -> Any:
    assert isinstance(silo.state, Opened)
    return silo.state.opening


def _fits(silo: MaskedSilo) -> bool:
    assert isinstance(silo.state, Ready)
    return any(getattr(getattr(effect, "message", None), "fits", False) for effect in silo.transition.effects)


def test_the_encoding_of_a_round_follows_from_the_last_result() -> None:
    assert Cohort().me.offer.encoding is Encoding.U64
    assert Cohort(number=2, after=CELLS).me.offer.encoding is Encoding.U32
    wide = Cohort(number=2, after=CELLS, masking={"encoding": "u64"})
    assert wide.me.offer.encoding is Encoding.U64
