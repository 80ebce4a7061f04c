"""The tables of the coordinator's database, as the newest version has them.

A change here is a new `SCHEMA_VERSION` and a step in `coordinator.storage.migrations` that makes the same tables of the
ones before: a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA_VERSION = 3  # 2: timers, older copies, promoted and pruned versions; 3: a job's control and its pause

metadata = sa.MetaData()
schema_version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer, nullable=False))
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("job", sa.String, nullable=False, unique=True),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("submitted_by", sa.String, nullable=False),
    sa.Column("submitted_at", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("control_revision", sa.Integer, nullable=False, server_default="0"),
    sa.Column("control_deadline_s", sa.Float),
    sa.Column("control_quorum", sa.Integer),
    sa.Column("paused_by", sa.String),
    sa.Column("paused_at", sa.String),
    sa.Column("pause_reason", sa.String),
)
rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("job", sa.String, sa.ForeignKey("jobs.job"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("purpose", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("summary", sa.LargeBinary, nullable=False),
    sa.Column("result", sa.LargeBinary, nullable=False),
)
journal = sa.Table(
    "journal",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("job", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["job", "number"], ["rounds.job", "rounds.number"]),
    sa.Index("journal_of_round", "job", "number", "seq"),
)
timers = sa.Table(
    "timers",
    metadata,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("remaining_s", sa.Float, nullable=False),
    sa.ForeignKeyConstraint(["job", "number"], ["rounds.job", "rounds.number"]),
)
models = sa.Table(
    "models",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("manifest", sa.LargeBinary, nullable=False),
    sa.Column("promoted", sa.Integer, nullable=False, server_default="0"),
    sa.Column("pruned", sa.Integer, nullable=False, server_default="0"),
)
set_backs = sa.Table(
    "set_backs",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("why", sa.String, nullable=False),
    sa.Column("lost", sa.String, nullable=False),
    sa.Column("ended", sa.Integer, nullable=False),
)
audit_log = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("line", sa.LargeBinary, nullable=False),
)


def create_schema(connection: sa.Connection) -> None:
    """All tables, in a database that has none."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(schema_version.insert().values(version=SCHEMA_VERSION))
