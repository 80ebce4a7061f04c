"""One process of a campaign, from its start to an end that was asked for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.wire import Appointment, meet, received, send

END_LIMIT_S = 20.0


class Failure(Exception):  # noqa: N818 - what a campaign ends with
    """Something that was promised did not hold. The text says what."""


class Daemon:
    """A coordinator or a participant, with the line to it. What it says goes to `heard`, on a thread of its own."""

    def __init__(
        self,
        name: str,
        *,
        role: str,
        config: Path,
        log: Path,
        environment: Mapping[str, str],
        offset_s: float,
        heard: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self.name = name
        self._line, theirs = socket.socketpair()
        with theirs, log.open("ab") as kept:
            entry = [sys.executable, "-P", "-m", "tests.faults.entry", role, str(config), str(theirs.fileno())]
            self._process = subprocess.Popen(
                [*entry, str(offset_s)],
                stdout=subprocess.DEVNULL,
                stderr=kept,
                env={**os.environ, **environment},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._heard = heard
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def meet(self, appointment: Appointment) -> None:
        send(self._line, meet(appointment))

    def go(self) -> None:
        send(self._line, {"say": "go"})

    def jump(self, offset_s: float) -> None:
        send(self._line, {"say": "jump", "offset_s": offset_s})

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait_until_stopped(self) -> None:
        """Of one that stopped itself."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise Failure(f"{self.name} ended in place of standing still")

    def wait(self) -> int:
        """Its exit code."""
        try:
            code = self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not end within {END_LIMIT_S:g} s") from None
        self._reader.join(END_LIMIT_S)
        self._line.close()
        return code

    def end(self) -> None:
        """At once, with all that it started."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def _read(self) -> None:
        for message in received(self._line):
            self._heard(self.name, message)
        self._heard(self.name, {"say": "gone"})
