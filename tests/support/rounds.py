"""What a round needs, small: keys, a job, a model of a few numbers, a frame, and seals of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from coordinator.round.machine import Seal
from coordinator.round.phases import RoundFrame
from participant.round.phases import Offer, SpooledUpdate
from shared.hashing import tagged_hash
from shared.identity import SigningKey
from shared.ids import (
    AttemptKey,
    AttemptNumber,
    Digest,
    JobId,
    ParticipantId,
    RoundKey,
    RoundNumber,
    TaskName,
)
from shared.job import JobSpec, RoundPolicy, jobspec_digest
from shared.protocol.messages import (
    PROTOCOL_VERSIONS,
    SUITE_1,
    AttemptStart,
    Envelope,
    RoundAborted,
    RoundPlan,
    RoundResult,
    Sealed,
    SurvivorList,
    UploadCommit,
    attempt_digest,
    plan_digest,
    result_digest,
)
from shared.reasons import AbortReason, Purpose
from shared.secret import Secret
from shared.tensors import ModelIndex, encode_header, read_index
from shared.update import DType, Encoding, ModelManifest, StatisticsLayout, TensorSpec, UpdateHeader, UpdateLayout
from shared.wire.sealed import encode_update_header, seal
from tests.support.readers import MemoryReader

JOB = JobId("heart-1")
KEY = RoundKey(JOB, RoundNumber(1))
A, B, C, D = MEMBERS = tuple(ParticipantId(f"hospital-{letter}") for letter in "abcd")
STRANGER = ParticipantId("hospital-z")
TASK = TaskName("heart")
ELEMENTS = 8
METRICS = ("loss",)

T = TypeVar("T", RoundPlan, AttemptStart, UploadCommit, RoundResult, RoundAborted)


@cache
def key_of(name: str) -> SigningKey:
    """The signing key of somebody; the same in every run."""
    return SigningKey.from_seed(Secret(tagged_hash("test-key", name.encode()).raw))


COORDINATOR_KEY = key_of("coordinator")
coordinator_seal: Seal = partial(seal, signer=COORDINATOR_KEY, index=0)


@cache
def initial_model(elements: int = ELEMENTS) -> bytes:
    """A safetensors file of float64 zeros."""
    header, _ = encode_header(ModelManifest.of([TensorSpec("weight", DType.F64, (elements,))]), {})
    return header + bytes(8 * elements)


@cache
def initial_index(elements: int = ELEMENTS) -> ModelIndex:
    return read_index(MemoryReader(initial_model(elements)))


def model_values(file: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The numbers of such a file."""
    return np.frombuffer(file, "<f8", offset=read_index(MemoryReader(file)).offset_of("weight"))


def make_spec(
    *, members: Sequence[ParticipantId] = MEMBERS, rounds: int = 2, elements: int = ELEMENTS, **policy: Any
) -> JobSpec:
    """A job with two attempts of a minute, ten minutes to train, five seconds of grace."""
    defaults: dict[str, Any] = {"quorum": 3, "min_survivors": 2, "deadline_s": 600.0, "upload_deadline_s": 60.0}
    return JobSpec(
        name="heart",
        task=TASK,
        members=tuple(members),
        rounds=rounds,
        seed=42,
        initial=str(Digest.of(initial_model(elements))),
        metrics=METRICS,
        round=RoundPolicy(**(defaults | policy)),
    )


def make_plan(
    spec: JobSpec,
    *,
    number: int = 1,
    purpose: Purpose = Purpose.TRAIN,
    previous_result: bytes = b"",
    job: JobId = JOB,
    signer: SigningKey = COORDINATOR_KEY,
    **changed: Any,
) -> Sealed[RoundPlan]:
    plan = RoundPlan(
        key=RoundKey(job, RoundNumber(number)),
        purpose=purpose,
        jobspec=spec.to_bytes(),
        model=spec.initial_model,
        model_bytes=len(initial_model()),
        previous_result=previous_result,
        deadline_s=spec.round.deadline_s,
    )
    return seal(replace(plan, **changed), signer=signer, index=0)


def layout(purpose: Purpose = Purpose.TRAIN) -> UpdateLayout:
    parameters = ELEMENTS if purpose is Purpose.TRAIN else 0
    return UpdateLayout(Encoding.PLAIN, parameters, StatisticsLayout(METRICS).cells)


def make_frame(*, number: int = 1, purpose: Purpose = Purpose.TRAIN, **policy: Any) -> RoundFrame:
    spec = make_spec(**policy)
    return RoundFrame(
        spec=spec,
        plan=make_plan(spec, number=number, purpose=purpose),
        index=initial_index(),
        layout=layout(purpose),
        statistics=StatisticsLayout(METRICS),
    )


def make_offer(participant: ParticipantId = A, *, plan: Sealed[RoundPlan] | None = None, **policy: Any) -> Offer:
    spec = make_spec(**policy)
    plan = plan or make_plan(spec)
    return Offer(plan, plan_digest(plan), spec, spec.members.index(participant) + 1)


def spooled(weight: float = 1.0, statistics: tuple[float, ...] = (1.0, 0.5, 1.0, 0.25)) -> SpooledUpdate:
    return SpooledUpdate(UpdateHeader(Encoding.PLAIN, weight, 1), statistics, ELEMENTS)


def start_of(plan: Sealed[RoundPlan], spec: JobSpec, /, *, attempt: int = 1, **changed: Any) -> Sealed[AttemptStart]:
    """The announcement that an honest coordinator makes, with some fields changed."""
    fields: dict[str, Any] = {
        "version": PROTOCOL_VERSIONS[-1],
        "suite": SUITE_1,
        "key": AttemptKey(plan.value.key, AttemptNumber(attempt)),
        "purpose": plan.value.purpose,
        "plan": plan_digest(plan),
        "jobspec": jobspec_digest(plan.value.jobspec),
        "consortium": b"",
        "model": plan.value.model,
        "previous_result": result_digest(plan.value.previous_result),
        "members": spec.members,
        "max_colluding": 0,
        "layout": layout(plan.value.purpose).digest,
        "encoding": Encoding.PLAIN,
        "upload_deadline_s": spec.round.upload_deadline_s,
    }
    return coordinator_seal(AttemptStart(**(fields | changed)))


def commit_of(
    participant: ParticipantId, start: Sealed[AttemptStart], *, content: bytes = b"update", weight: float = 1.0
) -> tuple[Envelope, UpdateHeader, Digest]:
    """A member's signed word for an update, as an `UploadOffered` carries it."""
    header = UpdateHeader(Encoding.PLAIN, weight, 1)
    update = Digest.of(content + participant.encode())
    index = start.value.members.index(participant) + 1
    commit = UploadCommit(
        attempt=attempt_digest(start), index=index, header=encode_update_header(header), update=update, chunks=2
    )
    return seal(commit, signer=key_of(participant), index=index).envelope, header, update


def list_of(start: Sealed[AttemptStart], *participants: ParticipantId) -> SurvivorList:
    return SurvivorList(start.value.key, tuple(commit_of(participant, start)[0] for participant in participants))


def result_of(
    start: Sealed[AttemptStart], survivors: Sequence[int], *, purpose: Purpose = Purpose.TRAIN, **changed: Any
) -> Sealed[RoundResult]:
    fields: dict[str, Any] = {
        "key": start.value.key.round,
        "purpose": purpose,
        "attempt": attempt_digest(start),
        "survivors": tuple(survivors),
        "weight_total": float(len(survivors)),
        "aggregate": Digest.of(b"aggregate"),
        "next_model": Digest.of(b"next model"),
    }
    return coordinator_seal(RoundResult(**(fields | changed)))


def aborted_of(plan: Sealed[RoundPlan], reason: AbortReason = AbortReason.BELOW_QUORUM) -> Sealed[RoundAborted]:
    return coordinator_seal(RoundAborted(key=plan.value.key, plan=plan_digest(plan), reason=reason))
