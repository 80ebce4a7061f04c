"""Real processes that are told to end, and hang."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shared.signals import LIMIT_S

PROGRAM = """
import asyncio, structlog, sys, time
from shared.log import configure_logging
from shared.signals import when_told_to_end

async def main():
    asked = asyncio.Event()
    when_told_to_end(lambda number: asked.set(), limit_s=float(sys.argv[2]))
    print("ready", flush=True)
    if sys.argv[1] == "before":
        time.sleep(60)
    await asked.wait()
    print("asked", flush=True)
    if sys.argv[1] == "log":
        structlog.get_logger().info("x", text="x" * (1 << 20))  # into a pipe that nobody reads
    if sys.argv[1] == "loop":
        time.sleep(60)
    if sys.argv[1] == "thread":
        await asyncio.to_thread(time.sleep, 60)
    if sys.argv[1] == "executor":
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)

configure_logging(style="json", level="info")
asyncio.run(main())
"""
LATER = ["loop", "thread", "executor"]
HANGS = ["before", *LATER]
"""Where it hangs: on the loop before it is told to end, or somewhere afterwards."""


@contextmanager
def running(hangs: str, limit_s: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM, hangs, str(limit_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert said(process) == "ready"
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_process_that_does_not_hang_ends_by_itself() -> None:
    with running("nowhere", 30.0) as process:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("hangs", HANGS)
def test_one_that_hangs_is_ended_after_its_limit(hangs: str) -> None:
    with running(hangs, 0.2) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "ended_with_work_left" in process.stderr.read()


@pytest.mark.parametrize("reader", ["stands still", "is gone"])
def test_one_whose_last_words_nobody_reads_is_ended_all_the_same(reader: str) -> None:
    hangs = "log" if reader == "stands still" else "loop"
    with running(hangs, 0.2) as process:
        assert process.stderr is not None
        if reader == "is gone":
            process.stderr.close()
            process.stderr = None
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize("hangs", LATER)
def test_a_second_signal_ends_one_that_hangs_at_once(hangs: str) -> None:
    with running(hangs, 30.0) as process:
        process.terminate()
        assert said(process) == "asked"
        time.sleep(0.05)  # into the place where it hangs; before it, the end is the same
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT


def test_nor_does_a_second_one_wait_for_a_loop_that_never_heard_the_first() -> None:
    with running("before", 30.0) as process:
        time.sleep(0.05)  # into its sleep
        process.terminate()
        time.sleep(0.2)  # of two at once only one might arrive
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT


def test_the_limit_is_below_what_the_documents_promise() -> None:
    assert LIMIT_S < 8
