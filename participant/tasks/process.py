"""The warm process of one task: `python -P -m participant.tasks.process --channel FD --parent PID`.

The daemon starts it by exec, in a session and process group of its own, with one end of a socket pair as its only
inherited descriptor beside the standard ones; these are the null device and the silo's log file, so that whatever the
user's code prints ends up there (`participant.tasks.task_log` keeps it short). Commands and replies are frames on the
socket (`participant.tasks.messages`).

Its life is bound to the daemon's, in two ways: the kernel kills it when the daemon dies (on Linux), and a thread ends
the whole process group when the other end of the socket is gone. The daemon, for its part, ends the group after every
failure. What the user's code started by itself and left behind when the daemon is killed is for the service manager to
end (systemd ends the control group). Nothing here imports torch before the first `load`: these bonds are in place
within milliseconds.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import os
import select
import shlex
import signal
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from participant.tasks.contract import NoteKind
from participant.tasks.framing import read_frame, write_frame
from participant.tasks.messages import (
    Advanced,
    Command,
    Evaluate,
    Failed,
    InitModel,
    Load,
    Noted,
    Reply,
    Shutdown,
    Train,
    parse_command,
)
from participant.tasks.task_log import print_to, rotate_if_full
from shared.build import requirement
from shared.reasons import DropReason

if TYPE_CHECKING:
    from participant.tasks.host import TaskHost

PROGRESS_INTERVAL_S = 0.2  # a training loop may report each batch; nobody watches that closely
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class Channel:
    """The process's end of the socket. Frames of two threads do not mix; a forked child has no channel."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._open = True

    def receive(self) -> Command | None:
        """The next command; None when the daemon is gone. Raises FrameError."""
        frame = read_frame(self._descriptor)
        return None if frame is None else parse_command(frame)

    def send(self, message: Reply) -> None:
        """Raises OSError when the daemon is gone."""
        with self._lock:
            if self._open:
                write_frame(self._descriptor, message.model_dump(mode="json"))

    def abandon(self) -> None:
        """In a forked child: the parent's conversation is not the child's."""
        self._lock = threading.Lock()  # the parent may have held it while it forked
        self._open = False
        os.close(self._descriptor)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="participant.tasks.process")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args(arguments)
    faulthandler.enable()
    print_to(given.log)
    channel = Channel(given.channel)
    bind_life(given.channel, given.parent)
    os.register_at_fork(after_in_child=channel.abandon)
    return serve(channel, given.log)


def bind_life(descriptor: int, parent: int) -> None:
    """End this process, and what it started, when the daemon ends."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - the signature of the standard library
    die_with_parent()
    if os.getppid() != parent:
        sys.exit("the daemon ended before this process had begun")
    threading.Thread(target=_end_on_hang_up, args=(descriptor,), name="hang-up", daemon=True).start()


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies. Elsewhere than on Linux the socket has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def serve(channel: Channel, log: Path | None) -> int:
    """Answer commands until there are no more. Returns the exit code."""
    host: TaskHost | None = None
    while True:
        command = channel.receive()
        if log is not None:
            rotate_if_full(log)
        if command is None or isinstance(command, Shutdown):
            return 0
        if isinstance(command, Load):
            if host is not None:
                raise RuntimeError("one process holds one task: load came twice")
            host = _load(command, channel)
        elif host is None:
            raise RuntimeError(f"{command.kind} came before load")
        else:
            channel.send(_answer(host, command, channel))


def _load(command: Load, channel: Channel) -> TaskHost | None:
    if find_spec("torch") is None:
        missing = f"torch (PyTorch) is not installed here: pip install {shlex.quote(requirement('participant'))}"
        channel.send(Failed(reason=DropReason.TASK_UNAVAILABLE, message=missing))
        return None
    from participant.tasks.host import CallFailed, TaskHost  # torch is here

    try:
        host, loaded = TaskHost.load(command)
    except CallFailed as failed:
        channel.send(Failed(reason=failed.reason, message=str(failed)))
        return None
    channel.send(loaded)
    return host


def _answer(host: TaskHost, command: InitModel | Evaluate | Train, channel: Channel) -> Reply:
    from participant.tasks.host import CallFailed

    report = Throttle(channel).report

    def note(what: NoteKind, detail: str) -> None:
        channel.send(Noted(what=what, detail=detail))

    try:
        match command:
            case InitModel():
                return host.init_model(command)
            case Evaluate():
                return host.evaluate(command, report)
            case Train():
                return host.train(command, report, note)
            case _:
                assert_never(command)
    except CallFailed as failed:
        return Failed(reason=failed.reason, message=str(failed))


class Throttle:
    """Passes on the first report, the last one, and what comes between at intervals."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._not_before = 0.0

    def report(self, fraction: float) -> None:
        now = time.monotonic()
        if now >= self._not_before or fraction == 1:
            self._not_before = now + PROGRESS_INTERVAL_S
            self._channel.send(Advanced(fraction=fraction))


def _end_on_hang_up(descriptor: int) -> None:
    poller = select.poll()
    poller.register(descriptor, 0)  # nothing but POLLHUP and POLLERR, which cannot be switched off
    poller.poll()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
