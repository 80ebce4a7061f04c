"""What a round needs, small: keys, a job, a model of a few numbers, a frame, and seals of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from coordinator.round.frame import RoundFrame
from coordinator.round.transition import Seal
from participant.consent import VerifiedResult
from participant.round.checks import encoding_of
from participant.round.phases import Measured, Offer, SpooledUpdate
from shared.consortium import Consortium, make_manifest
from shared.hashing import tagged_hash
from shared.identity import Identity, Role, SigningKey
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
from shared.job import JobSpec, MaskingSpec, RoundPolicy, jobspec_digest
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
from shared.secagg.threshold import default_max_colluding, threshold
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
PLAIN = MaskingSpec(mode="plain", max_colluding=0)
T = TypeVar("T", RoundPlan, AttemptStart, UploadCommit, RoundResult, RoundAborted)


@cache
def key_of(name: str) -> SigningKey:
    """The signing key of somebody; the same in every run."""
    return SigningKey.from_seed(Secret(tagged_hash("test-key", name.encode()).raw))


COORDINATOR_KEY = key_of("coordinator")


def manifest_of(*participants: str) -> Consortium:
    """A consortium of these and the coordinator, each with its `key_of`."""
    name = "consilo.test"
    members = {Identity(name, Role.PARTICIPANT, member): key_of(member).verifying_key for member in participants}
    members[Identity(name, Role.COORDINATOR, "coordinator")] = COORDINATOR_KEY.verifying_key
    made = make_manifest(consortium=name, members=members, officers=[key_of("officer")])
    return Consortium.parse(made, source="the test's manifest")


MANIFEST = manifest_of(*(f"hospital-{letter}" for letter in "abcdefghijkl"))
CONSORTIUM = MANIFEST.digest.raw
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
    *,
    members: Sequence[ParticipantId] = MEMBERS,
    rounds: int = 2,
    elements: int = ELEMENTS,
    masking: MaskingSpec = PLAIN,
    **policy: Any,
) -> JobSpec:
    """A job with two attempts of a minute, ten minutes to train, five seconds of grace; plain, unless told."""
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
        masking=masking,
    )


def make_masked_spec(
    *, members: Sequence[ParticipantId] = MEMBERS, masking: dict[str, Any] | None = None, **changed: Any
) -> JobSpec:
    """The same job, masked: c as by default, a floor of the threshold, and exchanges of half a minute.

    `masking` changes single keys of that table; the rest is as in `make_spec`.
    """
    table: dict[str, Any] = {"max_colluding": default_max_colluding(len(members)), **(masking or {})}
    needed = threshold(len(members), table["max_colluding"])
    least = 2 if table.get("allow_two_party") else 3
    policy = {"quorum": max(needed, least), "min_survivors": least, **changed}
    return make_spec(members=members, masking=MaskingSpec(**table), **policy)


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


def layout(purpose: Purpose = Purpose.TRAIN, encoding: Encoding = Encoding.PLAIN) -> UpdateLayout:
    """Of an update of the model with one tensor of ELEMENTS."""
    trains = purpose is Purpose.TRAIN
    return UpdateLayout.of_round(
        encoding=encoding,
        parameters=ELEMENTS if trains else 0,
        tensors=1 if trains else 0,
        statistics=StatisticsLayout(METRICS),
    )


def make_frame(*, number: int = 1, purpose: Purpose = Purpose.TRAIN, **policy: Any) -> RoundFrame:
    """A round of a plain job."""
    return frame_of(make_spec(**policy), number=number, purpose=purpose)


def make_masked_frame(
    *, number: int = 1, purpose: Purpose = Purpose.TRAIN, top_cells: tuple[int, ...] | None = None, **changed: Any
) -> RoundFrame:
    """A round of a masked job: in U64 without the ranges of a round before it, else in the job's encoding."""
    return frame_of(make_masked_spec(**changed), number=number, purpose=purpose, top_cells=top_cells)


def frame_of(
    spec: JobSpec,
    *,
    number: int = 1,
    purpose: Purpose = Purpose.TRAIN,
    top_cells: tuple[int, ...] | None = None,
) -> RoundFrame:
    """What the coordinator fixes of a round of that job."""
    masked = spec.masking.masked
    ranged = top_cells is not None or not masked
    return RoundFrame(
        spec=spec,
        plan=make_plan(spec, number=number, purpose=purpose),
        index=initial_index(),
        statistics=StatisticsLayout(METRICS),
        encoding=spec.masking.profile if ranged else Encoding.U64,
        consortium=CONSORTIUM if masked else b"",
        keys={member: key_of(member).verifying_key for member in spec.members} if masked else {},
        top_cells=top_cells,
    )


def make_offer(participant: ParticipantId = A, *, plan: Sealed[RoundPlan] | None = None, **policy: Any) -> Offer:
    return offer_of(make_spec(**policy), participant, plan=plan)


def offer_of(
    spec: JobSpec,
    participant: ParticipantId = A,
    *,
    plan: Sealed[RoundPlan] | None = None,
    previous: RoundResult | None = None,
    verified: VerifiedResult | None = None,
    misses: int = 0,
) -> Offer:
    """The plan of that job's round as this member looked at it; `previous` is the result that the plan carries."""
    plan = plan or make_plan(spec)
    return Offer(
        plan=plan,
        digest=plan_digest(plan),
        spec=spec,
        index=spec.members.index(participant) + 1,
        previous=previous,
        encoding=encoding_of(spec, previous),
        misses=misses,
        consortium=MANIFEST,
        verified=verified,
    )


def spooled(weight: float = 1.0, *, cells: tuple[int, ...] = (), fits: bool = True) -> SpooledUpdate:
    """A trained update of ELEMENTS; with `cells`, of a masked job."""
    return SpooledUpdate(Measured(weight, (0.5,)), Measured(1.0, (0.25,)), ELEMENTS, cells, fits)


def start_of(plan: Sealed[RoundPlan], spec: JobSpec, /, *, attempt: int = 1, **changed: Any) -> Sealed[AttemptStart]:
    """The announcement that an honest coordinator makes, with some fields changed.

    Of a masked job: in the encoding of a first round, unless `encoding` says another.
    """
    masked = spec.masking.masked
    encoding = changed.get("encoding", Encoding.U64 if masked else Encoding.PLAIN)
    fields: dict[str, Any] = {
        "version": PROTOCOL_VERSIONS[-1],
        "suite": SUITE_1,
        "key": AttemptKey(plan.value.key, AttemptNumber(attempt)),
        "purpose": plan.value.purpose,
        "plan": plan_digest(plan),
        "jobspec": jobspec_digest(plan.value.jobspec),
        "consortium": CONSORTIUM if masked else b"",
        "model": plan.value.model,
        "previous_result": result_digest(plan.value.previous_result),
        "members": spec.members,
        "max_colluding": spec.masking.max_colluding,
        "layout": layout(plan.value.purpose, encoding).digest,
        "encoding": encoding,
        "exchange_deadline_s": spec.round.exchange_deadline_s,
        "upload_deadline_s": spec.round.upload_deadline_s,
    }
    return coordinator_seal(AttemptStart(**(fields | changed)))


def commit_of(
    participant: ParticipantId,
    start: Sealed[AttemptStart],
    *,
    content: bytes = b"update",
    weight: float = 1.0,
    transcript: Digest | None = None,
) -> tuple[Envelope, UpdateHeader, Digest]:
    """A member's signed word for an update, as an `UploadOffered` carries it. `transcript` is t2, and h0 unless given;
    a masked update has no weight to say.
    """
    encoding = start.value.encoding
    header = UpdateHeader(encoding, None if encoding.masked else weight, 1)
    update = Digest.of(content + participant.encode())
    index = start.value.members.index(participant) + 1
    commit = UploadCommit(
        attempt=attempt_digest(start),
        transcript=transcript or attempt_digest(start),
        index=index,
        header=encode_update_header(header),
        update=update,
        chunks=2,
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
        "transcript": attempt_digest(start),
        "survivors": tuple(survivors),
        "weight_total": float(len(survivors)),
        "top_cells": (),
        "aggregate": Digest.of(b"aggregate"),
        "next_model": Digest.of(b"next model"),
    }
    return coordinator_seal(RoundResult(**(fields | changed)))


def aborted_of(plan: Sealed[RoundPlan], reason: AbortReason = AbortReason.BELOW_QUORUM) -> Sealed[RoundAborted]:
    return coordinator_seal(RoundAborted(key=plan.value.key, plan=plan_digest(plan), reason=reason))
