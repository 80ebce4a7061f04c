"""What a task saves in the middle of training: whole or absent, of this call alone, and worth the same model."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from participant.tasks.checkpoint import TaskCheckpoint
from participant.tasks.contract import CheckpointPlace, DeviceRequest, NoteKind
from participant.tasks.host import CallFailed, TaskHost
from participant.tasks.messages import CallContext, Evaluate, InitModel, Load, Train
from participant.tasks.task_log import LogWriter
from shared.errors import TaskError
from shared.reasons import DropReason
from tests.support.small_disk import small_disk
from tests.support.task_builders import SAMPLES

WHOLE = [*range(10)]
BOUND = "heart-1/1 and a plan"
Notes = list[tuple[NoteKind, str]]


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Loading a task changes the process that it is in: put it back."""
    path, threads = list(sys.path), torch.get_num_threads()
    yield
    sys.path[:] = path
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=False)


class Bench:
    """A task in a host of its own each time, as after a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.update, self.saved, self.steps = folder / "update", folder / "saved", folder / "steps"
        self.notes: Notes = []
        self.load().init_model(InitModel(out=str(folder / "model")))

    def load(self, class_name: str = "Saving") -> TaskHost:
        command = Load(
            entry=f"sample_tasks:{class_name}",
            options={},
            device=DeviceRequest.CPU,
            threads=1,
            search_path=[str(SAMPLES)],
            seed=0,
        )
        return TaskHost.load(command)[0]

    def context(self, **training: Any) -> CallContext:
        return CallContext(
            job="heart-1",
            job_name="heart",
            number=1,
            participant="hospital-a",
            job_seed=42,
            training={"steps": str(self.steps), **training},
            metrics=[],
        )

    def train(self, class_name: str = "Saving", *, bound_to: str = BOUND, keeps: bool = True, **training: Any) -> bytes:
        command = Train(
            context=self.context(**training),
            model=str(self.folder / "model"),
            state_in=None,
            update_out=str(self.update),
            state_out=str(self.folder / "state"),
            checkpoint=str(self.saved) if keeps else None,
            bound_to=bound_to,
        )
        self.notes.clear()
        self.load(class_name).train(command, lambda _: None, lambda kind, detail: self.notes.append((kind, detail)))
        return self.update.read_bytes()

    def interrupted(self, after: int) -> None:
        with pytest.raises(CallFailed, match="interrupted"):
            self.train(die_after=after, death="raise")

    def done(self) -> list[int]:
        """The steps since the last look."""
        steps = [int(line) for line in self.steps.read_text().split()]
        self.steps.write_text("")
        return steps

    def said(self) -> list[NoteKind]:
        return [kind for kind, _ in self.notes]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("after", [2, 4, 8])
def test_an_interrupted_training_goes_on_to_the_same_update_bit_for_bit(bench: Bench, after: int) -> None:
    undisturbed = bench.train()
    assert bench.done() == WHOLE
    bench.saved.unlink()
    bench.interrupted(after)
    assert bench.done() == WHOLE[: after + 1]
    assert bench.train() == undisturbed
    saved = after // 3 * 3 + (3 if after % 3 == 2 else 0)
    assert bench.done() == WHOLE[saved:], "no step before the checkpoint is done twice"
    assert bench.said() == [NoteKind.RESTORED, *[NoteKind.SAVED] * (3 - saved // 3)]


def test_the_update_is_the_same_whether_the_task_saves_or_not(bench: Bench) -> None:
    assert bench.train(keeps=False) == bench.train()
    assert not list(bench.folder.glob("*.new"))


def test_training_that_was_not_interrupted_finds_nothing(bench: Bench) -> None:
    bench.train()
    assert bench.said() == [NoteKind.SAVED] * 3


@pytest.mark.parametrize("plan", ["heart-1/1 and another plan", "heart-1/2 and a plan", ""])
def test_what_another_call_saved_is_never_restored(bench: Bench, plan: str) -> None:
    bench.interrupted(4)
    bench.done()
    bench.train(bound_to=plan)
    assert bench.said()[0] is NoteKind.UNUSABLE
    assert "another call" in bench.notes[0][1]
    assert bench.done() == WHOLE


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _flip(at: int) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        place = at % len(content)
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return flip


@pytest.mark.parametrize(
    "spoil",
    [_cut, lambda _: b"", lambda _: b"no such file", *map(_flip, (0, 8, 60, 200, 1000, 4000, 9000, -1, -100))],
)
def test_what_is_damaged_counts_as_none_and_training_starts_over(bench: Bench, spoil: Callable[[bytes], bytes]) -> None:
    undisturbed = bench.train()
    bench.saved.unlink()
    bench.interrupted(4)
    bench.done()
    bench.saved.write_bytes(spoil(bench.saved.read_bytes()))
    assert bench.train() == undisturbed
    assert bench.done() == WHOLE
    assert bench.said()[0] is NoteKind.UNUSABLE


def test_every_byte_of_it_is_looked_at(bench: Bench) -> None:
    bench.interrupted(4)
    notes: Notes = []
    checkpoint = TaskCheckpoint(CheckpointPlace(bench.saved, BOUND), lambda kind, text: notes.append((kind, text)))
    assert checkpoint.restore() is not None
    content = bench.saved.read_bytes()
    for at in range(0, len(content), 97):
        bench.saved.write_bytes(_flip(at)(content))
        assert checkpoint.restore() is None, f"byte {at}"


def test_it_is_for_the_daemons_user_alone(bench: Bench) -> None:
    bench.interrupted(4)
    assert bench.saved.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in bench.folder.glob("saved*")] == ["saved"], "nothing is left beside it"


def test_a_save_that_the_disk_refuses_leaves_the_last_one_and_training_goes_on(bench: Bench) -> None:
    undisturbed = bench.train()
    bench.saved.unlink()
    (bench.folder / "saved.new").mkdir()
    assert bench.train() == undisturbed
    assert bench.said() == [NoteKind.NOT_SAVED] * 3
    assert not bench.saved.exists()


def test_on_a_full_disk_the_last_one_stays(bench: Bench, tmp_path: Path) -> None:
    notes: Notes = []
    with small_disk(tmp_path / "disk", size=1 << 20) as disk:
        place = CheckpointPlace(disk.folder / "saved", BOUND)
        checkpoint = TaskCheckpoint(place, lambda kind, text: notes.append((kind, text)))
        checkpoint.save({"step": 3, "weights": torch.ones(1000)})
        disk.fill()
        checkpoint.save({"step": 6, "weights": torch.ones(1000)})
        assert [kind for kind, _ in notes] == [NoteKind.SAVED, NoteKind.NOT_SAVED]
        assert "No space left" in notes[-1][1]
        found = checkpoint.restore()
        assert found is not None
        assert found["step"] == 3
        disk.make_room()
        checkpoint.save({"step": 9})
        assert checkpoint.restore() == {"step": 9}
        assert sorted(path.name for path in disk.folder.iterdir()) == ["saved"]


@pytest.mark.parametrize("class_name", ["Behaving", "Keeping"])
def test_a_finished_training_waits_for_room_to_write_its_result(bench: Bench, tmp_path: Path, class_name: str) -> None:
    """The update of the one, and the state of the other, which keeps one."""
    with small_disk(tmp_path / "disk", size=1 << 20) as disk:
        out = tmp_path if class_name == "Keeping" else disk.folder
        host, notes = bench.load(class_name), Notes()
        host.init_model(InitModel(out=str(tmp_path / "model")))

        def note(kind: NoteKind, text: str) -> None:
            notes.append((kind, text))
            disk.make_room()

        disk.fill()
        command = Train(
            context=bench.context().model_copy(update={"metrics": None}),
            model=str(tmp_path / "model"),
            state_in=None,
            update_out=str(out / "update"),
            state_out=str(disk.folder / "state"),
        )
        done = host.train(command, lambda _: None, note)
        assert [kind for kind, _ in notes] == [NoteKind.NO_ROOM]
        assert "No space left" in notes[0][1]
        assert (out / "update").stat().st_size == 4 * done.parameters
        assert (disk.folder / "state").exists() is done.has_state is (class_name == "Keeping")


def test_room_that_was_reserved_is_used(bench: Bench, tmp_path: Path) -> None:
    """The file is written over in place: on a disk that has become full since, and without a rest of what was there."""
    undisturbed = bench.train()
    bench.update.unlink()
    with small_disk(tmp_path / "disk", size=1 << 20) as disk:
        bench.update = disk.folder / "update"
        bench.update.write_bytes(b"x" * 4096)
        disk.fill()
        assert bench.train(keeps=False) == undisturbed
        assert bench.notes == []


def test_what_cannot_be_kept_is_named(bench: Bench) -> None:
    with pytest.raises(CallFailed, match=r"state\['state'\]\['odd'\]") as failed:
        bench.train("Unkeepable")
    assert failed.value.reason is DropReason.TASK_INVALID
    checkpoint = TaskCheckpoint(CheckpointPlace(bench.saved, BOUND), lambda _kind, _text: None)
    with pytest.raises(TaskError, match="takes a dictionary, got int"):
        checkpoint.save(3)  # type: ignore[arg-type]


def test_an_evaluation_has_nothing_to_save(bench: Bench) -> None:
    context = bench.context(saves_in_evaluate=True)
    command = Evaluate(context=context, model=str(bench.folder / "model"), state_in=None)
    with pytest.raises(CallFailed, match="are for train") as failed:
        bench.load().evaluate(command, lambda _: None)
    assert failed.value.reason is DropReason.TASK_INVALID


def test_what_is_printed_on_a_full_disk_is_lost_and_is_no_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError) as refused:
            os.write(full, b"x")
        assert refused.value.errno == errno.ENOSPC, "this file is as full as a disk can be"
        assert LogWriter(full, None).write(b"epoch 3") == 7
    finally:
        os.close(full)
    with pytest.raises(OSError) as refused:
        LogWriter(full, None).write(b"nobody has this open")
    assert refused.value.errno == errno.EBADF
