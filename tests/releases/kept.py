"""What is kept of a release: a folder with its recorded sessions and with what its daemons left on disk.

release.json        its version, and when it was recorded: certificates are looked at as of then
frames/*.jsonl      the sessions (`tests.releases.frames`)
ca.crt, consortium.json   by which certificates and signatures are verified: public, and of throw-away keys
coordinator.sql     the coordinator's database, killed while a round was open
journal*.sql        a silo's journal at the end, and one of a silo that was killed in a masked attempt
audit.log           the audit log beside that database
samples/            the sample configurations and job files
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from coordinator.storage.listing import AUDIT_FILE, DATABASE_FILE
from participant.journal_file import JOURNAL_FILE
from shared.consortium import Consortium
from tests.releases.conversation import Conversation
from tests.releases.frames import Recorded, read_frames, write_frames
from tests.releases.recording import KILLED, MEMBERS, Listened, recorded

RELEASES = Path(__file__).parent
ROOT = RELEASES.parent.parent
JOURNALS = {"journal.sql": Path(MEMBERS[0]) / "data", "journal-killed.sql": Path(KILLED)}


@dataclass(frozen=True)
class KeptRelease:
    """The folder of one release."""

    folder: Path

    @cached_property
    def version(self) -> str:
        return str(self._described["version"])

    @cached_property
    def conversation(self) -> Conversation:
        return Conversation(
            frames=read_frames(self.folder / "frames"),
            consortium=Consortium.load(self.folder / "consortium.json", pinned=None),
            ca_pem=(self.folder / "ca.crt").read_bytes(),
            recorded_at=datetime.fromisoformat(self._described["recorded_at"]),
        )

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    @property
    def samples(self) -> Sequence[Path]:
        return sorted((self.folder / "samples").glob("*.toml"))

    def database(self, name: str, into: Path) -> Path:
        """A database as the release left it, from its SQL."""
        path = into / f"{name}.db"
        path.touch(mode=0o600)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.executescript((self.folder / name).read_text(encoding="utf-8"))
            connection.execute("PRAGMA journal_mode=WAL")
        return path

    @cached_property
    def _described(self) -> Mapping[str, str]:
        described: Mapping[str, str] = json.loads((self.folder / "release.json").read_text(encoding="utf-8"))
        return described


def releases() -> Sequence[KeptRelease]:
    """All that are committed, by the names of their folders."""
    return [KeptRelease(found.parent) for found in sorted(RELEASES.glob("*/release.json"))]


def keep_release(version: str, out: Path, *, workspace: Path) -> KeptRelease:
    """Record what this code says and writes, into the new folder `out`."""
    with recorded(workspace) as (federation, frames):
        out.mkdir(parents=True)
        _write(out, version, federation, frames)
    return KeptRelease(out)


def _write(out: Path, version: str, federation: Listened, frames: Mapping[str, Sequence[Recorded]]) -> None:
    consortium = federation.consortium
    described = {"version": version, "recorded_at": consortium.now.isoformat()}
    (out / "release.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (out / "frames").mkdir()
    for name, heard in frames.items():
        write_frames(out / "frames" / f"{name}.jsonl", heard)
    (out / "ca.crt").write_bytes(consortium.ca_pem)
    shutil.copy(consortium.manifest().path, out / "consortium.json")
    data = federation.folder / "coordinator-data"
    _write_sql(data / DATABASE_FILE, out / "coordinator.sql")
    shutil.copy(data / AUDIT_FILE, out / "audit.log")
    for name, folder in JOURNALS.items():
        _write_sql(federation.folder / folder / JOURNAL_FILE, out / name)
    (out / "samples").mkdir()
    for sample in (ROOT / "deploy" / "samples").glob("*.toml"):
        shutil.copy(sample, out / "samples")
    for job in (ROOT / "examples").glob("*/job.toml"):
        shutil.copy(job, out / "samples" / f"job.{job.parent.name}.toml")


def _write_sql(database: Path, out: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        out.write_text("".join(f"{line}\n" for line in connection.iterdump()), encoding="utf-8")
