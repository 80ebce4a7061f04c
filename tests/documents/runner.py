"""Run one script in a new folder, and hold what comes against the documents."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.documents.compare import LEFT_OUT, DiffersError, events_of, require_shown, shown_to_fail
from tests.documents.marks import ROOT, Block, Command, Run, all_blocks
from tests.documents.scripts import FOLDER, PRELUDE, Hidden, Replace, Show, Step, Write, steps_of
from tests.documents.shell import FailedError, Shell, free_port

# Free ones take their places, so that the scripts run beside whatever uses these.
PORTS = ("8443", "9464", "9465", "9466", "9467")
COLUMNS = "138"  # as wide as the documents' tables
DAEMON = re.compile(r"\bconsilo (coordinator|participant) run\b")


def labelled(script: str, blocks: list[Block]) -> dict[str, Block]:
    """The blocks of a script by their labels. Raises ValueError when two have one."""
    found: dict[str, Block] = {}
    for block in blocks:
        if isinstance(block.mark, Run) and block.mark.script == script and block.mark.label is not None:
            if other := found.get(block.mark.label):
                raise ValueError(f"{block.where} and {other.where} have the same label: {block.mark.label}")
            found[block.mark.label] = block
    return found


class Runner:
    """A script as it goes on: its shell, and what stands for what by now."""

    def __init__(self, script: str, shell: Shell, ports: Mapping[str, str]) -> None:
        self._script = script
        self._blocks = labelled(script, all_blocks())
        self._shell = shell
        self._ports = ports
        self._replaced: dict[str, str] = {}

    def perform(self, step: Step) -> str:
        """Do what the step says; what to tell of it. Raises DiffersError."""
        match step:
            case Hidden():
                return self._hidden(step)
            case Replace():
                self._replaced[step.old] = step.new
                return ""
            case Write():
                self._write(step)
                return ""
            case Show():
                block = self._blocks[step.label]
                chosen = [each for number, each in enumerate(block.commands(), 1) if step.takes(number)]
                for command in chosen:
                    self._type(command, step, block)
                return f"{block.where} {step.label}: {chosen[-1].typed.splitlines()[0]}"

    def _hidden(self, step: Hidden) -> str:
        try:
            self._shell.run(step.text)
        except FailedError as failed:
            raise DiffersError(f"{self._script}.sh:{step.line}: this failed:\n{step.text}\n{failed}") from None
        return ""

    def _write(self, step: Write) -> None:
        block = self._blocks[step.label]
        text = self._in_place(re.sub(r"([$`\\])", r"\\\1", block.text), block)
        self._hidden(Hidden(step.line, f"cat > {step.path} <<END_OF_FILE\n{text}END_OF_FILE\n"))

    def _in_place(self, text: str, block: Block) -> str:
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        if LEFT_OUT in text and block.language != "text":
            raise DiffersError(f"{block.where}: {self._script}.sh does not say what stands for [...] in: {text}")
        return text

    def _type(self, command: Command, step: Show, block: Block) -> None:
        typed = self._in_place(command.typed, block)
        fails = step.fails or shown_to_fail(command.shown)
        starts = DAEMON.search(typed) is not None and not fails
        try:
            code, output = self._shell.run_one(started(typed, command.shown) if starts else typed, step.answer)
        except FailedError as failed:
            raise DiffersError(f"{block.where}: took too long, or ended the shell:\n{typed}\n{failed}") from None
        if (code != 0) != fails:
            told = "not 0, as an error is shown" if fails else "0"
            raise DiffersError(f"{block.where}: expected exit code {told}, got {code}:\n{typed}\n{output}")
        if step.compared:
            try:
                require_shown(command.shown, output)
            except DiffersError as differs:
                raise DiffersError(f"{block.where}: {typed}\n{differs}") from None


def started(command: str, shown: tuple[str, ...]) -> str:
    """A daemon is started in the background, and awaited by the events that the document shows."""
    return f"begin {shlex.quote(command)} {' '.join(events_of(shown))}"


def environment_in(home: Path, ports: Mapping[str, str]) -> dict[str, str]:
    """Nothing but what a reader has, and what stands for what the documents cannot know."""
    return {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "CHECKOUT": str(ROOT),
        "VENV": str(Path(sys.executable).parent.parent),
        "LANG": "C.UTF-8",
        "COLUMNS": COLUMNS,
        "OMP_NUM_THREADS": "1",
        # Where this machine's pip finds what it needs.
        **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
        **{f"P{port}": free for port, free in ports.items()},
    }


def perform(script: str) -> Iterator[str]:
    """Run a script; each block that was run, as it is. Raises DiffersError."""
    with tempfile.TemporaryDirectory(prefix=f"consilo-{script}-") as name:
        home = Path(name).resolve()
        folder = home / "work"
        folder.mkdir()
        ports = {port: free_port() for port in PORTS}
        with Shell(folder, environment_in(home, ports)) as shell:
            shell.run((FOLDER / f"{PRELUDE}.sh").read_text(encoding="utf-8"))
            runner = Runner(script, shell, ports)
            began = time.monotonic()
            for step in steps_of(script):
                if told := runner.perform(step):
                    yield f"{time.monotonic() - began:6.1f} s  {told}"
