"""The silo's files: private, named by parsed ids, and left behind by nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from participant.spool import Spool
from shared.errors import StorageError
from shared.ids import Digest, JobId, RoundKey, RoundNumber

KEY = RoundKey(JobId("heart-1"), RoundNumber(3))
OTHER = RoundKey(JobId("heart-1"), RoundNumber(4))
PLAN = Digest.of(b"plan")


def test_folders_are_for_the_daemons_user_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.begin(KEY, PLAN)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert folders
    assert all(path.stat().st_mode & 0o077 == 0 for path in folders)


def test_beginning_again_leaves_nothing_of_the_first_try(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.begin(KEY, PLAN)
    spool.deltas(KEY).write_bytes(b"old")
    spool.begin(KEY, PLAN)
    assert not spool.deltas(KEY).exists()


def test_a_fetched_model_gets_its_name_when_it_is_verified(tmp_path: Path) -> None:
    spool, digest = Spool(tmp_path), Digest.of(b"model")
    spool.partial_model(digest).write_bytes(b"model")
    kept = spool.keep_model(digest)
    assert kept == spool.model(digest)
    assert kept.read_bytes() == b"model"
    assert not spool.partial_model(digest).exists()


def test_a_model_that_a_disk_changed_is_not_had(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    digest = Digest.of(b"a model")
    assert not spool.has_model(digest)
    spool.model(digest).write_bytes(b"a model")
    assert spool.has_model(digest)
    spool.model(digest).write_bytes(b"a modem")
    assert not spool.has_model(digest)
    spool.model(digest).unlink()
    spool.model(digest).mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        spool.has_model(digest)


def test_only_wanted_models_and_rounds_are_kept(tmp_path: Path) -> None:
    spool, wanted, stale = Spool(tmp_path), Digest.of(b"wanted"), Digest.of(b"stale")
    for digest in (wanted, stale):
        spool.model(digest).write_bytes(b"x")
    spool.keep_only_models({wanted})
    assert spool.model(wanted).exists()
    assert not spool.model(stale).exists()
    spool.begin(KEY, PLAN)
    spool.begin(OTHER, PLAN)
    spool.deltas(KEY).write_bytes(b"x")
    spool.keep_only_rounds({KEY})
    assert spool.deltas(KEY).exists()
    assert not spool.deltas(OTHER).parent.exists()


def test_a_tasks_state_moves_on_only_when_it_is_kept(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.begin(KEY, PLAN)
    assert not spool.keep_state(KEY)
    spool.new_state(KEY).write_bytes(b"momentum")
    assert spool.keep_state(KEY)
    spool.erase(KEY)
    assert spool.state(KEY.job, KEY.number).read_bytes() == b"momentum"
    spool.begin(OTHER, PLAN)
    spool.new_state(OTHER).write_bytes(b"newer")
    spool.keep_state(OTHER)
    spool.drop_older_states(OTHER.job, OTHER.number)
    assert not spool.state(KEY.job, KEY.number).exists()
    assert spool.state(OTHER.job, OTHER.number).read_bytes() == b"newer"


def test_keeping_a_state_again_after_a_crash_finds_it_kept(tmp_path: Path) -> None:
    """The move is durable before the journal says so: a crash in between must not lose the state."""
    spool = Spool(tmp_path)
    spool.begin(KEY, PLAN)
    spool.new_state(KEY).write_bytes(b"momentum")
    assert spool.keep_state(KEY)
    assert spool.keep_state(KEY)


def test_a_model_that_would_fill_the_disk_is_not_begun(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.require_room(PLAN, 1)
    with pytest.raises(StorageError, match="make room"):
        spool.require_room(PLAN, 2**62)


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_bytes(b"in the way")
    with pytest.raises(StorageError, match="cannot be made"):
        Spool(tmp_path)
