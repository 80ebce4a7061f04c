"""Data folders, databases and journals that cannot be used."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3

from tests.inputs.place import Place, Row, Spoil, a_folder, removing, replacing, several, writing

COORDINATOR_RUNS = "coordinator run"
PARTICIPANT_RUNS = "participant run"
JOURNAL_OPENED = ("hospital-a-data/lock", "hospital-a-data/task-logs", "hospital-a-data/journal.sqlite-*")


def sql(name: str, statement: str) -> Spoil:
    def spoil(place: Place) -> None:
        with contextlib.closing(sqlite3.connect(place.path(name))) as database:
            database.execute(statement)
            database.commit()

    return spoil


def damaged(name: str) -> Spoil:
    """A disk that gives back other bytes than it was given."""

    def spoil(place: Place) -> None:
        with place.path(name).open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 12288)

    return spoil


def cut(name: str, size: int) -> Spoil:
    def spoil(place: Place) -> None:
        os.truncate(place.path(name), size)

    return spoil


def in_use(name: str) -> Spoil:
    """As by another daemon: the lock goes with the place."""

    def spoil(place: Place) -> None:
        descriptor = os.open(place.path(name), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        place.held.append(descriptor)

    return spoil


ROWS = [
    Row(
        name="a file as data folder: coordinator",
        spoil=writing("coordinator-data", ""),
        command=COORDINATOR_RUNS,
        says=("coordinator.data_dir: expected a folder, /srv/consilo/coordinator-data is a file: name another folder"),
    ),
    Row(
        name="a file as data folder: participant",
        spoil=writing("hospital-a-data", ""),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.data_dir: expected a folder that this user may write in, "
            "/srv/consilo/hospital-a-data is none (File exists): change its owner or mode, or name "
            "another"
        ),
    ),
    Row(
        name="a data folder that cannot be made: coordinator",
        spoil=replacing("coordinator.toml", "coordinator-data", "/proc/consilo"),
        command=COORDINATOR_RUNS,
        says="making the data folder /proc/consilo failed: No such file or directory",
    ),
    Row(
        name="a data folder that cannot be made: participant",
        spoil=replacing("participant.toml", "hospital-a-data", "/proc/consilo"),
        command=PARTICIPANT_RUNS,
        says=(
            "participant.data_dir: expected a folder that this user may write in, /proc/consilo is "
            "none (No such file or directory): change its owner or mode, or name another"
        ),
    ),
    Row(
        name="a data folder that is in use: coordinator",
        spoil=several(Place.keep_records, in_use("coordinator-data/coordinator.lock")),
        command=COORDINATOR_RUNS,
        says=(
            "the data folder /srv/consilo/coordinator-data is in use by another coordinator (process "
            "...): stop that one, or give this one its own data folder"
        ),
    ),
    Row(
        name="a data folder that is in use: participant",
        spoil=several(Place.keep_journal, in_use("hospital-a-data/lock")),
        command=PARTICIPANT_RUNS,
        says=(
            "/srv/consilo/hospital-a-data is in use, by another participant daemon or a command that "
            "keeps it for a moment (doctor, check, gc): stop the daemon, or try again; or use another data_dir"
        ),
    ),
    Row(
        name="a journal that is in use",
        spoil=several(Place.keep_journal, in_use("hospital-a-data/lock")),
        command="participant confirm-journal",
        says=(
            "/srv/consilo/hospital-a-data is in use, by another participant daemon or a command that "
            "keeps it for a moment (doctor, check, gc): stop the daemon, or try again; or use another data_dir"
        ),
    ),
    Row(
        name="a folder as database",
        spoil=several(Place.keep_records, a_folder("coordinator-data/coordinator.db")),
        command=COORDINATOR_RUNS,
        says="cannot create the database /srv/consilo/coordinator-data/coordinator.db: Is a directory",
        leaves=("*.lock",),
    ),
    Row(
        name="a database of a newer version",
        spoil=several(
            Place.keep_records, sql("coordinator-data/coordinator.db", "UPDATE schema_version SET version = 99")
        ),
        command=COORDINATOR_RUNS,
        says=(
            "/srv/consilo/coordinator-data/coordinator.db: expected database schema version 3 or "
            "older, found 99: install a newer Consilo, or name another data folder"
        ),
    ),
    Row(
        name="a database without a version",
        spoil=several(Place.keep_records, sql("coordinator-data/coordinator.db", "DELETE FROM schema_version")),
        command=COORDINATOR_RUNS,
        says=(
            "expected a Consilo database at /srv/consilo/coordinator-data/coordinator.db, found one "
            "without a schema version: restore a backup of the data folder, or name another data "
            "folder"
        ),
    ),
    Row(
        name="a file that is no database",
        spoil=several(Place.keep_records, writing("coordinator-data/coordinator.db", "no database" * 1000)),
        command=COORDINATOR_RUNS,
        says=(
            "expected a Consilo database at /srv/consilo/coordinator-data/coordinator.db: file is not"
            " a database: restore a backup of the data folder, or name another data folder"
        ),
    ),
    Row(
        name="another program's database",
        spoil=several(
            Place.keep_records,
            writing("coordinator-data/coordinator.db", ""),
            sql("coordinator-data/coordinator.db", "CREATE TABLE recipes (name)"),
        ),
        command=COORDINATOR_RUNS,
        says=(
            "expected a Consilo database at /srv/consilo/coordinator-data/coordinator.db, found "
            "tables ['recipes']: restore a backup of the data folder, or name another data folder"
        ),
        leaves=("coordinator-data/coordinator.db",),
    ),
    Row(
        name="a database that is damaged",
        spoil=several(Place.keep_records, damaged("coordinator-data/coordinator.db")),
        command=COORDINATOR_RUNS,
        says=(
            "the database /srv/consilo/coordinator-data/coordinator.db cannot be read: database disk "
            "image is malformed: restore a backup of the data folder, or name another data folder"
        ),
    ),
    Row(
        name="a database that is cut short",
        spoil=several(Place.keep_records, cut("coordinator-data/coordinator.db", 5000)),
        command=COORDINATOR_RUNS,
        says=(
            "expected a Consilo database at /srv/consilo/coordinator-data/coordinator.db: database "
            "disk image is malformed: restore a backup of the data folder, or name another data "
            "folder"
        ),
    ),
    Row(
        name="a data folder that is half restored",
        spoil=several(Place.keep_records, writing("coordinator-data/restoring", "")),
        command=COORDINATOR_RUNS,
        says=(
            "coordinator.data_dir: a restore into /srv/consilo/coordinator-data was interrupted, or "
            "is going on: what is in there is not whole. Run `consilo coordinator restore` again"
        ),
    ),
    Row(
        name="a journal of a newer version",
        spoil=several(Place.keep_journal, sql("hospital-a-data/journal.sqlite", "UPDATE meta SET schema_version = 99")),
        command=PARTICIPANT_RUNS,
        says=(
            "the journal /srv/consilo/hospital-a-data/journal.sqlite has schema version 99, this "
            "program knows 2: run the version of Consilo that wrote it, or a newer one"
        ),
        leaves=JOURNAL_OPENED,
    ),
    Row(
        name="a journal without a version",
        spoil=several(Place.keep_journal, sql("hospital-a-data/journal.sqlite", "DELETE FROM meta")),
        command=PARTICIPANT_RUNS,
        says=(
            "expected this silo's journal at /srv/consilo/hospital-a-data/journal.sqlite, found "
            "another database: bring it back from a backup of it, or move it away and see `consilo "
            "participant confirm-journal --help` before the daemon is started without it"
        ),
        leaves=JOURNAL_OPENED,
    ),
    Row(
        name="a file that is no journal",
        spoil=several(Place.keep_journal, writing("hospital-a-data/journal.sqlite", "no journal" * 1000)),
        command=PARTICIPANT_RUNS,
        says=(
            "expected this silo's journal at /srv/consilo/hospital-a-data/journal.sqlite: file is not"
            " a database: bring it back from a backup of it, or move it away and see `consilo "
            "participant confirm-journal --help` before the daemon is started without it"
        ),
        leaves=JOURNAL_OPENED,
    ),
    Row(
        name="another program's database as journal",
        spoil=several(
            Place.keep_journal,
            writing("hospital-a-data/journal.sqlite", ""),
            sql("hospital-a-data/journal.sqlite", "CREATE TABLE meta (name)"),
        ),
        command=PARTICIPANT_RUNS,
        says=(
            "expected this silo's journal at /srv/consilo/hospital-a-data/journal.sqlite, found "
            "another database: bring it back from a backup of it, or move it away and see `consilo "
            "participant confirm-journal --help` before the daemon is started without it"
        ),
        leaves=("hospital-a-data/*",),
    ),
    Row(
        name="a journal that is damaged",
        spoil=several(Place.keep_journal, damaged("hospital-a-data/journal.sqlite")),
        command=PARTICIPANT_RUNS,
        says=(
            "expected this silo's journal at /srv/consilo/hospital-a-data/journal.sqlite: database "
            "disk image is malformed: bring it back from a backup of it, or move it away and see "
            "`consilo participant confirm-journal --help` before the daemon is started without it"
        ),
        leaves=JOURNAL_OPENED,
    ),
    Row(
        name="a folder as journal",
        spoil=several(Place.keep_journal, a_folder("hospital-a-data/journal.sqlite")),
        command=PARTICIPANT_RUNS,
        says=(
            "the journal /srv/consilo/hospital-a-data/journal.sqlite cannot be opened: unable to open"
            " database file: see whether its disk is full, read-only or failing"
        ),
        leaves=JOURNAL_OPENED,
    ),
    Row(
        name="a journal that is lost",
        spoil=several(Place.keep_journal, removing("hospital-a-data")),
        command="participant check --json",
        says=(
            "/srv/consilo/hospital-a-data/journal.sqlite does not exist, although the signing key was"
            " used with a journal: bring it back, or see `consilo participant confirm-journal --help`"
        ),
        leaves=("hospital-a-data*",),
    ),
    Row(
        name="a marker that was changed",
        spoil=several(Place.keep_journal, writing("hospital-a/signing.key.journal", "1")),
        command="participant check --json",
        says=(
            "/srv/consilo/hospital-a/signing.key.journal is no marker of a journal: it was changed, "
            "or cut short: see `consilo participant confirm-journal --help`"
        ),
        leaves=("hospital-a-data/lock",),
    ),
    Row(
        name="allowing a repeat before there is a journal",
        command="participant allow heart-1",
        says=(
            "/srv/consilo/hospital-a-data/journal.sqlite does not exist: this silo has taken part in "
            "nothing that could be repeated"
        ),
    ),
    Row(
        name="allowing a repeat of a job that has no such name",
        spoil=Place.keep_journal,
        command="participant allow Heart_1",
        says=(
            "Invalid value for JOB: a job id has 1 to 63 characters a-z, 0-9 and '-', none of them "
            "'-' at an end; got 'Heart_1'"
        ),
        code=2,
    ),
    Row(
        name="taking back what was not allowed",
        spoil=Place.keep_journal,
        command="participant allow heart-1 --undo",
        says="job heart-1 is not among those that this command allowed",
    ),
    Row(
        name="taking back without a job",
        spoil=Place.keep_journal,
        command="participant allow --undo",
        says="which job? Give its id",
        code=2,
    ),
]
