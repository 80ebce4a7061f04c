"""The daemon's end of one task process: start it, ask it, end it with everything that it started.

The process leads a session and a process group of its own, and it is always the group that is signalled, so that data
loaders and whatever else the user's code started end with it. That the process has exited is watched beside the
socket: a grandchild may hold the other end of the socket open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from participant.tasks.contract import Noted as OnNote
from participant.tasks.contract import Progress, ignore_note
from participant.tasks.framing import LENGTH_BYTES, FrameError, decode_body, decode_length, encode_frame
from participant.tasks.messages import Advanced, Command, Noted, Reply, Shutdown, parse_reply
from participant.tasks.task_log import open_log

CLOSE_GRACE_S = 5.0  # for the user's own clean-up after `shutdown`
_STANDARD_ERROR = 2
_OWN_SETTINGS = "CONSILO_"  # environment of the daemon, which is no business of the user's code


class ProcessEnded(Exception):  # noqa: N818 - an outcome; never leaves `participant.tasks`
    """The process is gone, or said what is no reply; the message says how it ended."""


class TaskProcess:
    """A running process. Made by `start`; one question at a time."""

    def __init__(
        self,
        *,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        term_grace_s: float,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._term_grace_s = term_grace_s
        self._exited = asyncio.ensure_future(process.wait())
        self._exited.add_done_callback(self._sweep)
        self._swept = False

    @classmethod
    async def start(cls, *, log: Path | None, environment: Mapping[str, str], term_grace_s: float) -> Self:
        """Exec the process, its output going to `log` (None: to our standard error). Raises OSError.

        Call it from the daemon's main thread: the kernel ends the process together with the thread that started it.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003 - the signature of the standard library
        try:
            process = await _exec(theirs.fileno(), log, environment)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()  # a process that did start ends when it sees this
            raise
        finally:
            theirs.close()
        return cls(process=process, reader=reader, writer=writer, term_grace_s=term_grace_s)

    @property
    def pid(self) -> int:
        """The process, and its group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not been seen to exit."""
        return not self._exited.done()

    async def ask(self, command: Command, progress: Progress, noted: OnNote = ignore_note) -> Reply:
        """Send a command and wait for its reply. Raises ProcessEnded."""
        answer = asyncio.ensure_future(self._converse(command, progress, noted))
        try:
            await asyncio.wait({answer, self._exited}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
        except (OSError, EOFError):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._exited), self._term_grace_s)
        except FrameError as error:
            raise ProcessEnded(f"the task's process said what is no reply: {error}") from None
        finally:
            answer.cancel()
            await asyncio.wait({answer})
            answer.cancelled() or answer.exception()  # looked at, so that nobody complains that it was not
        raise ProcessEnded(self._how_it_ended())

    async def close(self) -> None:
        """Ask it to end, and end it if it does not."""
        with suppress(OSError):
            self._writer.write(encode_frame(Shutdown().model_dump(mode="json")))
            await self._writer.drain()
        try:
            await asyncio.wait({self._exited}, timeout=CLOSE_GRACE_S)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End the whole group: SIGTERM, a grace, SIGKILL. Cancelling this does not keep the SIGKILL back."""
        try:
            self._signal_group(signal.SIGTERM)
            await asyncio.wait({self._exited}, timeout=self._term_grace_s)
        finally:
            self._signal_group(signal.SIGKILL)
            self._writer.close()
        await asyncio.shield(self._exited)
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _converse(self, command: Command, progress: Progress, noted: OnNote) -> Reply:
        self._writer.write(encode_frame(command.model_dump(mode="json")))
        await self._writer.drain()
        while True:
            head = await self._reader.readexactly(LENGTH_BYTES)
            reply = parse_reply(decode_body(await self._reader.readexactly(decode_length(head))))
            if isinstance(reply, Advanced):
                progress(reply.fraction)
            elif isinstance(reply, Noted):
                noted(reply.what, reply.detail)
            else:
                return reply

    def _signal_group(self, number: signal.Signals) -> None:
        if not self._swept:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _sweep(self, _exited: object) -> None:
        """The leader is gone: end the rest of its group now, once. Later the number may be somebody else's."""
        self._signal_group(signal.SIGKILL)
        self._swept = True

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        if code is None:
            return "the task's process closed its channel and went on"
        if code >= 0:
            return f"the task's process exited with code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = " (short of memory, perhaps)" if name == "SIGKILL" else ""
        return f"the task's process was ended by {name}{hint}"


async def _exec(channel: int, log: Path | None, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    output = _STANDARD_ERROR if log is None else open_log(log)
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # the folder that the daemon happens to be in is not a place for imports
            "-m",
            "participant.tasks.process",
            "--channel",
            str(channel),
            "--parent",
            str(os.getpid()),
            *_log_option(log),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(channel,),
            start_new_session=True,
            env=task_environment(environment),
        )
    finally:
        if log is not None:
            os.close(output)


def _log_option(log: Path | None) -> list[str]:
    """For the process to keep it short."""
    return [] if log is None else ["--log", str(log.absolute())]


def task_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The daemon's environment without its own settings, and with what makes a run repeatable."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_SETTINGS)}
    return {
        **inherited,
        "PYTHONUNBUFFERED": "1",  # what was printed before a crash is in the log
        "PYTHONHASHSEED": "0",  # the order of a set of names is the same after a restart
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what CUDA needs for deterministic matrix products
        **extra,
    }
