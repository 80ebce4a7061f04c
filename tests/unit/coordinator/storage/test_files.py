"""What is particular to files: where they are, who may read them, and what a disk does to them."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.storage.faults import Fault
from coordinator.storage.filecalls import FileCalls
from coordinator.storage.files import AppendFile, FileBlobs
from coordinator.storage.interface import Leftovers
from coordinator.storage.memory import MemoryBlobs
from shared.errors import ConfigError, DurabilityUnknown, StorageError
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from tests.support.storage import FaultyCalls

KEY = AttemptKey(RoundKey(JobId("heart-1"), RoundNumber(3)), AttemptNumber(2))
ADA = ParticipantId("hospital-a")


class CountingCalls(FileCalls):
    """The operating system, and what it was asked to do."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        self.made.append("pwrite")
        return super().pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        self.made.append("fsync")
        super().fsync(fd)

    def fdatasync(self, fd: int) -> None:
        self.made.append("fdatasync")
        super().fdatasync(fd)

    def sync_folder(self, fd: int) -> None:
        self.made.append("sync_folder")
        super().sync_folder(fd)

    def replace(self, source: Path, target: Path) -> None:
        self.made.append("replace")
        super().replace(source, target)


class NoPreallocation(FileCalls):
    """A disk that fills up half way."""

    def allocate(self, fd: int, size: int) -> None:
        super().allocate(fd, size // 1024)  # what little there was
        raise OSError(errno.ENOSPC, "No space left on device")


def test_files_lie_where_people_look_and_nobody_else_reads_them(tmp_path: Path) -> None:
    root = tmp_path / "data"
    digest = Digest.of(b"model")
    with closing(FileBlobs(root=root)) as blobs:
        spool = blobs.spool(KEY, ADA)
        spool.append(memoryview(b"update"))
        staged = blobs.stage("round-3")
        staged.allocate(5)
        staged.write_at(0, memoryview(b"model"))
        blobs.publish(staged, digest)
        assert (root / "spools/heart-1/3/2/hospital-a.update").read_bytes() == b"update"
        assert blobs.model_location(digest) == str(root / f"models/{digest}.safetensors")
        assert (root / f"models/{digest}.safetensors").read_bytes() == b"model"
    modes = {(path.is_dir(), path.stat().st_mode & 0o777) for path in (root, *root.rglob("*"))}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_a_second_coordinator_is_refused_before_it_touches_anything(tmp_path: Path) -> None:
    with closing(FileBlobs(root=tmp_path)) as blobs:
        blobs.stage("round-1")
        with pytest.raises(ConfigError, match=r"in use by another coordinator \(process"):
            FileBlobs(root=tmp_path)
        assert (tmp_path / "staging/round-1").exists()
    FileBlobs(root=tmp_path).close()
    assert not (tmp_path / "staging/round-1").exists()


def test_publishing_syncs_in_the_right_order(tmp_path: Path) -> None:
    calls = CountingCalls()
    with closing(FileBlobs(root=tmp_path, calls=calls)) as blobs:
        for expected in (["fsync", "replace", "sync_folder"], ["sync_folder"]):
            staged = blobs.stage("round-1")
            staged.allocate(1)
            calls.made.clear()
            blobs.publish(staged, Digest.of(b"\0"))
            assert calls.made == expected


def test_a_chunk_is_one_write_and_a_new_name_is_synced_once(tmp_path: Path) -> None:
    calls = CountingCalls()
    with closing(FileBlobs(root=tmp_path, calls=calls)) as blobs:
        calls.made.clear()
        spool = blobs.spool(KEY, ADA)
        spool.append(memoryview(bytes(1 << 20)))
        assert calls.made == ["pwrite"]
        spool.sync()
        assert calls.made == ["pwrite", "fdatasync", *["sync_folder"] * 4]
        calls.made.clear()
        spool.sync()
        assert calls.made == ["fdatasync"]
        blobs.drop_spools(KEY.round)
        calls.made.clear()
        blobs.spool(KEY, ADA).sync()
        assert calls.made == ["fdatasync", *["sync_folder"] * 3]


def test_a_full_disk_is_found_at_allocation_and_says_what_was_needed(tmp_path: Path) -> None:
    with closing(FileBlobs(root=tmp_path, calls=NoPreallocation())) as blobs:
        with pytest.raises(
            StorageError, match=r"No space left on device: 400000000 bytes were needed and \d+ are free"
        ):
            blobs.stage("round-1").allocate(400_000_000)
        assert (tmp_path / "staging/round-1").stat().st_size == 0


def test_an_impossible_allocation_fails_for_real(tmp_path: Path) -> None:
    with closing(FileBlobs(root=tmp_path)) as blobs, pytest.raises(StorageError, match="allocating"):
        blobs.stage("round-1").allocate(1 << 60)


def test_a_full_disk_leaves_the_spool_as_it_was(tmp_path: Path) -> None:
    calls = FaultyCalls()
    with closing(FileBlobs(root=tmp_path, calls=calls)) as blobs:
        spool = blobs.spool(KEY, ADA)
        spool.append(memoryview(b"one"))
        calls.order("append", Fault.FAILED_NOT_PERSISTED)
        with pytest.raises(StorageError, match="6 bytes were needed"):
            spool.append(memoryview(b"twotwo"))
        assert (tmp_path / "spools/heart-1/3/2/hospital-a.update").read_bytes() == b"one"


def test_a_file_cut_under_its_reader_is_a_storage_error(tmp_path: Path) -> None:
    with closing(FileBlobs(root=tmp_path)) as blobs:
        spool = blobs.spool(KEY, ADA)
        spool.append(memoryview(b"update"))
        with closing(spool.reader()) as reader:
            spool.truncate(2)
            with pytest.raises(StorageError, match="was 6 bytes long and now ends at 2"):
                reader.read_at(0, 6)


def test_files_staged_elsewhere_are_refused(tmp_path: Path) -> None:
    with closing(FileBlobs(root=tmp_path)) as blobs:
        with pytest.raises(TypeError):
            blobs.publish(MemoryBlobs().stage("round-1"), Digest.of(b""))
        with pytest.raises(TypeError):
            MemoryBlobs().publish(blobs.stage("round-1"), Digest.of(b""))


def test_a_crash_in_memory_can_keep_more_than_was_synced() -> None:
    blobs = MemoryBlobs()
    spool = blobs.spool(KEY, ADA)
    spool.append(memoryview(b"one"))
    spool.sync()
    spool.append(memoryview(b"two"))
    kept = blobs.crash(keep_bytes=2)
    assert kept.spool(KEY, ADA).size == 5
    assert kept.crash().spool(KEY, ADA).size == 5, "what a crash left is on disk"
    with pytest.raises(RuntimeError, match="has crashed"):
        spool.append(memoryview(b"x"))
    with pytest.raises(RuntimeError, match="has crashed"):
        blobs.stage("round-1")


def test_a_planned_fault_waits_for_its_turn() -> None:
    blobs = MemoryBlobs()
    blobs.faults.inject("append", Fault.FAILED_NOT_PERSISTED, after=1)
    spool = blobs.spool(KEY, ADA)
    spool.append(memoryview(b"one"))
    with pytest.raises(StorageError):
        spool.append(memoryview(b"two"))
    spool.append(memoryview(b"three"))
    assert spool.size == 8


def test_an_append_file_is_durable_and_never_half_written(tmp_path: Path) -> None:
    calls = FaultyCalls()
    path = tmp_path / "audit.log"
    with closing(AppendFile(path=path, calls=calls)) as file:
        file.append(b"one\n")
        calls.order("append", Fault.FAILED_NOT_PERSISTED)
        with pytest.raises(StorageError):
            file.append(b"two\n")
        assert (file.size, file.read_at(0, 100), file.read_at(2, 1)) == (4, b"one\n", b"e")
        calls.order("sync", Fault.FAILED_BUT_PERSISTED)
        with pytest.raises(DurabilityUnknown):
            file.append(b"two\n")
        with pytest.raises(DurabilityUnknown):
            file.append(b"three\n")
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_looked_at_is_the_storages_trouble(tmp_path: Path) -> None:
    file = AppendFile(path=tmp_path / "audit")
    os.close(file._fd)
    with pytest.raises(StorageError, match="Bad file descriptor"):
        _ = file.size


class _Failing(FileCalls):
    """A disk on which nothing can be cut any more."""

    def truncate(self, fd: int, size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_an_allocation_that_cannot_be_taken_back_is_a_failed_one(tmp_path: Path) -> None:
    blobs = FileBlobs(root=tmp_path / "data", calls=_Failing())
    with pytest.raises(StorageError, match="allocating"):
        blobs.stage("one").allocate(10)
    blobs.close()


class HeldUnlink(FileCalls):
    """Giving back the bytes of a file takes as long as the test says."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.erased = threading.Event()
        self.by: set[str] = set()
        self.fails = False

    def unlink(self, path: Path) -> None:
        assert self.go_on.wait(10)
        self.by.add(threading.current_thread().name.partition("_")[0])
        if self.fails:
            self.erased.set()
            raise OSError(errno.EIO, "Input/output error")
        super().unlink(path)
        self.erased.set()


def publish(blobs: FileBlobs, content: bytes) -> Digest:
    staged = blobs.stage("round-1")
    staged.allocate(len(content))
    staged.write_at(0, memoryview(content))
    digest = Digest.of(content)
    blobs.publish(staged, digest)
    return digest


def test_who_removes_a_model_does_not_wait_for_its_bytes_to_be_given_back(tmp_path: Path) -> None:
    calls = HeldUnlink()
    with closing(FileBlobs(root=tmp_path, calls=calls)) as blobs:
        digest = publish(blobs, b"model")
        blobs.remove_model(digest)
        assert list(blobs.published()) == []
        assert [file.name for file in (tmp_path / "removed").iterdir()] == [f"{digest}.safetensors"]
        assert publish(blobs, b"model") == digest, "and the name is free again"
        calls.go_on.set()
        assert calls.erased.wait(10)
        assert calls.by == {"erase"}
        assert [model.digest for model in blobs.published()] == [digest]


def test_what_was_not_given_back_is_at_the_next_start(tmp_path: Path) -> None:
    calls = HeldUnlink()
    calls.fails = True
    calls.go_on.set()
    with closing(FileBlobs(root=tmp_path, calls=calls)) as blobs:
        blobs.remove_model(publish(blobs, b"model"))
        assert calls.erased.wait(10)
    again = HeldUnlink()
    with closing(FileBlobs(root=tmp_path, calls=again)) as blobs:
        assert blobs.leftovers == Leftovers(1, len(b"model"))
        again.go_on.set()
        assert again.erased.wait(10)
        assert list((tmp_path / "removed").iterdir()) == []


def test_files_that_nobody_here_wrote_are_nobodys_to_list(tmp_path: Path) -> None:
    with closing(FileBlobs(root=tmp_path)) as blobs:
        digest = publish(blobs, b"model")
        spool = blobs.spool(KEY, ADA)
        spool.close()
        for stray in ("notes.txt", "abc.safetensors", f"{str(digest).upper()}.safetensors"):
            (tmp_path / "models" / stray).write_bytes(b"")
        for stray in ("heart-1/3/2/notes.txt", "heart-1/3/2/Not-a-name.update", "heart-1/03/2/hospital-a.update"):
            (tmp_path / "spools" / stray).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "spools" / stray).write_bytes(b"")
        assert [model.digest for model in blobs.published()] == [digest]
        assert [(spool.key, spool.participant) for spool in blobs.spooled()] == [(KEY, ADA)]
