"""What a silo checks of plans, attempts and results against what it knows by itself, before it follows them (pure).

The coordinator's word is compared with the job as this silo has it, with the silo's own layout, with the manifest that
it pinned, and with the signed results of the rounds before; nothing of it is believed. Every refusal is a PeerError
that says what differs.
"""

from __future__ import annotations

from collections.abc import Collection

from participant.consent import VerifiedResult
from participant.round.phases import MISSES_MAX, Offer, SpooledUpdate, Total
from shared.errors import ConflictError
from shared.hashing import tagged_hash
from shared.ids import Digest
from shared.job import JobSpec, canonical_json, jobspec_digest
from shared.protocol.messages import (
    PROTOCOL_VERSIONS,
    SUITE_1,
    AttemptStart,
    Envelope,
    RoundResult,
    result_digest,
)
from shared.reasons import Purpose
from shared.secagg.fixed_point import range_exponents, scale_exponent
from shared.secagg.transcript import core_digest
from shared.update import Encoding, StatisticsLayout, UpdateLayout
from shared.wire.sealed import decode_envelope, encode_envelope


def encoding_of(spec: JobSpec, previous: RoundResult | None) -> Encoding:
    """The encoding of a round until somebody's update does not fit: before the first result no range is known."""
    if spec.masking.masked and previous is None:
        return Encoding.U64
    return spec.masking.profile


def layout_of(offer: Offer, update: SpooledUpdate, encoding: Encoding) -> UpdateLayout:
    """The layout of this round's update: derived here, never accepted from the coordinator."""
    trains = offer.plan.value.purpose is Purpose.TRAIN
    return UpdateLayout.of_round(
        encoding=encoding,
        parameters=update.parameters if trains else 0,
        tensors=len(update.cells) if trains else 0,
        statistics=StatisticsLayout(offer.spec.metrics),
    )


def says_fits(offer: Offer, update: SpooledUpdate) -> bool:
    """What Ready says. After enough misses always no: the job stays u64, and no more is learned from the answers."""
    return ranges_hold(offer) and update.fits and offer.misses < MISSES_MAX


def ranges_hold(offer: Offer) -> bool:
    """Whether the ranges of this round may be asked about: none are, or they are of a total that this silo was in.

    The coordinator alone signs results. One that this silo was not in may be invented, and with it the range: an answer
    that depended on the update would tell where the update lies. So that answer is no, and no miss.
    """
    plan, previous = offer.plan.value, offer.previous
    if not offer.masked or offer.encoding is Encoding.U64 or plan.purpose is not Purpose.TRAIN:
        return True
    return previous is not None and carried_result(offer) == offer.verified and offer.index in previous.survivors


# --- plans and results ------------------------------------------------------------------------------------------------


def check_plan(offer: Offer) -> None:
    """PROTOCOL.md section 5.3, the checks on RoundPlan: it follows from the job, and from how the last round ended.

    Raises ConflictError. `another_history` is asked apart: it is a reason to leave the job.
    """
    plan, spec, previous = offer.plan.value, offer.spec, offer.previous
    least, most = _numbers(spec, plan.purpose)
    if not least <= plan.key.number <= most:
        raise ConflictError(f"round {plan.key.number} to {plan.purpose}, but the job has them from {least} to {most}")
    if previous is None:
        if plan.model != spec.initial_model:
            raise ConflictError(
                f"the plan starts from {plan.model} without a result that says so, not from the initial model"
            )
        return
    if previous.key.job != plan.key.job or previous.key.number >= plan.key.number:
        raise ConflictError(f"the plan of {plan.key} carries the result of {previous.key}, which is not before it")
    if previous.next_model != plan.model:
        raise ConflictError(f"the plan starts from {plan.model}, the last result led to {previous.next_model}")


def _numbers(spec: JobSpec, purpose: Purpose) -> tuple[int, int]:
    """The first and the last number that a round of a job can have, aborted ones included."""
    aborted = spec.round.aborted_rounds_allowed
    if purpose is Purpose.TRAIN:
        return 1, spec.rounds + aborted
    return spec.rounds + 1, spec.rounds + 1 + aborted


def another_history(offer: Offer, *, aborted: bool) -> str | None:
    """How the result in a plan of a masked job contradicts the one that this silo verified; None when it does not.
    `aborted`: this silo was told that the round of that result was aborted.
    """
    known, carried = offer.verified, carried_result(offer)
    if not offer.masked:
        return None
    if carried is not None and aborted:
        return f"the plan of {offer.key} carries a result of round {carried.number}, which was said to be aborted"
    if known is None:
        return None
    if carried is None or carried.number < known.number:
        shown = "no result" if carried is None else f"the result of round {carried.number}"
        return f"the plan of {offer.key} carries {shown}, but this silo verified that of round {known.number}"
    if carried.number == known.number and carried.digest != known.digest:
        return f"the plan of {offer.key} carries another result of round {known.number} than this silo verified"
    return None


def carried_result(offer: Offer) -> VerifiedResult | None:
    """The result that the plan carries."""
    if offer.previous is None:
        return None
    return verified_result(offer.previous, decode_envelope(offer.plan.value.previous_result))


def verified_result(result: RoundResult, envelope: Envelope) -> VerifiedResult:
    """A result by its number and digest."""
    return VerifiedResult(result.key.number, result_digest(encode_envelope(envelope)))


def understated_range(update: SpooledUpdate, result: RoundResult, *, survived: bool) -> str | None:
    """How the top cells of a masked round's result cannot be true; None when they can. A coordinator that states a
    smaller range than there was would learn from the next round who does not fit it.
    """
    if len(result.top_cells) != len(update.cells):
        return (
            f"the result of {result.key} has top cells of {len(result.top_cells)} tensors, expected {len(update.cells)}"
        )
    for tensor, (top, own) in enumerate(zip(result.top_cells, update.cells, strict=True)):
        if survived and top < own:
            return f"the result of {result.key} has a top cell of aggregated tensor {tensor} below this silo's own"
    return None


# --- totals -----------------------------------------------------------------------------------------------------------


def terms_of(spec: JobSpec) -> Digest:
    """How the totals of a job count each member: what is cut, weighed, measured, and rounded to what."""
    table = spec.model_dump(mode="json")
    return tagged_hash("terms", canonical_json(table["masking"]), canonical_json(table["metrics"]))


def how_another_total(total: Total, opened_before: Collection[Total]) -> str | None:
    """How this one differs from what this silo helped to open on its model before; None when it does not."""
    for before in opened_before:
        if before.names != total.names:  # the difference is the update of whoever is in one of them only
            return "over other members than"
        if before.terms != total.terms:  # cut at two weights, say: of whoever is above the lower one
            return "that counts the same members otherwise (masking table or metrics) than"
    return None


# --- attempts ---------------------------------------------------------------------------------------------------------


def check_attempt(offer: Offer, start: AttemptStart, update: SpooledUpdate, last: AttemptStart | None) -> None:
    """PROTOCOL.md section 5.6, the checks on AttemptStart. `last` is the attempt of this round before it, if any."""
    plan, policy = offer.plan.value, offer.spec.round
    expected = {
        "version": (PROTOCOL_VERSIONS[-1], start.version),
        "suite": (SUITE_1, start.suite),
        "round": (offer.key, start.key.round),
        "purpose": (plan.purpose, start.purpose),
        "plan": (offer.digest, start.plan),
        "job specification": (jobspec_digest(plan.jobspec), start.jobspec),
        "consortium": (_consortium(offer), start.consortium),
        "model": (plan.model, start.model),
        "previous result": (result_digest(plan.previous_result), start.previous_result),
        "members": (offer.spec.members, start.members),
        "assumption on collusion": (offer.spec.masking.max_colluding, start.max_colluding),
        "exchange deadline": (policy.exchange_deadline_s, start.exchange_deadline_s),
        "upload deadline": (policy.upload_deadline_s, start.upload_deadline_s),
    }
    if start.key.attempt > policy.attempts:
        raise ConflictError(f"attempt {start.key}, but the job allows {policy.attempts} for a round")
    for name, (mine, theirs) in expected.items():
        if mine != theirs:
            raise ConflictError(
                f"attempt {start.key} has another {name} than this silo knows: expected {_shown(mine)}, "
                f"got {_shown(theirs)}; compare versions, and the manifest that is pinned here with the coordinator's"
            )
    _require_encoding(offer, start, update, last)
    layout = layout_of(offer, update, start.encoding)
    if start.layout != layout.digest:
        raise ConflictError(
            f"attempt {start.key} has another layout than this silo knows: expected {layout}, got {start.layout}"
        )
    if offer.masked:
        _require_known_members(offer)
        scale_exponents(offer, update, start.encoding)


def scale_exponents(offer: Offer, update: SpooledUpdate, encoding: Encoding) -> tuple[int, ...]:
    """log2 S of each aggregated tensor: from the members and the last result, never from the coordinator. Raises
    WireError when that result is not of this model.
    """
    if not update.cells:
        return ()
    ranges = range_exponents(
        encoding=encoding,
        top_cells=None if offer.previous is None else offer.previous.top_cells,
        tensors=len(update.cells),
    )
    members = len(offer.spec.members)
    return tuple(scale_exponent(encoding=encoding, members=members, range_exponent=exponent) for exponent in ranges)


def core_of(offer: Offer, update: SpooledUpdate) -> Digest:
    """What all masked attempts of this round have in common; it is on record with the first of them."""
    plan = offer.plan.value
    if offer.consortium is None:
        raise RuntimeError("a masked attempt without a manifest was not refused")
    layout = layout_of(offer, update, Encoding.U64)
    return core_digest(
        job=plan.key.job,
        number=plan.key.number,
        purpose=plan.purpose,
        jobspec=jobspec_digest(plan.jobspec),
        consortium=offer.consortium.digest,
        model=plan.model,
        previous_result=result_digest(plan.previous_result),
        members=offer.spec.members,
        max_colluding=offer.spec.masking.max_colluding,
        parameters=layout.parameters,
        statistics=layout.statistics,
    )


def _consortium(offer: Offer) -> bytes:
    if not offer.masked:
        return b""
    if offer.consortium is None:
        raise ConflictError(
            f"round {offer.key} is masked, and no manifest is pinned here that says who its members are"
        )
    return offer.consortium.digest.raw


def _require_known_members(offer: Offer) -> None:
    """All of them are participants of the consortium: of the others there are keys in nobody's manifest."""
    for member in offer.spec.members:
        if offer.consortium is None or offer.consortium.participant_key(member) is None:
            raise ConflictError(f"member {member} is no participant of the manifest that this silo pinned")


def _require_encoding(offer: Offer, start: AttemptStart, update: SpooledUpdate, last: AttemptStart | None) -> None:
    """The round's own, or, in a masked one, u64; that alone once it was u64 or this silo's update does not fit."""
    allowed = {offer.encoding}
    if offer.masked:
        wide = not says_fits(offer, update) or (last is not None and last.encoding is Encoding.U64)
        allowed = {Encoding.U64} if wide else {offer.encoding, Encoding.U64}
    if start.encoding not in allowed:
        names = " or ".join(sorted(encoding.name for encoding in allowed))
        raise ConflictError(
            f"attempt {start.key} has another encoding than this silo knows: expected {names}, got "
            f"{start.encoding.name}"
        )


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
