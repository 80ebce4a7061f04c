"""`coordinator.toml` as the coordinator reads it. `deploy/samples/coordinator.full.toml` shows every key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from coordinator.retention import KEEP_ALL
from shared.config import (
    ADDRESS_SCHEMA,
    Address,
    LocalPath,
    LogTable,
    SigningTable,
    TlsTable,
)
from shared.job import Member, Table
from shared.listeners import MetricsTable, StatusTable, metrics_table, status_table

DEFAULT_LISTEN = "127.0.0.1:8443"
DEFAULT_METRICS = "127.0.0.1:9464"
DEFAULT_STATUS = "127.0.0.1:9466"
KEEP_VERSIONS_MAX = 1_000_000  # a mistake in writing is found here


def _several(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Listen = Annotated[
    tuple[Address, ...],
    BeforeValidator(_several),
    WithJsonSchema({"anyOf": [ADDRESS_SCHEMA, {"type": "array", "items": ADDRESS_SCHEMA, "minItems": 1}]}),
]


class CoordinatorTable(Table):
    """[coordinator]: who this is and where it lives."""

    id: Member = Field(description="This coordinator's name, as in its certificates.")
    listen: Listen = Field(
        default=(DEFAULT_LISTEN,), min_length=1, description="host:port for participants and operators; may be a list."
    )
    data_dir: LocalPath = Field(description="The folder of the database, the models and the audit log.")


class AccessTable(Table):
    """[access]: who is let in."""

    allowlist: LocalPath = Field(description="The allow-list that `consilo pki` writes. Followed while running.")


class ConsortiumTable(Table):
    """[consortium]: whose signing keys the silos believe. Without it masked jobs wait."""

    manifest: LocalPath = Field(description="The manifest that the silos pinned; `consilo pki manifest` writes it.")


class RetentionTable(Table):
    """[retention]: which files of model versions are kept."""

    keep_versions: int = Field(
        default=KEEP_ALL,
        ge=0,
        le=KEEP_VERSIONS_MAX,
        description="How many of its newest versions each job keeps; 0: all of them.",
    )


class CoordinatorSettings(Table):
    """The whole file."""

    coordinator: CoordinatorTable = Field(description="Who this is and where it lives.")
    tls: TlsTable = Field(description="Credentials for connections.")
    signing: SigningTable = Field(description="Credentials for messages.")
    access: AccessTable = Field(description="Who is let in.")
    consortium: ConsortiumTable | None = Field(
        default=None, description="Whose signing keys the silos believe; masked jobs need it."
    )
    retention: RetentionTable = Field(default=RetentionTable(), description="Which model versions are kept.")
    metrics: MetricsTable = metrics_table(DEFAULT_METRICS)
    status: StatusTable = status_table(DEFAULT_STATUS)
    log: LogTable = Field(default=LogTable(), description="Lines on standard error.")

    @property
    def status_wanted(self) -> bool:
        """Whether the file names the status page: then a start without it is an error."""
        return "status" in self.model_fields_set
