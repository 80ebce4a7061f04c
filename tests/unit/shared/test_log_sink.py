"""A daemon's standard error, when nobody reads it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import select
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from coordinator.metrics import CoordinatorMetrics
from participant.metrics import ParticipantMetrics
from shared import log_sink
from shared.build import build_info
from shared.log_sink import REFILL_S, LogSink, lines_lost

BUILD = build_info(environment={})
PIPE_BYTES = 16384
LINE = "x" * 999 + "\n"
LONG = "y" * (2 * PIPE_BYTES) + "\n"


class Written:
    """What a daemon writes into, and what can be read from it."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        self.sink = LogSink(writer)

    def lines(self) -> list[str]:
        """What is in it now."""
        os.set_blocking(self.reader, False)
        found = b""
        while True:
            try:
                found += os.read(self.reader, 1 << 20)
            except BlockingIOError:
                return found.decode().splitlines()

    def told(self) -> object:
        """How many lines the next event says that were lost."""
        return self.sink.say_lost(None, "info", {"event": "x"}).get("lines_lost")

    def write(self, text: str) -> None:
        assert self.sink.write(text.encode()) == len(text)


class Pipe(Written):
    def __init__(self) -> None:
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        super().__init__(reader, writer)


class Terminal(Written):
    def __init__(self) -> None:
        reader, writer = os.openpty()
        super().__init__(reader, writer)
        self.ahead_s = 0.0
        self.sink = LogSink(self.writer, monotonic=lambda: time.monotonic() + self.ahead_s)

    def lines_to(self, last: str) -> list[str]:
        """What comes until a line is `last`: what was written is not there at once."""
        found: list[str] = []
        with os.fdopen(os.dup(self.reader)) as file:
            for line in file:
                found.append(line.strip())
                if found[-1] == last:
                    return found
        raise AssertionError(f"no {last!r} in {found!r}")


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    monkeypatch.setattr(log_sink, "PATIENCE_S", 0.2)
    made = Pipe()
    yield made
    for descriptor in (made.reader, made.writer):
        os.close(descriptor)


def test_a_slow_reader_gets_every_line() -> None:
    made = Pipe()
    got: list[str] = []

    def read() -> None:
        with os.fdopen(made.reader) as file:
            got.extend(file)

    reading = threading.Thread(target=read)
    reading.start()
    for _ in range(500):
        made.write(LINE)
    made.write(LONG)
    os.close(made.writer)
    reading.join(30)
    assert got == [LINE] * 500 + [LONG]
    assert made.told() is None


def test_lines_that_nobody_reads_are_lost_and_counted_and_told(pipe: Pipe) -> None:
    for _ in range(50):
        pipe.write(LINE)
    kept = pipe.lines()
    lost = 50 - len(kept)
    assert lost > 0
    assert kept == [LINE.strip()] * len(kept), "whole ones"
    assert pipe.told() == lost
    pipe.write(LINE)
    assert pipe.told() is None, "once one was written that says it"


def test_a_line_that_was_cut_is_ended_before_the_next(pipe: Pipe) -> None:
    pipe.write(LONG)
    pipe.write(LINE)
    assert pipe.told() == 2
    cut = pipe.lines()
    pipe.write(LINE)
    assert [len(cut), *pipe.lines()] == [1, "", LINE.strip()], "the end of the line that was cut, and the whole one"


def test_waiting_is_for_all_lines_of_a_minute_together(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """And begins again when the minute is over."""
    waited: list[float] = []
    now = 0.0
    pipe.sink = LogSink(pipe.writer, monotonic=lambda: now)
    real = select.poll

    class Poll:
        def __init__(self) -> None:
            self._poll = real()

        def register(self, descriptor: int, mask: int) -> None:
            self._poll.register(descriptor, mask)

        def poll(self, milliseconds: float) -> list[tuple[int, int]]:
            nonlocal now
            if milliseconds:
                waited.append(milliseconds / 1000)
                now += milliseconds / 1000
            return self._poll.poll(0)

    monkeypatch.setattr(select, "poll", Poll)
    for _ in range(100):
        pipe.write(LINE)
    assert waited == [log_sink.PATIENCE_S]
    now += REFILL_S
    pipe.write(LINE)
    assert waited == [log_sink.PATIENCE_S] * 2


def test_a_reader_that_is_gone_is_no_error(pipe: Pipe) -> None:
    os.close(pipe.reader)
    pipe.write(LINE)
    assert pipe.told() == 1
    pipe.reader = os.dup(pipe.writer)  # for the end of the test


def test_a_full_disk_is_no_error() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        sink = LogSink(full.fileno())
        assert sink.write(LINE.encode()) == len(LINE)
        assert sink.say_lost(None, "info", {})["lines_lost"] == 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setattr(log_sink, "PATIENCE_S", 0.2)
    made = Terminal()
    yield made
    for descriptor in {made.reader, made.writer, made.sink.fileno()}:
        os.close(descriptor)


def test_a_terminal_that_nobody_reads_blocks_nobody(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(200):
        terminal.write(LINE)
    lost = terminal.told()
    assert isinstance(lost, int)
    assert 0 < lost < 200
    monkeypatch.setattr(log_sink, "PATIENCE_S", 30.0)
    terminal.ahead_s += REFILL_S
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(terminal.lines_to, "end")
        terminal.write("end\n")
        *kept, _ = reading.result(30)
    assert kept[: 200 - lost] == [LINE.strip()] * (200 - lost), "whole ones"
    assert len(kept) - (200 - lost) in {0, 1}, "and the beginning of one that was cut"
    assert terminal.told() is None, "once one was written that says it"
    assert os.get_blocking(terminal.writer), "what others have of the terminal is as it was"
    assert terminal.sink.isatty()


def test_a_terminal_that_is_stopped_blocks_nobody(terminal: Terminal) -> None:
    """As by Ctrl-S."""
    termios.tcflow(terminal.writer, termios.TCOOFF)
    terminal.write(LINE)
    assert terminal.told() == 1
    termios.tcflow(terminal.writer, termios.TCOON)
    terminal.write(LINE)
    assert terminal.lines_to(LINE.strip()) == [LINE.strip()]


def test_a_terminal_that_is_busy_for_a_moment_gets_every_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said that it has room, and had none: another process wrote to it."""
    real, busy = os.write, [True]

    def write(descriptor: int, data: bytes) -> int:
        if descriptor == terminal.sink.fileno() and busy:
            busy.pop()
            raise BlockingIOError
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    terminal.write(LINE)
    assert terminal.told() is None
    assert (terminal.lines_to(LINE.strip()), busy) == ([LINE.strip()], [])


def test_a_terminal_that_stays_busy_blocks_nobody(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_descriptor: int, _data: bytes) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "write", write)
    terminal.write(LINE)
    assert terminal.told() == 1


def test_a_terminal_without_a_name_is_written_to_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another container has none here."""
    monkeypatch.setattr(os, "ttyname", lambda _: str(tmp_path / "gone"))
    made = Terminal()
    assert made.sink.fileno() == made.writer
    made.write(LINE)
    assert made.lines_to(LINE.strip()) == [LINE.strip()]
    for descriptor in (made.reader, made.writer):
        os.close(descriptor)


def test_a_process_counts_what_its_own_standard_error_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        assert lines_lost() == 0, "no sink, no count"
        sink = cast("BinaryIO", LogSink(full.fileno()))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(sink, write_through=True))
        sys.stderr.write(2 * LINE)
        assert lines_lost() == 2
        for metrics in (CoordinatorMetrics(build=BUILD), ParticipantMetrics(build=BUILD)):
            samples = {sample.name: sample.value for family in metrics.registry.collect() for sample in family.samples}
            assert [value for name, value in samples.items() if name.endswith("log_lines_lost_total")] == [2]


PROGRAM = """
import sys, structlog
from shared.log import configure_logging
from shared.log_sink import keep_stderr_going
keep_stderr_going()
configure_logging(style="json", level="info")
for number in range(int(sys.argv[1])):
    structlog.get_logger().info("said", number=number, text="x" * 1000)
print("said", flush=True)
sys.stdin.readline()
structlog.get_logger().info("later")
sys.exit("error: at the end")
"""


def ended(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What it logged; it goes on when what it logged first was read."""
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "said\n"
    first = os.read(process.stderr.fileno(), 1 << 20).decode()
    _, rest = process.communicate("\n", timeout=60)
    assert process.returncode == 1
    *lines, last = (first + rest).splitlines()
    assert last == "error: at the end"
    return [json.loads(line) for line in lines]


def started(lines: int, **streams: Any) -> subprocess.Popen[str]:
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(lines)], text=True, **piped)


def test_a_process_says_what_was_lost_when_somebody_reads_again() -> None:
    with started(200) as process:
        *said, later = ended(process)
    assert [line["number"] for line in said] == list(range(len(said)))
    assert (later["event"], later["lines_lost"]) == ("later", 200 - len(said))


def test_a_file_is_written_to_as_before(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.write_text("before\n")
    with log.open("a") as file, started(100, stderr=file) as process:
        process.communicate("\n", timeout=60)
    before, *lines, last = log.read_text().splitlines()
    assert (before, len(lines), last) == ("before", 101, "error: at the end")


def test_nothing_is_said_to_be_lost_where_nothing_was() -> None:
    with started(3) as process:
        *said, later = ended(process)
    assert len(said) == 3
    assert "lines_lost" not in later


def test_a_process_whose_reader_is_gone_comes_to_its_end() -> None:
    with started(3) as process:
        assert process.stderr is not None
        process.stderr.close()
        process.stderr = io.StringIO()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(60) == 1


def test_a_stream_of_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        log_sink.keep_stderr_going()
        assert sys.stderr is stream
