"""Audit logs and backups that cannot be used."""

from __future__ import annotations

from consilo.pki_manifest import write_manifest
from coordinator.backup import BackupOrder, make_backup
from shared.build import BuildInfo
from shared.clock import SystemClock
from shared.identity import Role, SigningKey
from tests.inputs.place import Place, Row, a_folder, adding, removing, replacing, several, writing

COORDINATOR_RUNS = "coordinator run"
VERIFY = "audit verify --log coordinator-data/audit.log"


def a_new_coordinator_key(place: Place) -> None:
    place.issue(Role.COORDINATOR, "coordinator", into="coordinator")
    write_manifest(place.authority, out=place.path("pki/consortium.json"), now=SystemClock().now())


def backed_up(place: Place) -> None:
    """A backup, and a data folder that is gone."""
    place.keep_records()
    order = BackupOrder(
        data_dir=place.path("coordinator-data"),
        destination=place.path("backup"),
        coordinator="coordinator",
        verifying_key=SigningKey.load(place.path("coordinator/signing.key")).verifying_key,
        now=SystemClock().now(),
        build=BuildInfo("0", "0", "0"),
    )
    make_backup(order)
    place.remove("coordinator-data")


ROWS = [
    Row(
        name="an audit log that was changed",
        spoil=several(
            Place.keep_records, replacing("coordinator-data/audit.log", "coordinator_started", "coordinator_stopped")
        ),
        command=COORDINATOR_RUNS,
        says=(
            "line 1 of the audit file differs from the database: one of the two was changed. Keep "
            "both as they are; `consilo audit verify --log` says whether the file still bears its "
            "signatures"
        ),
    ),
    Row(
        name="an audit log that is longer than the database",
        spoil=several(Place.keep_records, adding("coordinator-data/audit.log", "more\n")),
        command=COORDINATOR_RUNS,
        says=(
            "the audit file has 5 bytes after line 1, where the database ends: was the database "
            "restored from an older backup?"
        ),
    ),
    Row(
        name="a folder as audit log",
        spoil=several(Place.keep_records, a_folder("coordinator-data/audit.log")),
        command=COORDINATOR_RUNS,
        says="opening /srv/consilo/coordinator-data/audit.log failed: Is a directory",
    ),
    Row(
        name="another signing key than the log's",
        spoil=several(Place.keep_records, a_new_coordinator_key),
        command=COORDINATOR_RUNS,
        says=(
            "the audit log in data_dir was signed with another key than [signing] key: take the key "
            "that it was begun with back into use (a renewed certificate may keep its key: `consilo "
            "pki request`)"
        ),
    ),
    Row(
        name="verifying a log that was changed",
        spoil=several(
            Place.keep_records, replacing("coordinator-data/audit.log", "coordinator_started", "coordinator_stopped")
        ),
        command=f"{VERIFY} --certificate coordinator/signing.crt",
        says=(
            "the audit log does not verify: line 1: the signature does not verify: the line was "
            "changed, or another key signed it"
        ),
    ),
    Row(
        name="verifying with a head of another log",
        spoil=Place.keep_records,
        command=f"{VERIFY} --certificate coordinator/signing.crt --head {64 * '0'}",
        says=(
            "the audit log does not verify: no entry of this log (1 entries, head ...) has the head "
            "0000000000000000000000000000000000000000000000000000000000000000: its tail was cut, or "
            "this is another log"
        ),
    ),
    Row(
        name="verifying with a head that is none",
        spoil=Place.keep_records,
        command=f"{VERIFY} --certificate coordinator/signing.crt --head 12ab",
        says="Invalid value for '--head': expected 64 lower-case hexadecimal digits, got '12ab'",
        code=2,
    ),
    Row(
        name="verifying without a certificate",
        spoil=Place.keep_records,
        command=VERIFY,
        says=(
            "which coordinator signed the log? Give its signing certificate with --certificate, or as"
            " operator.coordinator_certificate in operator.toml"
        ),
        code=2,
    ),
    Row(
        name="verifying with the TLS certificate",
        spoil=Place.keep_records,
        command=f"{VERIFY} --certificate coordinator/tls.crt",
        says=(
            "coordinator/tls.crt: expected a signing certificate (Ed25519), got another kind: is this"
            " the TLS certificate?"
        ),
    ),
    Row(
        name="verifying with a participant's certificate",
        spoil=Place.keep_records,
        command=f"{VERIFY} --certificate hospital-a/signing.crt --ca pki/ca.crt",
        says=("hospital-a/signing.crt: expected the coordinator's certificate, got that of participant hospital-a"),
    ),
    Row(
        name="verifying with a file that is no certificate",
        spoil=Place.keep_records,
        command=f"{VERIFY} --certificate job.toml",
        says="job.toml: expected a certificate in PEM or DER form, got something else",
    ),
    Row(
        name="verifying with a CA that is none",
        spoil=Place.keep_records,
        command=f"{VERIFY} --certificate coordinator/signing.crt --ca job.toml",
        says="job.toml: expected the authority's certificate in PEM form, got something else",
    ),
    Row(
        name="verifying a file that is no log",
        command="audit verify --log initial.safetensors --certificate coordinator/signing.crt",
        says=(
            "the audit log does not verify: line 1: it has no line feed at its end: it was cut, or "
            "written only half before a crash"
        ),
    ),
    Row(
        name="verifying a log that is not there",
        command="audit verify --log nowhere --certificate coordinator/signing.crt",
        says="Invalid value for '--log': File 'nowhere' does not exist.",
        code=2,
    ),
    Row(
        name="a backup into a folder that is not empty",
        spoil=Place.keep_records,
        command="coordinator backup pki",
        says="pki is not empty: a backup goes into a folder of its own, which may be absent",
    ),
    Row(
        name="a backup into a file",
        spoil=Place.keep_records,
        command="coordinator backup job.toml",
        says="making job.toml failed: File exists",
    ),
    Row(
        name="a backup into the data folder",
        spoil=Place.keep_records,
        command="coordinator backup coordinator-data/backup",
        says=(
            "coordinator-data/backup is in the data folder /srv/consilo/coordinator-data and would be"
            " lost with it: name a folder on another disk"
        ),
    ),
    Row(
        name="a backup of nothing",
        command="coordinator backup backup",
        says=(
            "expected the database /srv/consilo/coordinator-data/coordinator.db, which is not there: "
            "has a coordinator run in this folder?"
        ),
    ),
    Row(
        name="a backup that is not there",
        command="coordinator restore nowhere",
        says="Invalid value for 'SOURCE': Directory 'nowhere' does not exist.",
        code=2,
    ),
    Row(
        name="a folder that is no backup",
        command="coordinator restore pki",
        says="pki has no backup.json: it is no backup, or one that was interrupted: take another",
    ),
    Row(
        name="a backup whose list is damaged",
        spoil=writing("backup/backup.json", "damaged"),
        command="coordinator restore backup",
        says=(
            "backup/backup.json is no description of a backup of this version: Invalid JSON: expected"
            " value at line 1 column 1"
        ),
    ),
    Row(
        name="a backup into a data folder that is used",
        spoil=several(backed_up, Place.keep_records),
        command="coordinator restore backup",
        says=(
            "coordinator.data_dir: /srv/consilo/coordinator-data is not empty (it has 'audit.log'): a"
            " backup is restored into an empty or absent folder and replaces nothing. Move the old "
            "one aside, and keep it"
        ),
    ),
    Row(
        name="a backup that was changed",
        spoil=several(backed_up, adding("backup/audit.log", "x")),
        command="coordinator restore backup",
        says=("backup/audit.log is damaged: expected ... bytes with digest ..., got ... with .... Take another backup"),
        leaves=("coordinator-data*",),
    ),
    Row(
        name="a backup that lacks a file",
        spoil=several(backed_up, removing("backup/audit.log")),
        command="coordinator restore backup",
        says="backup/audit.log is not there, but backup.json has it: the backup is not whole",
        leaves=("coordinator-data*",),
    ),
    Row(
        name="a backup of another signing key",
        spoil=several(backed_up, a_new_coordinator_key),
        command="coordinator restore backup",
        says=(
            "backup/audit.log: line 1: the signature does not verify: the line was changed, or "
            "another key signed it. Expected a log that [signing] key signed: take the key of the "
            "coordinator that the backup is of"
        ),
        leaves=("coordinator-data*",),
    ),
]
