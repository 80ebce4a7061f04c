"""A journal that is not the one that the signing key was used with is noticed, and declined with until confirmed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from participant.journal import SqliteJournal
from participant.marker import advance, confirm, doubt_about, marker_path, take_into_use
from shared.errors import ConfigError


class Silo:
    """A data folder and a key folder."""

    def __init__(self, folder: Path) -> None:
        self.data, keys = folder / "data", folder / "keys"
        self.data.mkdir()
        keys.mkdir()
        self.key = keys / "signing.key"
        self.key.touch()

    def journal(self) -> SqliteJournal:
        return SqliteJournal(self.data / "journal.sqlite")

    def start(self) -> str | None:
        """Why the journal is doubted at this start; None when it is not."""
        journal = self.journal()
        doubt = take_into_use(journal, self.key)
        journal.close()
        return None if doubt is None else doubt.detail

    def copy(self, source: str, target: str) -> None:
        shutil.rmtree(self.data.parent / target, ignore_errors=True)
        shutil.copytree(self.data.parent / source, self.data.parent / target)


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path)


def test_the_first_start_and_all_after_it_are_no_doubt(silo: Silo) -> None:
    assert [silo.start() for _ in range(3)] == [None] * 3
    assert silo.journal().name().generation == 3
    assert marker_path(silo.key).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in silo.key.parent.iterdir()) == ["signing.key", "signing.key.journal"]


def test_an_empty_journal_beside_a_used_key_is_doubted_at_every_start(silo: Silo) -> None:
    silo.start()
    shutil.rmtree(silo.data)
    silo.data.mkdir()
    for _ in range(2):
        assert "is new and empty" in (silo.start() or "")


def test_the_journal_of_somebody_else_is_doubted(silo: Silo, tmp_path: Path) -> None:
    silo.start()
    other = tmp_path / "other"
    other.mkdir()
    stranger = Silo(other)
    stranger.start()
    shutil.copy(stranger.data / "journal.sqlite", silo.data / "journal.sqlite")
    assert "is another one" in (silo.start() or "")


def test_a_restored_journal_is_doubted(silo: Silo) -> None:
    silo.start()
    silo.copy("data", "backup")
    silo.start()
    silo.copy("backup", "data")
    assert "older copy: it is of generation 1, the signing key was used with 2" in (silo.start() or "")


def test_a_journal_restored_to_before_an_opening_is_doubted(silo: Silo) -> None:
    silo.start()
    silo.copy("data", "backup")
    journal = silo.journal()
    advance(journal, silo.key)  # as at each opening
    journal.close()
    silo.copy("backup", "data")
    assert "older copy" in (silo.start() or "")


def test_a_crash_between_journal_and_marker_is_no_doubt(silo: Silo) -> None:
    silo.start()
    silo.journal().set_generation(2)
    assert silo.start() is None


def test_a_new_key_begins_anew(silo: Silo) -> None:
    silo.start()
    marker_path(silo.key).unlink()
    assert silo.start() is None
    assert marker_path(silo.key).exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"journal": 3, "generation": 1}', b"\xff"])
def test_a_marker_that_says_nothing_is_a_doubt(silo: Silo, content: bytes) -> None:
    silo.start()
    marker_path(silo.key).write_bytes(content)
    assert "is no marker of a journal" in (silo.start() or "")
    confirm(silo.journal(), silo.key)
    assert silo.start() is None


def test_a_person_can_confirm(silo: Silo) -> None:
    silo.start()
    silo.start()
    shutil.rmtree(silo.data)
    silo.data.mkdir()
    assert silo.start() is not None
    confirm(silo.journal(), silo.key)
    assert doubt_about(silo.journal(), silo.key) is None
    assert silo.journal().name().generation == 3
    assert silo.start() is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_key_folder_that_cannot_be_written_is_a_warning(silo: Silo) -> None:
    silo.key.parent.chmod(0o500)
    with capture_logs() as logs:
        assert silo.start() is None
    silo.key.parent.chmod(0o700)
    assert [entry["event"] for entry in logs] == ["journal_marker_unwritable"]


def test_a_marker_that_cannot_be_written_is_a_warning_and_stays_unconfirmed(silo: Silo) -> None:
    """The same for whoever runs the tests as root: a folder lies where the new marker would be."""
    marker_path(silo.key).with_name("signing.key.journal.new").mkdir()
    with capture_logs() as logs:
        assert silo.start() is None
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("journal_marker_unwritable", "warning")]
    with pytest.raises(ConfigError, match="the journal stays doubtful"):
        confirm(silo.journal(), silo.key)
