"""What durability costs on this machine: `python benchmarks/storage.py [FOLDER]`.

Latency of the transactions on a round's path, beside one bare fdatasync of 4 KiB, and the rate at which a spool of
400 MB is taken and folded models are staged.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from coordinator.storage.files import FileBlobs
from coordinator.storage.interface import AuditEntry, JobRecord, JournalEntry, ModelRecord, RoundCommit
from coordinator.storage.sql import SqlStore
from shared.ids import AttemptKey, AttemptNumber, Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.reasons import JobState, Purpose
from shared.update import CHUNK_BYTES

JOB = JobId("benchmark")
SPOOL_BYTES = 400_000_000
TIMES = 300


def main() -> None:
    base = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        bare_sync(folder)
        transactions(folder)
        spools(folder)


def report(what: str, call: Callable[[int], object], times: int = TIMES) -> None:
    taken = []
    for number in range(times):
        start = time.perf_counter()
        call(number)
        taken.append(1000 * (time.perf_counter() - start))
    percentile_90 = statistics.quantiles(taken, n=10)[8]
    print(f"{what:<48} median {statistics.median(taken):7.2f} ms   p90 {percentile_90:7.2f} ms")


def bare_sync(folder: Path) -> None:
    fd = os.open(folder / "bare", os.O_RDWR | os.O_CREAT, 0o600)

    def append(_number: int) -> None:
        os.write(fd, bytes(4096))
        os.fdatasync(fd)

    report("append 4 KiB, fdatasync", append)
    os.close(fd)


def transactions(folder: Path) -> None:
    store = SqlStore(url=f"sqlite:///{folder / 'consilo.db'}")
    store.submit_job(JobRecord(JOB, b"spec" * 100, "ada", "2026", JobState.QUEUED, ""), AuditEntry(0, b"line"))

    def key(number: int) -> RoundKey:
        return RoundKey(JOB, RoundNumber(number + 1))

    def commit(number: int) -> None:
        model = ModelRecord(Digest.of(number.to_bytes(4, "big")), b"m" * 1000)
        entry = AuditEntry(number + 1, b"a" * 1000)
        store.commit_round(RoundCommit(key(number), b"s" * 1000, b"r" * 1000, model, JobState.RUNNING, entry))

    report("open_round", lambda n: store.open_round(key(n), Purpose.TRAIN, JournalEntry("plan", b"p" * 1000)))
    report("journal, 1 KiB", lambda n: store.journal(key(n), JournalEntry("ready", b"b" * 1024)))
    report("journal, 64 KiB", lambda n: store.journal(key(n), JournalEntry("start", b"b" * 65536)))
    report("commit_round", commit)
    report("rounds (300 of them), a read", lambda _: store.rounds(JOB), 50)
    store.close()


def spools(folder: Path) -> None:
    blobs = FileBlobs(root=folder / "data")
    chunk = memoryview(os.urandom(CHUNK_BYTES))
    chunks = SPOOL_BYTES // CHUNK_BYTES
    for number in range(1, 4):
        key = AttemptKey(RoundKey(JOB, RoundNumber(number)), AttemptNumber(1))
        spool = blobs.spool(key, ParticipantId("hospital-a"))
        start = time.perf_counter()
        for _ in range(chunks):
            spool.append(chunk)
        appended = time.perf_counter()
        spool.sync()
        synced = time.perf_counter()
        with_sync, without = (chunks * CHUNK_BYTES / seconds / 1e9 for seconds in (synced - start, appended - start))
        print(f"spool of 400 MB: append {without:.2f} GB/s, append and one sync {with_sync:.2f} GB/s")
        reader = spool.reader()
        start = time.perf_counter()
        for position in range(chunks):
            reader.read_at(position * CHUNK_BYTES, CHUNK_BYTES)
        print(f"read it back: {chunks * CHUNK_BYTES / (time.perf_counter() - start) / 1e9:.2f} GB/s")
        start = time.perf_counter()
        staged = blobs.stage("model")
        staged.allocate(SPOOL_BYTES)
        for position in range(chunks):
            staged.write_at(position * CHUNK_BYTES, chunk)
        blobs.publish(staged, Digest.of(bytes([number])))
        print(f"stage and publish 400 MB: {SPOOL_BYTES / (time.perf_counter() - start) / 1e9:.2f} GB/s")
        spool.close()
        start = time.perf_counter()
        blobs.drop_spools(key.round)
        print(f"drop it: {1000 * (time.perf_counter() - start):.1f} ms")
    sync_small(blobs)
    blobs.close()


def sync_small(blobs: FileBlobs) -> None:
    def take(number: int) -> None:
        key = AttemptKey(RoundKey(JOB, RoundNumber(number + 100)), AttemptNumber(1))
        spool = blobs.spool(key, ParticipantId("hospital-a"))
        spool.append(memoryview(bytes(400_000)))
        spool.sync()
        spool.close()

    def publish(number: int) -> None:
        staged = blobs.stage("model")
        staged.allocate(400_000)
        staged.write_at(0, memoryview(bytes(400_000)))
        blobs.publish(staged, Digest.of(b"%d" % number))

    report("a new 400 KB spool in a new round, sync", take, 50)
    report("stage and publish 400 KB", publish, 50)


if __name__ == "__main__":
    main()
