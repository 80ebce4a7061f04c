"""How a silo notices that its journal is not the one it was: a small file beside the signing key.

The journal holds what must never happen twice, and the signing key is what it would happen with. So the marker says
with which journal the key was used: by its name, and by its generation, a number that rises in both at each start and
with each total that this silo helps to open. A journal of another name, or of a lower generation, beside such a marker
is an empty or a restored one: what this silo promised since is not in it, and it could be led to say a second time what
may be said once. Such a journal is *doubtful*, and every plan is declined until a person has confirmed it. With that
the rounds that it has open are over, and its jobs are stopped.

The journal is raised first: a crash in between leaves it ahead, which is no doubt. What this cannot see is a machine
that was set back as a whole, key folder and all, or a copy of the journal since which no total was opened. And it sees
nothing where the daemon may not write in the key's folder: that is a warning at each start, and in
`consilo participant check`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from participant.journal_file import JournalName
from shared.durable import sync_path
from shared.errors import ConfigError

log = structlog.get_logger()

CONFIRMED = "confirmed after a restore"  # why a silo takes no further part in the jobs of an older journal

_ABOUT = "Written by the participant daemon: which journal the signing key beside it was used with. Leave it here."


class NamedJournal(Protocol):
    """What `participant.journal.SqliteJournal` has beside its verbs."""

    def name(self) -> JournalName: ...

    def set_generation(self, generation: int) -> None: ...

    def end_everything(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a journal is not believed."""

    detail: str


def marker_path(signing_key: Path) -> Path:
    """The marker of a signing key."""
    return signing_key.with_name(signing_key.name + ".journal")


def doubt_about(journal: NamedJournal, signing_key: Path) -> Doubt | None:
    """Whether this journal is the one that the key was used with last. Changes nothing."""
    path, found = marker_path(signing_key), journal.name()
    try:
        known = _read(path)
    except ConfigError as error:
        return Doubt(str(error))
    if known is None:
        return None
    if known.name != found.name:
        what = "is new and empty" if not found.generation else "is another one"
        return Doubt(
            f"the signing key was used with journal {known.name[:8]}, but the one in the data folder {what} "
            f"({found.name[:8]}): what this silo promised before is not in it"
        )
    if known.generation > found.generation:
        return Doubt(
            f"the journal is an older copy: it is of generation {found.generation}, the signing key was used with "
            f"{known.generation}: what this silo promised since is not in it"
        )
    return None


def take_into_use(journal: NamedJournal, signing_key: Path) -> Doubt | None:
    """At start: raise journal and marker, or say why not. Raises StorageError or DurabilityUnknown."""
    doubt = doubt_about(journal, signing_key)
    if doubt is None:
        advance(journal, signing_key)
    return doubt


def advance(journal: NamedJournal, signing_key: Path) -> None:
    """Raise both, so that an older copy of the journal is known for one. Raises StorageError or DurabilityUnknown."""
    try:
        _raise(journal, signing_key)
    except OSError as error:
        log.warning(
            "journal_marker_unwritable", file=str(marker_path(signing_key)), detail=error.strerror,
            meaning="a journal that is lost or restored from a backup cannot be noticed",
            advice="let the daemon write in the folder of the signing key",
        )  # fmt: skip


def is_writable(signing_key: Path) -> bool:
    """Whether a marker could be written, found out by writing another file. Takes it away again."""
    probe = marker_path(signing_key).with_name(marker_path(signing_key).name + ".check")
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        probe.unlink()
    except OSError:
        return False
    return True


def confirm(journal: NamedJournal, signing_key: Path) -> None:
    """A person says that this journal may be used. Raises ConfigError when that cannot be written down.

    What it has open stays behind: an older copy has rounds in it whose totals this silo may have helped to open since,
    and would help to open a second time.
    """
    journal.end_everything(CONFIRMED)
    try:
        _raise(journal, signing_key)
    except OSError as error:
        raise ConfigError(
            f"{marker_path(signing_key)} cannot be written ({error.strerror}): the journal stays doubtful until it is"
        ) from None


def _raise(journal: NamedJournal, signing_key: Path) -> None:
    """Raises OSError for the marker, StorageError or DurabilityUnknown for the journal."""
    path, found = marker_path(signing_key), journal.name()
    try:
        known = _read(path)
    except ConfigError:
        known = None
    generation = 1 + max(found.generation, known.generation if known is not None else 0)
    journal.set_generation(generation)
    _write(path, JournalName(found.name, generation))


def _read(path: Path) -> JournalName | None:
    """None when there is no marker, or none that this process may see. Raises ConfigError for one that says nothing."""
    try:
        body: Any = json.loads(path.read_bytes())
        name, generation = body["journal"], body["generation"]
    except OSError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(f"{path} is no marker of a journal: it was changed, or cut short") from None
    if not isinstance(name, str) or not isinstance(generation, int):
        raise ConfigError(f"{path} is no marker of a journal: it was changed")
    return JournalName(name, generation)


def _write(path: Path, name: JournalName) -> None:
    """Durable on return. Raises OSError, and then the old marker is still there."""
    body = json.dumps({"about": _ABOUT, "journal": name.name, "generation": name.generation}, indent=1) + "\n"
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        left = memoryview(body.encode())
        while left:  # a disk that is nearly full takes a part, and says no only when asked again
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.replace(path)
    sync_path(path.parent)
