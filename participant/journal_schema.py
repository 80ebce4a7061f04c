"""The journal's tables as SQL, and how a file of an older version becomes one of this.

A migration leads from its version to the next, inside the transaction of whoever runs it: nothing here begins or ends
one. It keeps what is on record, and says nothing that was not: what the older version never knew stays unknown.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping

from shared.job import canonical_json

SCHEMA_VERSION = 2

SCHEMA = """
CREATE TABLE meta (
    schema_version INTEGER NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL
);
CREATE TABLE jobs (
    job TEXT PRIMARY KEY,
    jobspec BLOB NOT NULL,
    finished_round INTEGER NOT NULL,
    state_round INTEGER NOT NULL,
    misses INTEGER NOT NULL,
    stopped TEXT NOT NULL,
    verified_round INTEGER NOT NULL,
    verified_digest BLOB NOT NULL
);
CREATE TABLE rounds (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    plan BLOB NOT NULL,
    spooled BLOB NOT NULL,
    attempt BLOB NOT NULL,
    PRIMARY KEY (job, round)
);
CREATE TABLE cores (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    core BLOB NOT NULL,
    PRIMARY KEY (job, round)
);
CREATE TABLE aborts (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    PRIMARY KEY (job, round)
);
CREATE TABLE openings (
    job TEXT NOT NULL,
    round INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    task TEXT NOT NULL,
    model BLOB NOT NULL,
    attempt BLOB NOT NULL,
    survivors BLOB NOT NULL,
    names TEXT NOT NULL,
    terms BLOB NOT NULL,
    reply BLOB NOT NULL,
    PRIMARY KEY (job, round, purpose)
);
CREATE INDEX openings_by_total ON openings (task, model);
CREATE TABLE heads (
    job TEXT PRIMARY KEY,
    result BLOB NOT NULL,
    position INTEGER NOT NULL
);
CREATE TABLE allowances (
    job TEXT PRIMARY KEY
);
"""


def _from_1(database: sqlite3.Connection) -> None:
    """Version 1 kept no signed results, no allowances, and no digests of what is in the spool."""
    database.execute("CREATE TABLE heads (job TEXT PRIMARY KEY, result BLOB NOT NULL, position INTEGER NOT NULL)")
    database.execute("CREATE TABLE allowances (job TEXT PRIMARY KEY)")
    rows = database.execute("SELECT job, round, spooled FROM rounds WHERE spooled != x''").fetchall()
    for job, number, spooled in rows:
        kept = canonical_json({**json.loads(spooled), "root": None})
        database.execute("UPDATE rounds SET spooled = ? WHERE job = ? AND round = ?", (kept, job, number))


MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], None]] = {1: _from_1}
"""By the version that each begins with."""
