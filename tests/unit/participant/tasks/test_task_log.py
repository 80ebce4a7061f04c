"""What a task prints is kept short, and nothing of what was printed last is lost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from participant.tasks.task_log import LOG_MAX_BYTES, older, open_log

LINE_BYTES = 64 * 1024

# A task that prints lines, and forks: `who` is 0 in the parent.
PRINTS = f"""
import os, sys
from pathlib import Path
from participant.tasks.task_log import print_to
log, children, lines = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print_to(log)
who, started = 0, []
for number in range(1, children + 1):
    child = os.fork()
    if child == 0:
        who, started = number, []  # a process waits for its own children alone
        break
    started.append(child)
for line in range(lines):
    sys.stdout.write((str(who) + " " + str(line) + " ").ljust({LINE_BYTES} - 1, ".") + "\\n")
for child in started:
    os.waitpid(child, 0)
"""


def prints(log: Path, script: str, *arguments: str) -> None:
    output = open_log(log)
    try:
        subprocess.run(
            [sys.executable, "-c", script, str(log), *arguments], check=True, stdout=output, stderr=output, timeout=60
        )
    finally:
        os.close(output)


def lines_of(*logs: Path) -> list[tuple[int, int]]:
    """Who printed what, of the whole lines."""
    text = b"".join(log.read_bytes() for log in logs)
    return [(int(who), int(line)) for who, line in re.findall(rb"^(\d+) (\d+) \.+$", text, re.MULTILINE)]


def test_two_full_files_hold_what_was_printed_last(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    prints(log, PRINTS, "0", "640")
    printed = lines_of(older(log), log)
    assert printed == [(0, line) for line in range(printed[0][1], 640)], "whole, in order, to the last line"
    assert LOG_MAX_BYTES - 2 * LINE_BYTES < older(log).stat().st_size <= LOG_MAX_BYTES
    assert log.stat().st_size <= LOG_MAX_BYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["task.log", "task.log.1"]


def test_processes_that_print_at_once_rename_once(tmp_path: Path) -> None:
    """Else the older generation would be a few lines, and what was before them lost."""
    log = tmp_path / "task.log"
    prints(log, PRINTS, "3", "80")
    assert sorted(lines_of(older(log), log)) == [(who, line) for who in range(4) for line in range(80)]
    assert log.stat().st_size + older(log).stat().st_size == 4 * 80 * LINE_BYTES, "and nothing else"
    assert LOG_MAX_BYTES - 4 * LINE_BYTES < older(log).stat().st_size <= LOG_MAX_BYTES + 4 * LINE_BYTES


@pytest.mark.parametrize(
    ("taken", "look"), [(0, 1), (LOG_MAX_BYTES, 2), (LOG_MAX_BYTES, 3)], ids=["room", "full", "new"]
)
def test_a_file_that_others_fill_between_a_look_and_the_write_loses_no_line(
    tmp_path: Path, taken: int, look: int
) -> None:
    """`look`: the one after which they fill it; of the file that is full the second, and the third is of a new one."""
    log = tmp_path / "task.log"
    script = (
        "import os, sys; from pathlib import Path; from participant.tasks import task_log\n"
        "log, at, own = Path(sys.argv[1]), int(sys.argv[2]), task_log._is_full\n"
        "looks = 0\n"
        "def looked(descriptor, wanted):\n"
        "    global looks; looks += 1; found = own(descriptor, wanted)\n"
        "    if looks == at: os.truncate(descriptor, task_log.LOG_MAX_BYTES)\n"
        "    return found\n"
        "os.truncate(1, int(sys.argv[3])); task_log.print_to(log); task_log._is_full = looked\n"
        "sys.stdout.write('kept\\n'); assert looks >= at, looks"
    )
    prints(log, script, str(look), str(taken))
    assert b"".join(path.read_bytes() for path in tmp_path.iterdir()).count(b"kept\n") == 1


def test_one_text_that_is_longer_than_a_file_is_cut_into_files(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    script = (
        "import sys; from pathlib import Path; from participant.tasks.task_log import print_to;"
        "print_to(Path(sys.argv[1])); sys.stdout.write('x' * (40 << 20) + 'end')"
    )
    prints(log, script)
    assert older(log).stat().st_size == LOG_MAX_BYTES
    assert log.stat().st_size == (40 << 20) + 3 - 2 * LOG_MAX_BYTES
    assert log.read_bytes().endswith(b"xend")


def test_where_no_file_can_be_begun_what_is_printed_is_lost_and_is_no_error(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    blocked = older(log)
    blocked.mkdir()  # nothing can be renamed to it
    (blocked / "full").touch()
    prints(log, PRINTS, "0", "640")
    assert LOG_MAX_BYTES - 2 * LINE_BYTES < log.stat().st_size <= LOG_MAX_BYTES


def test_what_is_printed_natively_counts_at_the_next_command(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    script = (
        "import os, sys; from pathlib import Path; from participant.tasks.task_log import print_to, rotate_if_full;"
        "log = Path(sys.argv[1]); print_to(log); os.write(1, bytes(17 << 20)); rotate_if_full(log); os.write(2, b'new')"
    )
    prints(log, script)
    assert older(log).stat().st_size == 17 << 20
    assert log.read_bytes() == b"new"


def test_a_child_that_was_forked_while_the_file_was_changed_changes_it_by_itself(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    script = (
        "import os, sys; from pathlib import Path; from participant.tasks import task_log\n"
        "task_log._rotating.acquire(); child = os.fork()\n"
        "if child: sys.exit(os.waitpid(child, 0)[1])\n"
        "os.write(1, bytes(17 << 20)); task_log.rotate_if_full(Path(sys.argv[1])); os.write(1, b'new'); os._exit(0)\n"
    )
    prints(log, script)
    assert older(log).stat().st_size == 17 << 20
    assert log.read_bytes() == b"new"


@pytest.mark.parametrize("size", [0, LOG_MAX_BYTES - 1, LOG_MAX_BYTES])
def test_a_full_log_becomes_the_older_of_two_at_a_start(tmp_path: Path, size: int) -> None:
    log = tmp_path / "task.log"
    with log.open("wb") as file:
        file.truncate(size)
    os.close(open_log(log))
    assert older(log).exists() == (size == LOG_MAX_BYTES)
    assert size < LOG_MAX_BYTES or log.stat().st_mode & 0o777 == 0o600
