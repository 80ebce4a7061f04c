"""The runner against real processes. Starting one takes seconds (torch), so that tests which can, share one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from participant.tasks.contract import (
    EvaluationDone,
    TaskDefinition,
    TaskFailed,
    TaskHandle,
    TaskReady,
    TrainingDone,
    TrainingOutcome,
)
from participant.tasks.runner import TaskRunner
from participant.tasks.spawn import task_environment
from participant.tasks.task_log import LOG_MAX_BYTES, older
from shared.ids import Digest, TaskName
from shared.reasons import DropReason
from tests.support.task_builders import SAMPLES, make_context, make_definition

T = TypeVar("T")
PLENTY_S = 60.0


class Bench:
    """A runner, the loop that it lives in, and files to write to."""

    def __init__(self, folder: Path, definition: TaskDefinition | None = None) -> None:
        self.folder = folder
        self.loop = asyncio.Runner()
        self.log = folder / "log" / "task.log"
        self.runner = TaskRunner(definition=definition or make_definition(), log=self.log, term_grace_s=0.3)
        self.handle: TaskHandle = self.runner
        self.model, self.update, self.state = folder / "model", folder / "update", folder / "state"

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(call)

    def init_model(self) -> Digest:
        digest = self.run(self.runner.init_model(out=self.model, deadline_s=PLENTY_S))
        assert isinstance(digest, Digest), digest
        return digest

    def training(
        self, do: str = "nothing", *, deadline_s: float = PLENTY_S, state_in: Path | None = None, **named: Any
    ) -> Coroutine[Any, Any, TrainingOutcome]:
        return self.handle.train(
            context=make_context(do, metrics=None),
            model=self.model,
            state_in=state_in,
            update_out=self.update,
            state_out=self.state,
            deadline_s=deadline_s,
            **named,
        )

    def train(self, do: str = "nothing", **named: Any) -> TrainingDone:
        outcome = self.run(self.training(do, **named))
        assert isinstance(outcome, TrainingDone), outcome
        return outcome

    def failure(self, do: str = "nothing", **named: Any) -> TaskFailed:
        outcome = self.run(self.training(do, **named))
        assert isinstance(outcome, TaskFailed), outcome
        assert self.runner.pid is None
        return outcome

    def close(self) -> None:
        self.run(self.runner.stop())
        self.loop.close()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("runner")
    os.environ["SAMPLE_TELL"] = str(folder / "tell")
    made = Bench(folder)
    made.init_model()
    yield made
    made.close()
    del os.environ["SAMPLE_TELL"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(10):
        while any(is_running(pid) for pid in pids):  # noqa: ASYNC110 - no child of ours: there is nothing to wait on
            await asyncio.sleep(0.01)


def test_the_daemons_half_needs_no_torch() -> None:
    script = "import participant.tasks.runner, participant.tasks.process, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_one_process_serves_call_after_call_and_a_restart_changes_nothing(bench: Bench) -> None:
    ready = bench.run(bench.runner.start(deadline_s=PLENTY_S))
    assert isinstance(ready, TaskReady)
    assert (ready.device, ready.keeps_state, ready.parameters) == ("cpu", False, 37)
    pid = bench.runner.pid
    seen: list[float] = []
    done = bench.train(progress=seen.append)
    assert (seen, done.parameters, done.update.stat().st_size, done.state) == ([0.5, 1.0], 37, 148, None)
    first = bench.update.read_bytes()
    evaluated = bench.run(
        bench.handle.evaluate(
            context=make_context(metrics=("loss",)), model=bench.model, state_in=None, deadline_s=PLENTY_S
        )
    )
    assert isinstance(evaluated, EvaluationDone)
    assert (evaluated.weight, list(evaluated.metrics), len(evaluated.values)) == (2, ["loss"], 1)
    assert bench.runner.pid == pid
    bench.run(bench.runner.stop())
    assert bench.runner.pid is None
    again = bench.train()
    assert bench.update.read_bytes() == first
    assert (again.metrics, again.values) == (done.metrics, tuple(done.metrics.values()))


def test_what_a_task_prints_goes_to_the_log_and_disturbs_nothing(bench: Bench) -> None:
    bench.train("babble")
    text = bench.log.read_bytes()
    assert b"a task that prints" in text
    assert b"x" * 10_000 in text
    assert b"\x00\x00\x00\x05hello" in text
    assert b"from a shell" in text
    assert bench.log.stat().st_mode & 0o777 == 0o600


def test_a_second_call_at_once_is_a_bug(bench: Bench) -> None:
    async def two() -> None:
        first = asyncio.ensure_future(bench.training())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one at a time"):
            await bench.training()
        assert isinstance(await first, TrainingDone)

    bench.run(two())


def test_a_deadline_ends_the_process_with_all_it_started(bench: Bench) -> None:
    tell = bench.folder / "tell"
    bench.run(bench.runner.start(deadline_s=PLENTY_S))
    leader = bench.runner.pid
    assert leader is not None
    failed = bench.failure("hang_with_family", deadline_s=1.0)
    assert failed.reason is DropReason.TASK_DEADLINE
    assert "not finished after 1.0 s" in failed.message
    bench.run(until_gone(leader, *map(int, tell.read_text().split())))


def test_a_busy_loop_ends_at_its_deadline(bench: Bench) -> None:
    bench.run(bench.runner.start(deadline_s=PLENTY_S))
    assert bench.failure("hang", deadline_s=0.5).reason is DropReason.TASK_DEADLINE


def test_a_segmentation_fault_is_a_crash(bench: Bench) -> None:
    failed = bench.failure("segfault")
    assert failed == TaskFailed(
        reason=DropReason.TASK_CRASHED, message="the task's process was ended by SIGSEGV", process_ended=True
    )
    assert b"Fatal Python error: Segmentation fault" in bench.log.read_bytes()


def test_an_exit_is_a_crash_even_while_a_grandchild_holds_the_channel(bench: Bench) -> None:
    failed = bench.failure("exit_with_family")
    assert failed == TaskFailed(
        reason=DropReason.TASK_CRASHED, message="the task's process exited with code 3", process_ended=True
    )
    bench.run(until_gone(int((bench.folder / "tell").read_text())))


def test_bytes_that_are_no_reply_are_a_crash(bench: Bench) -> None:
    failed = bench.failure("scribble")
    assert failed.reason is DropReason.TASK_CRASHED
    assert "said what is no reply" in failed.message


def test_cancelling_a_call_ends_the_process(bench: Bench) -> None:
    async def cancel() -> None:
        begun = asyncio.Event()
        call = asyncio.ensure_future(bench.training("hang", progress=lambda _: begun.set()))
        await begun.wait()
        pid = bench.runner.pid
        assert pid is not None
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not is_running(pid)
        assert bench.runner.pid is None

    bench.run(cancel())


def test_a_process_that_died_while_idle_is_replaced(bench: Bench) -> None:
    async def die() -> None:
        await bench.runner.start(deadline_s=PLENTY_S)
        pid = bench.runner.pid
        assert pid is not None
        process = bench.runner._process
        assert process is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.shield(process._exited)
        assert not process.alive

    bench.run(die())
    bench.train()


def test_an_exception_is_an_outcome_and_its_traceback_stays_in_the_log(bench: Bench) -> None:
    failed = bench.failure("raise")
    assert failed == TaskFailed(reason=DropReason.TASK_CRASHED, message="ValueError: the patient's name is in here")
    assert b"Traceback (most recent call last)" in bench.log.read_bytes()


def test_a_task_with_state_never_meets_what_an_aborted_round_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_definition("Keeping"))
    bench.init_model()
    first = bench.train()
    assert (first.metrics, first.state) == ({"rounds": 1}, bench.state)
    pid = bench.runner.pid
    # The round aborted, so that there is no committed state to give: a fresh process, which has none either.
    assert bench.train().metrics == {"rounds": 1}
    assert bench.runner.pid != pid
    pid = bench.runner.pid
    committed = bench.state.rename(tmp_path / "committed")
    assert bench.train(state_in=committed).metrics == {"rounds": 2}
    assert bench.runner.pid == pid
    bench.close()


def test_a_task_that_is_not_there_is_unavailable(own: Bench) -> None:
    own.runner = TaskRunner(
        definition=TaskDefinition(name=TaskName("x"), entry="absent_module:X", search_path=(SAMPLES,)), log=own.log
    )
    failed = own.run(own.runner.start(deadline_s=PLENTY_S))
    assert isinstance(failed, TaskFailed)
    assert failed.reason is DropReason.TASK_UNAVAILABLE
    assert f"no module 'absent_module' is installed here or in {SAMPLES}: install the task's" in failed.message
    odd = TaskRunner(definition=make_definition(when={1, 2}), log=own.log)
    failed = own.run(odd.start(deadline_s=PLENTY_S))
    assert isinstance(failed, TaskFailed)
    assert "options.when" in failed.message


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux")
def test_the_process_ends_with_the_daemon_even_in_a_busy_loop(tmp_path: Path, bench: Bench) -> None:
    script = f"""
import asyncio, os, pathlib, signal
from participant.tasks.runner import TaskRunner
from tests.support.task_builders import make_context, make_definition
async def main():
    runner = TaskRunner(definition=make_definition(), log=pathlib.Path({str(tmp_path / "log")!r}))
    def progress(fraction):
        print(runner.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    await runner.train(context=make_context("hang"), model=pathlib.Path({str(bench.model)!r}), state_in=None,
        update_out=pathlib.Path("/dev/null"), state_out=pathlib.Path("/dev/null"), deadline_s=60, progress=progress)
asyncio.run(main())
"""
    daemon = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert daemon.returncode == -signal.SIGKILL, daemon.stderr
    bench.run(until_gone(int(daemon.stdout)))


def test_the_daemons_own_settings_do_not_reach_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILO_ANYTHING", "x")
    monkeypatch.setenv("SILO_DATABASE", "y")
    environment = task_environment({"OMP_NUM_THREADS": "2"})
    assert "CONSILO_ANYTHING" not in environment
    assert (environment["SILO_DATABASE"], environment["OMP_NUM_THREADS"]) == ("y", "2")


def test_a_log_that_native_code_filled_is_put_aside_before_the_next_call(own: Bench) -> None:
    """A warm process may live for weeks; its log shares the disk with the journal."""
    own.init_model()
    first = own.runner.pid
    os.truncate(own.log, LOG_MAX_BYTES)
    own.train()
    assert own.runner.pid == first
    assert older(own.log).stat().st_size == LOG_MAX_BYTES
    assert own.log.stat().st_size < LOG_MAX_BYTES
