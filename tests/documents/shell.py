"""One bash for a whole page or script, on a terminal of its own. What it started ends with it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

COLUMNS, LINES = 112, 60
STEP_LIMIT_S = 900.0
STOP_LIMIT_S = 20.0
# Ends each step's output, with the exit code: a byte that no command of the documents prints.
END = re.compile("\x1e(\\d+)\x1e")


class FailedError(Exception):
    """The shell has ended, or was waited for too long; the text is what came until then."""


class Shell:
    """A context in which commands are run, one after the other, as somebody would type them."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._files = folder.parent
        self._terminal, inner = pty.openpty()
        commands, self._stdin = os.pipe()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"],
            cwd=folder, env=dict(environment), start_new_session=True,
            stdin=commands, stdout=inner, stderr=inner,
        )  # fmt: skip
        os.close(inner)
        os.close(commands)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal_all(signal.SIGTERM)  # once: a second one would end the daemons at once
        deadline = time.monotonic() + STOP_LIMIT_S
        while self._signal_all(0) and time.monotonic() < deadline:
            time.sleep(0.2)
        self._signal_all(signal.SIGKILL)
        self._bash.wait()
        os.close(self._stdin)
        os.close(self._terminal)

    def _signal_all(self, number: int) -> bool:
        """False when nobody is left of the shell and what it started."""
        self._bash.poll()
        try:
            os.killpg(self._bash.pid, number)
        except ProcessLookupError:
            return False
        return True

    def run(self, commands: str) -> str:
        """What the terminal got from commands of which none fails. Raises FailedError when one does."""
        step = self._written("step.sh", commands)
        return self._until_its_end(f"source {step} < /dev/null")[1]

    def run_one(self, command: str, typed: str = "") -> tuple[int, str]:
        """Exit code and output of one command that may fail, and that sees no terminal."""
        step, answers = self._written("step.sh", f"{command}\n"), self._written("typed", typed)
        output = self._files / "output"
        loosely, strictly = "set +e +o pipefail", "; set -e -o pipefail"  # as a reader's shell is, and as scripts are
        code, _ = self._until_its_end(f"{loosely}; source {step} < {answers} > {output} 2>&1; (exit $?)", strictly)
        return code, output.read_text(encoding="utf-8", errors="replace")

    def _written(self, name: str, text: str) -> Path:
        path = self._files / name
        path.write_text(text, encoding="utf-8")
        return path

    def _until_its_end(self, line: str, afterwards: str = "") -> tuple[int, str]:
        os.write(self._stdin, f"{line}; printf '\\036%d\\036' $?{afterwards}\n".encode())
        output, deadline = b"", time.monotonic() + STEP_LIMIT_S
        while time.monotonic() < deadline:
            if select.select([self._terminal], [], [], 1.0)[0]:
                try:
                    output += os.read(self._terminal, 65536)
                except OSError:  # the shell has ended, and with it the terminal
                    break
            text = output.decode(errors="replace")
            if ended := END.search(text):
                return int(ended[1]), text[: ended.start()]
            if self._bash.poll() is not None:
                break
        raise FailedError(output.decode(errors="replace"))


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
