"""The table of mistakes: one row each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.inputs import (
    rows_authority,
    rows_certificates,
    rows_configuration,
    rows_consortium,
    rows_credentials,
    rows_folders,
    rows_jobs,
    rows_listeners,
    rows_operator,
    rows_records,
    rows_tasks,
)
from tests.inputs.place import Row

CHAPTERS: Mapping[str, Sequence[Row]] = {
    "Configurations": rows_configuration.ROWS,
    "Metrics, status page and health": rows_listeners.ROWS,
    "Certificates and keys": [*rows_credentials.ROWS, *rows_certificates.ROWS],
    "Manifest and allow-list": rows_consortium.ROWS,
    "The authority": rows_authority.ROWS,
    "Data folders, databases and journals": rows_folders.ROWS,
    "Audit logs and backups": rows_records.ROWS,
    "Job files and initial models": rows_jobs.ROWS,
    "Tasks": rows_tasks.ROWS,
    "A coordinator that is asked": rows_operator.ROWS,
}

ROWS = [row for rows in CHAPTERS.values() for row in rows]
