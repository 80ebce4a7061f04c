"""Builders for the tests of tasks: definitions, round contexts and where the sample tasks are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from participant.tasks.contract import DeviceRequest, RoundContext, TaskDefinition
from shared.ids import JobId, ParticipantId, RoundNumber, TaskName

SAMPLES = Path(__file__).with_name("task_samples")


def make_context(
    do: str = "nothing", *, number: int = 1, metrics: tuple[str, ...] | None = ("loss", "accuracy"), **training: Any
) -> RoundContext:
    return RoundContext(
        job=JobId("heart-1"),
        job_name="heart",
        number=RoundNumber(number),
        participant=ParticipantId("hospital-a"),
        job_seed=42,
        training={"do": do, **training},
        metrics=metrics,
    )


def make_definition(class_name: str = "Behaving", **options: Any) -> TaskDefinition:
    return TaskDefinition(
        name=TaskName("sample"),
        entry=f"sample_tasks:{class_name}",
        options=options,
        threads=1,
        device=DeviceRequest.CPU,
        search_path=(SAMPLES,),
    )
