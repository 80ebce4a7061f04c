"""What the coordinator's machine refuses in a masked attempt: it raises, changes nothing, and the round goes on without
the liar, or with what the liar said honestly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from coordinator.replies import open_upload_commit
from coordinator.round.effects import Commit, Event, Replied, Revoked, UploadOffered
from coordinator.round.machine import step
from coordinator.round.phases import Unmasking, Uploading
from shared.errors import ConflictError, IdentityError, LateError, PeerError, PhaseError, WireError
from shared.ids import AttemptKey, AttemptNumber, Digest, ParticipantId
from shared.job import MaskingSpec
from shared.protocol.messages import (
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    Checkpoint,
    CheckpointKind,
    ConsistencySignature,
    Envelope,
    ShareKeys,
    UnmaskShares,
    result_digest,
)
from shared.reasons import AttemptAbortReason, DropReason
from shared.secagg.sealing import shares_root
from shared.update import Encoding, UpdateHeader
from shared.wire.sealed import encode_envelope, encode_update_header, reopen, seal
from tests.support.coordinator_transcript import Transcript
from tests.support.masked_silo import MaskedRound, MaskedSilo
from tests.support.rounds import coordinator_seal, frame_of, key_of, make_masked_frame, make_spec, result_of

A, B, C, D = (ParticipantId(f"hospital-{letter}") for letter in "abcd")
LOW_ORDER = bytes(32)
TOP_BIT = bytes(31) + b"\x80"
OTHER = Digest.of(b"another")


def begun(reached: str, **changed: Any) -> MaskedRound:
    """Four members; A is the liar. In `advertising` B and C have answered, and A has its secrets but was not heard."""
    played = MaskedRound(make_masked_frame(members=(A, B, C, D), **changed))
    played.until("advertising")
    while reached == "advertising" and played.waiting:
        member, message = played.waiting.popleft()
        for _, event in played.silos[member].hears(message):
            if member in {B, C}:
                played.tell(member, event)
    if reached != "advertising":
        played.until(reached)
    return played


def refuses(played: MaskedRound, event: Event, error: type[PeerError], match: str | None = None) -> None:
    before, content = played.state, repr(played.state)
    with pytest.raises(error, match=match):
        step(played.state, event, played.now, coordinator_seal)
    assert played.state is before
    assert repr(played.state) == content


def changed_answer(silo: MaskedSilo, kind: type[Any], said: AttemptAnswer, **changed: Any) -> AttemptAnswer:
    """The silo's own word with some fields changed, signed again by itself."""
    value = replace(reopen(kind, said.envelope).value, **changed)
    return silo.answer(value, said.shares)


def goes_on(played: MaskedRound) -> Commit:
    """A says nothing any more, and the others end the round."""
    played.vanished.add(A)
    for member in (B, C, D):
        silo = played.silos[member]
        if played.phase == "advertising" and silo.attempt is not None:
            played.tell(member, silo.says(silo.now.advert))
    end = played.run()
    assert isinstance(end, Commit)
    assert played.opened_sums() == played.plain_sums()
    return end


# --- every answer -----------------------------------------------------------------------------------------------------


def dealt_by(silo: MaskedSilo) -> AttemptAnswer:
    assert silo.now.word is not None
    return silo.now.word


def signature_of(silo: MaskedSilo) -> AttemptAnswer:
    assert silo.now.t3 is not None
    return silo.answer(ConsistencySignature(silo.now.h0, silo.now.t3, silo.index))


KINDS: Mapping[str, tuple[type[Any], Callable[[MaskedSilo], AttemptAnswer]]] = {
    "advertising": (AdvertiseKeys, lambda silo: silo.now.advert),
    "sharing": (ShareKeys, dealt_by),
    "confirming": (ConsistencySignature, signature_of),
    "unmasking": (UnmaskShares, lambda silo: silo.opening()),
}


def before_it_answers(reached: str) -> tuple[MaskedRound, type[Any], AttemptAnswer]:
    """The round at that step, A's honest answer to it, and nothing of it heard."""
    played = begun(reached)
    silo = played.silos[A]
    if reached != "advertising":
        waiting = [(member, message) for member, message in played.waiting if member == A]
        for member, message in waiting:
            played.waiting.remove((member, message))
            list(silo.hears(message))
    kind, said = KINDS[reached]
    return played, kind, said(silo)


@pytest.mark.parametrize("reached", KINDS)
def test_an_answer_is_of_this_attempt_and_of_who_says_it(reached: str) -> None:
    played, kind, said = before_it_answers(reached)
    silo, other = played.silos[A], played.silos[B]
    value = reopen(kind, said.envelope).value

    def says(envelope: Envelope) -> Event:
        return silo.says(replace(said, envelope=envelope))

    refuses(played, says(seal(value, signer=key_of(B), index=1).envelope), IdentityError)
    refuses(played, says(seal(value, signer=key_of(A), index=2).envelope), IdentityError, "position 1")
    refuses(played, says(other.seal_as(replace(value, index=2))), IdentityError, "position 1")
    refuses(played, says(silo.seal_as(replace(value, index=2))), ConflictError, "as it was announced")
    refuses(played, says(silo.seal_as(replace(value, attempt=OTHER))), ConflictError, "as it was announced")
    refuses(played, says(replace(said.envelope, payload=b"\xff")), IdentityError)
    later = AttemptKey(played.frame.key, AttemptNumber(2))
    refuses(played, silo.says(replace(said, attempt=later)), LateError, "attempt .*2")
    wrong = {AnswerKind.ADVERTISE_KEYS: AnswerKind.SHARE_KEYS}.get(said.kind, AnswerKind.ADVERTISE_KEYS)
    refuses(played, silo.says(replace(said, kind=wrong)), IdentityError)
    assert goes_on(played).result.value.survivors == (
        (2, 3, 4) if reached in {"advertising", "sharing"} else (1, 2, 3, 4)
    )


@pytest.mark.parametrize("reached", ["advertising", "sharing"])
def test_another_word_in_the_place_of_one_that_was_taken_is_refused(reached: str) -> None:
    played, kind, said = before_it_answers(reached)
    silo = played.silos[A]
    played.tell(A, silo.says(said))
    assert played.refused == []
    change = {"nonce": b"n" * 32} if kind is AdvertiseKeys else {"self_commitment": OTHER}
    refuses(played, silo.says(changed_answer(silo, kind, said, **change)), ConflictError, "was taken before")


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["mask_key", "share_key"])
@pytest.mark.parametrize(
    ("key", "match"),
    [(LOW_ORDER, "low order"), (TOP_BIT, "top bit"), ((2**255 - 19).to_bytes(32, "little"), "canonical")],
)
def test_a_key_that_would_break_every_agreement_keeps_its_silo_out(field: str, key: bytes, match: str) -> None:
    played = begun("advertising")
    silo = played.silos[A]
    refuses(played, silo.says(changed_answer(silo, AdvertiseKeys, silo.now.advert, **{field: key})), WireError, match)
    end = goes_on(played)
    assert end.result.value.survivors == (2, 3, 4)
    assert end.dropped == {A: DropReason.EXCHANGE_LATE}


def test_a_key_that_was_advertised_before_keeps_its_silo_out() -> None:
    played = begun("advertising")
    silo = played.silos[A]
    theirs = reopen(AdvertiseKeys, played.silos[B].now.advert.envelope).value
    own = reopen(AdvertiseKeys, silo.now.advert.envelope).value
    for change in (
        {"mask_key": theirs.mask_key},
        {"share_key": theirs.share_key},
        {"share_key": theirs.mask_key},
        {"share_key": own.mask_key},
    ):
        said = changed_answer(silo, AdvertiseKeys, silo.now.advert, **change)
        refuses(played, silo.says(said), ConflictError, "each is to be fresh")
    assert goes_on(played).dropped == {A: DropReason.EXCHANGE_LATE}


def test_a_checkpoint_is_that_of_the_last_result() -> None:
    frame = make_masked_frame(members=(A, B, C, D))
    first = MaskedRound(frame)
    first.until("advertising")
    silo = first.silos[A]
    list(silo.hears(first.waiting[0][1]))
    start = silo.now.start
    some = Checkpoint(CheckpointKind.CHAIN, 1, OTHER)
    said = silo.answer(silo.keys(start, silo.now.secrets, checkpoint=some))
    refuses(first, silo.says(said), ConflictError, "checkpoint of round 1")

    result = encode_envelope(result_of(start, (1, 2, 3, 4), top_cells=(0,)).envelope)
    plan = coordinator_seal_plan(frame, result)
    later = MaskedRound(replace(frame, plan=plan))
    later.until("advertising")
    silo = later.silos[A]
    list(silo.hears(later.waiting[0][1]))
    for size, root in ((1, OTHER), (2, result_digest(result)), (0, result_digest(b""))):
        said = silo.answer(
            silo.keys(silo.now.start, silo.now.secrets, checkpoint=Checkpoint(CheckpointKind.CHAIN, size, root))
        )
        refuses(later, silo.says(said), ConflictError, "checkpoint")
    good = Checkpoint(CheckpointKind.CHAIN, 1, result_digest(result))
    later.tell(A, silo.says(silo.answer(silo.keys(silo.now.start, silo.now.secrets, checkpoint=good))))
    assert later.refused == []


def coordinator_seal_plan(frame: Any, result: bytes) -> Any:
    value = replace(frame.plan.value, previous_result=result, key=replace(frame.key, number=2))
    return seal(value, signer=key_of("coordinator"), index=0)


def test_who_was_not_ready_advertises_nothing() -> None:
    played = MaskedRound(make_masked_frame(members=(A, B, C, D)))
    for member, message in list(played.waiting):
        for _, event in played.silos[member].hears(message):
            if member != A:
                played.tell(member, event)
    played.waiting.clear()
    played.wait()
    assert played.phase == "advertising"
    silo = played.silos[A]
    list(silo.hears(played.waiting[0][1]))
    refuses(played, silo.says(silo.now.advert), PhaseError, "advertise_keys in phase planned|not in the cohort")


# --- shares -----------------------------------------------------------------------------------------------------------


def test_shares_are_under_this_roster_one_for_each_and_those_that_were_signed() -> None:
    played, _, said = before_it_answers("sharing")
    silo = played.silos[A]
    refuses(
        played, silo.says(changed_answer(silo, ShareKeys, said, roster=OTHER)), ConflictError, "under another roster"
    )
    first, second, *rest = said.shares
    for shares in (said.shares[1:], (second, first, *rest), (first, first, second, *rest), ()):
        value = reopen(ShareKeys, said.envelope).value
        if len({share.holder for share in shares}) == len(shares) and shares:
            value = replace(value, shares_root=shares_root(shares))
        refuses(played, silo.says(silo.answer(value, tuple(shares))), ConflictError, "one for each on the roster")
    swapped = (replace(first, ciphertext=second.ciphertext), second, *rest)
    refuses(played, silo.says(replace(said, shares=swapped)), ConflictError, "signed root")
    end = goes_on(played)
    assert end.dropped == {A: DropReason.EXCHANGE_LATE}


def test_shares_come_after_the_roster_and_from_those_on_it() -> None:
    played = begun("advertising")
    silo = played.silos[A]
    value = ShareKeys(silo.now.h0, OTHER, 1, OTHER, OTHER)
    refuses(played, silo.says(silo.answer(value)), LateError, "before its roster")
    played.tell(D, played.silos[D].says(played.silos[D].now.advert))
    played.wait()
    assert played.phase == "sharing"
    refuses(played, silo.says(silo.answer(value)), PhaseError, "not on the roster")
    refuses(played, silo.says(silo.now.advert), LateError, "too late")


# --- uploads ----------------------------------------------------------------------------------------------------------


def test_a_commitment_is_under_this_history_and_of_this_update() -> None:
    played = begun("uploading")
    silo = played.silos[A]
    message = next(message for member, message in played.waiting if member == A)
    ((_, offer),) = silo.hears(message)
    assert isinstance(offer, UploadOffered)
    assert silo.now.t2 is not None
    state = played.state
    assert isinstance(state, Uploading)

    def opens(**changed: Any) -> UpdateHeader:
        assert silo.now.t2 is not None
        envelope, _, update = silo.commitment(silo.now.t2, **changed)
        return open_upload_commit(envelope, state=state, participant=A, verifier=key_of(A).verifying_key, update=update)

    assert opens() == UpdateHeader(Encoding.U64, None, 1)
    for changed, match in (
        ({"transcript": silo.now.h0}, "another transcript"),
        ({"transcript": OTHER}, "another transcript"),
        ({"attempt": OTHER}, "as it was announced"),
        ({"index": 2}, "as it was announced"),
        ({"update": OTHER}, "another update"),
        ({"chunks": 77}, "another update"),
    ):
        with pytest.raises(ConflictError, match=match):
            opens(**changed)
    for header in (UpdateHeader(Encoding.PLAIN, 1.0, 1), UpdateHeader(Encoding.U32, None, 1)):
        with pytest.raises(WireError, match="encoded as"):
            opens(header=encode_update_header(header))


def test_who_left_or_never_dealt_uploads_nothing_and_nobody_does_after_the_list() -> None:
    played = begun("uploading")
    offers = {}
    for member, message in list(played.waiting):
        ((_, offers[member]),) = played.silos[member].hears(message)
    played.waiting.clear()
    played.tell(A, played.silos[A].leaves(AttemptAbortReason.BAD_SHARES))
    refuses(played, offers[A], PhaseError, "upload_commit in phase ready")
    for member in (B, C, D):
        played.tell(member, offers[member])
    assert played.phase == "confirming"
    refuses(played, offers[A], LateError, "takes no uploads")


# --- confirming and opening -------------------------------------------------------------------------------------------


def without_a(played: MaskedRound) -> None:
    """A deals its shares and sends no update."""
    for member, message in list(played.waiting):
        for _, event in played.silos[member].hears(message):
            if member != A:
                played.tell(member, event)
    played.waiting.clear()
    played.wait()
    assert played.phase == "confirming"


def test_only_survivors_say_who_survived_and_only_this() -> None:
    played = begun("uploading")
    without_a(played)
    silo, state = played.silos[A], played.state
    digest = state.digest  # type: ignore[union-attr]
    refuses(
        played,
        silo.says(silo.answer(ConsistencySignature(silo.now.h0, digest, 1))),
        PhaseError,
        "not among the survivors|consistency_signature in phase",
    )
    other = played.silos[B]
    said = other.answer(ConsistencySignature(other.now.h0, OTHER, other.index))
    refuses(played, other.says(said), ConflictError, "other survivors")
    refuses(
        played,
        other.says(other.answer(UnmaskShares(other.now.h0, digest, other.index, (), ()))),
        PhaseError,
        "unmask_shares in phase fixed",
    )
    assert goes_on(played).result.value.survivors == (2, 3, 4)


def test_a_bad_share_is_refused_and_the_total_opens_with_those_of_others() -> None:
    played = MaskedRound(make_masked_frame(members=(A, B, C, D)))
    played.until("unmasking")
    silo = played.silos[A]
    value = reopen(UnmaskShares, silo.opening().envelope).value
    (first, _), *rest = value.self_shares
    bad = bytes(65) + b"\x01"
    lies: list[tuple[dict[str, Any], type[PeerError]]] = [
        ({"self_shares": ((first, bad), *rest)}, WireError),
        ({"self_shares": ((first, b"\xff" * 66), *rest)}, WireError),
        ({"self_shares": tuple(rest)}, WireError),
        ({"self_shares": (), "mask_shares": value.self_shares}, WireError),
        ({"survivors": OTHER}, ConflictError),
    ]
    for changed, error in lies:
        refuses(played, silo.says(silo.opening(**changed)), error)
    both = {"mask_shares": ((first, silo.now.opened[first].mask_share.reveal()),)}
    refuses(played, silo.says(silo.opening(**both)), WireError, "never both")
    refuses(played, silo.says(silo.opening(self_shares=tuple(rest), **both)), WireError, "missing|must not be revealed")
    end = goes_on(played)
    assert end.result.value.survivors == (1, 2, 3, 4)
    assert played.fold is not None
    assert played.fold.opening is not None
    assert A not in played.fold.opening.revealed


def test_who_opened_is_held_to_it() -> None:
    played = begun("unmasking")
    silo = played.silos[A]
    message = next(message for member, message in played.waiting if member == A)
    ((_, said),) = silo.hears(message)
    played.tell(A, said)
    assert isinstance(played.state, Unmasking)
    assert played.journal[-1].kind == "shares_revealed"
    recorded = len(played.journal)
    played.tell(A, said)
    assert len(played.journal) == recorded
    refuses(played, silo.says(silo.opening(self_shares=())), ConflictError, "opened before")


# --- not for everybody ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(AnswerKind))
def test_a_plain_job_takes_no_word_of_masking(kind: AnswerKind) -> None:
    seen = Transcript()
    start_key = AttemptKey(seen.frame.key, AttemptNumber(1))
    word = AttemptAnswer(
        start_key, kind, seal(AttemptAbort(OTHER, 1, AttemptAbortReason.GONE), signer=key_of(A), index=1).envelope
    )

    seen.refuses(Replied(A, word), PhaseError, "is plain")
    seen.to_uploading(A, B, C, D)
    seen.refuses(Replied(A, word), PhaseError, "is plain")


def test_a_word_before_any_attempt_is_out_of_order() -> None:
    played = MaskedRound(make_masked_frame(members=(A, B, C, D)))
    other = begun("sharing")
    silo = other.silos[A]
    refuses(played, silo.leaves(), PhaseError, "in phase planned")


def test_who_is_out_says_nothing_more() -> None:

    played = begun("sharing")
    played.hear(Revoked(A))
    refuses(played, played.silos[A].leaves(), PhaseError, "in phase out")


def test_frames_of_plain_jobs_know_no_keys() -> None:
    plain = frame_of(make_spec(masking=MaskingSpec(mode="plain", max_colluding=0)))
    assert (plain.keys, plain.consortium, plain.top_cells) == ({}, b"", None)
