"""The demo's daemons: started as anybody would start them, watched, and never left behind.

Each is a process group of its own with its output in a file. `Daemons` is left in the same way whether the demo ended
well, failed or was interrupted: SIGTERM to all, a moment to close, then SIGKILL to the groups that are still there.

An interruption must not fall between the start of a process and the note that it was started, nor cut the ending short:
there `Interrupts` holds it back. (Blocking the signals would do the same, and would be inherited by the daemons.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from shared.errors import UnreachableError

STOP_LIMIT_S = 10.0
LOG_TAIL_LINES = 8
# -P: the working folder is not searched for modules, whatever is in it.
CONSILO = (sys.executable, "-P", "-m", "consilo")


class Interrupts:
    """Makes SIGINT and SIGTERM a KeyboardInterrupt, at once or when what must not be interrupted is done."""

    def __init__(self) -> None:
        self._asked = False
        self._holding = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold interruptions back until the end of this block."""
        self._asked, self._holding = False, True
        try:
            yield
        finally:
            self._holding = False
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        if not self._holding:
            raise KeyboardInterrupt


class Daemons:
    """Processes that end with this context."""

    def __init__(self, *, logs: Path, interrupts: Interrupts) -> None:
        self._logs = logs
        self._interrupts = interrupts
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._may_end: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str], *, folder: Path, may_end: bool = False) -> None:
        """Start a command in `folder`, with its output at the end of `<name>.log`. One that ended may start again."""
        # Group and standard input of its own: Ctrl-C is for the demo, which then ends its daemons in order.
        with self._interrupts.held(), self._log(name).open("ab") as log:
            if name in self._running:
                _end_group(self._running.pop(name))
            self._running[name] = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._may_end = self._may_end | {name} if may_end else self._may_end - {name}

    def has_ended(self, name: str) -> bool:
        return self._running[name].poll() is not None

    def check(self) -> None:
        """Raises UnreachableError with the end of its log when a daemon has ended that may not."""
        for name, process in self._running.items():
            code = process.poll()
            if code is not None and name not in self._may_end:
                raise UnreachableError(
                    f"{name} ended with code {code}; the end of {self._log(name)}:\n{self._tail(name)}"
                )

    def stop(self) -> None:
        """End them all."""
        with self._interrupts.held():
            running, self._running = self._running, {}
            for process in running.values():
                if process.poll() is None:
                    process.terminate()
            deadline = time.monotonic() + STOP_LIMIT_S
            for process in running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
                _end_group(process)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _tail(self, name: str) -> str:
        lines = self._log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Also of one that has ended: a task process that it left behind is in this group or ends with its pipe."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_consilo(arguments: Sequence[str], *, folder: Path) -> None:
    """Run one command to its end. Raises UnreachableError with what it said."""
    done = subprocess.run(
        [*CONSILO, *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise UnreachableError(f"`consilo {' '.join(arguments[:2])}` ended with code {done.returncode}: {said}")
