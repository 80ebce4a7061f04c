"""What participant.toml installs, as the task runner takes it."""

from __future__ import annotations

from participant.settings import ParticipantSettings
from participant.tasks.contract import DeviceRequest, TaskDefinition
from shared.ids import TaskName


def task_definitions(settings: ParticipantSettings) -> dict[TaskName, TaskDefinition]:
    """One definition for each [tasks.NAME]."""
    return {
        name: TaskDefinition(
            name=name,
            entry=table.entry,
            options=table.options,
            threads=table.threads or None,
            device=DeviceRequest(settings.training.device),
        )
        for name, table in settings.tasks.items()
    }
