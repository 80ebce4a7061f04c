"""What lies on a disk is counted by kind, whatever comes and goes meanwhile."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared.disk_use import DiskUse, keep_looking, look_at
from shared.errors import StorageError


class Kind(StrEnum):
    BOXES = "boxes"
    REST = "rest"


def kind_of(name: str) -> Kind:
    return Kind.BOXES if name == "boxes" else Kind.REST


def test_a_folder_counts_with_all_that_is_in_it(tmp_path: Path) -> None:
    inner = tmp_path / "boxes" / "1" / "2"
    inner.mkdir(parents=True)
    (inner / "a").write_bytes(bytes(10))
    (tmp_path / "boxes" / "b").write_bytes(bytes(5))
    use = look_at(tmp_path, Kind, kind_of)
    assert use.files == {Kind.BOXES: 2, Kind.REST: 0}
    assert use.sizes == {Kind.BOXES: 15, Kind.REST: 0}
    assert use.size > use.free > 0


def test_what_the_file_system_keeps_for_others_is_not_of_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an empty disk with a large reserve looks like one that fills up."""
    monkeypatch.setattr("shared.disk_use.shutil.disk_usage", lambda _: SimpleNamespace(total=252, used=32, free=71))
    use = look_at(tmp_path, Kind, kind_of)
    assert (use.free, use.size) == (71, 103)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes" / "back").symlink_to(tmp_path)
    (tmp_path / "elsewhere").symlink_to("/")
    use = look_at(tmp_path, Kind, kind_of)
    assert use.files == {Kind.BOXES: 1, Kind.REST: 1}


def test_what_goes_meanwhile_is_not_counted(tmp_path: Path) -> None:
    for name in ("boxes", "rest"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(7))

    def one_goes(name: str) -> Kind:
        for path in (tmp_path / name).iterdir():
            path.unlink()
        (tmp_path / name).rmdir()
        return kind_of(name)

    assert look_at(tmp_path, Kind, one_goes).sizes == {Kind.BOXES: 0, Kind.REST: 0}


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be looked through: No such file"):
        look_at(tmp_path / "absent", Kind, kind_of)


def test_one_look_that_fails_is_not_the_last() -> None:
    looks, seen = iter([None, DiskUse({Kind.REST: 1}, {Kind.REST: 2}, 3, 9)]), list[DiskUse[Kind]]()

    def look() -> DiskUse[Kind]:
        found = next(looks)
        if found is None:
            raise StorageError("the disk is away for a moment")
        return found

    async def until_seen() -> None:
        arrived = asyncio.Event()

        def take(use: DiskUse[Kind]) -> None:
            seen.append(use)
            arrived.set()

        looking = asyncio.create_task(keep_looking(look, take, every_s=0.001))
        async with asyncio.timeout(10):
            await arrived.wait()
        looking.cancel()

    asyncio.run(until_seen())
    assert [use.free for use in seen] == [3]
