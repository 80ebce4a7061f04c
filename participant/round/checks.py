"""What a silo checks of plans and attempts against what it knows by itself, before it follows them (pure).

The coordinator's word is compared with the job as this silo has it, with the silo's own layout, and with the signed
result of the round before; nothing of it is believed. Every refusal is a ConflictError that says what differs.
"""

from __future__ import annotations

from participant.round.phases import Offer, SpooledUpdate
from shared.errors import ConflictError
from shared.job import jobspec_digest
from shared.protocol.messages import PROTOCOL_VERSIONS, SUITE_1, AttemptStart, RoundResult, result_digest
from shared.reasons import Purpose
from shared.update import Encoding, StatisticsLayout, UpdateLayout


def layout_of(offer: Offer, parameters: int) -> UpdateLayout:
    """The layout of this round's update: derived here, never accepted from the coordinator."""
    cells = StatisticsLayout(offer.spec.metrics).cells
    trains = offer.plan.value.purpose is Purpose.TRAIN
    return UpdateLayout(Encoding.PLAIN, parameters if trains else 0, cells)


def check_plan(offer: Offer, previous: RoundResult | None) -> None:
    """PROTOCOL.md section 5, the checks on RoundPlan: it follows from the job, and from how the last round ended.

    `previous` is the result that the plan carries, its signature verified. Raises ConflictError.
    """
    plan, spec = offer.plan.value, offer.spec
    if plan.deadline_s != spec.round.deadline_s:
        raise ConflictError(f"the plan gives {plan.deadline_s:g} s to train, its job {spec.round.deadline_s:g} s")
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


def check_attempt(offer: Offer, start: AttemptStart, update: SpooledUpdate) -> None:
    """PROTOCOL.md section 5, the checks on AttemptStart."""
    plan = offer.plan.value
    expected = {
        "version": (PROTOCOL_VERSIONS[-1], start.version),
        "suite": (SUITE_1, start.suite),
        "round": (offer.key, start.key.round),
        "purpose": (plan.purpose, start.purpose),
        "plan": (offer.digest, start.plan),
        "job specification": (jobspec_digest(plan.jobspec), start.jobspec),
        "consortium": (b"", start.consortium),
        "model": (plan.model, start.model),
        "previous result": (result_digest(plan.previous_result), start.previous_result),
        "members": (offer.spec.members, start.members),
        "layout": (layout_of(offer, update.parameters).digest, start.layout),
        "encoding": (update.header.encoding, start.encoding),
        "assumption on collusion": (0, start.max_colluding),
        "upload deadline": (offer.spec.round.upload_deadline_s, start.upload_deadline_s),
    }
    if start.key.attempt > offer.spec.round.attempts:
        raise ConflictError(f"attempt {start.key}, but the job allows {offer.spec.round.attempts} for a round")
    for name, (mine, theirs) in expected.items():
        if mine != theirs:
            raise ConflictError(
                f"attempt {start.key} has another {name} than this silo knows: expected {mine}, got {theirs}"
            )
