"""Run docs/tutorial.md as it stands, compare what it says with what comes, and draw its images (not with `--check`).

The page is the script. After "## 1." every block of `sh` is run, in order and in one shell, as a reader would; each
must end with 0. A block of `text` that follows has lines that the output must have, in that order, with `[...]` for
what differs from run to run. An image that follows is drawn from the output: what the terminal got, colours and all.

Everything happens in a new folder, with an environment that has nothing but PATH, HOME and CHECKOUT. With `--check`
ports are free ones, so that it runs beside whatever uses those of the page.
"""

from __future__ import annotations

import argparse
import io
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.documents.compare import DiffersError
from tests.documents.shell import COLUMNS, FailedError, Shell, free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
FIRST_SECTION = "\n## 1. "
PORTS = ("8443", "9464")
# Readers' browsers fetch nothing: the font is whatever fixed one they have.
SVG_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One block of commands, and what the page says comes of it."""

    line: int
    commands: str
    expected: tuple[str, ...]
    image: Path | None

    @property
    def last_command(self) -> str:
        return self.commands.strip().splitlines()[-1]


def steps(page: str) -> Iterator[Step]:
    """The blocks of `sh` after the first section's heading."""
    start = page.index(FIRST_SECTION)
    block = re.compile(
        r"^```sh\n(?P<commands>.*?)^```\n"
        r"(?:\n```text\n(?P<expected>.*?)^```\n|\n!\[[^\]]*\]\((?P<image>[^)]+)\))?",
        re.MULTILINE | re.DOTALL,
    )
    for found in block.finditer(page, start):
        yield Step(
            line=page.count("\n", 0, found.start()) + 1,
            commands=found["commands"],
            expected=tuple((found["expected"] or "").splitlines()),
            image=PAGE.parent / found["image"] if found["image"] else None,
        )


def run(shell: Shell, step: Step) -> str:
    """What the terminal got. Raises DiffersError when the commands fail."""
    try:
        return shell.run(step.commands)
    except FailedError as failed:
        raise DiffersError(f"line {step.line}: this failed, or took too long:\n{step.commands}\n{failed}") from None


def screen(output: str) -> str:
    """What is left on the screen when bars and live tables were drawn over and over, with its colours."""
    lines, row = [""], 0
    without_cursor = re.sub(r"\x1b\[\?25[hl]", "", output)
    for part in re.findall(r"\x1b\[\d*A|\x1b\[2K|\n|(?:\x1b\[[\d;]*m|[^\x1b\r\n])+", without_cursor):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
            row = max(0, row - int(up[1] or 1))
        elif part == "\x1b[2K":
            lines[row] = ""
        else:
            lines[row] += part
    return "\n".join(lines).rstrip("\n")


def compare(step: Step, output: str) -> None:
    """Raises DiffersError unless the expected lines come in this order."""
    lines = iter(Text.from_ansi(output.replace("\r\n", "\n")).plain.splitlines())
    for expected in step.expected:
        pattern = re.compile(".*".join(re.escape(part) for part in expected.split("[...]")))
        if not any(pattern.search(line) for line in lines):
            raise DiffersError(f"line {step.line}: the page says\n  {expected}\nand this came:\n{output}")


def draw(step: Step, output: str, image: Path) -> None:
    """The image of a step: its last command, and what the terminal showed."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ ", style="bold green") + Text(step.last_command), soft_wrap=False)
    console.print(Text.from_ansi(screen(output)))
    drawn = console.export_svg(title="hearts", code_format=SVG_FORMAT)
    image.parent.mkdir(exist_ok=True)
    image.write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE), encoding="utf-8")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="run and compare; draw nothing")
    check = options.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    if check:
        for port in PORTS:
            page = page.replace(port, free_port())
    with tempfile.TemporaryDirectory(prefix="consilo-tutorial-") as home:
        folder = Path(home) / "hearts"
        folder.mkdir()
        environment = {
            "HOME": home,
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "CHECKOUT": str(ROOT),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
        }
        started = time.monotonic()
        with Shell(folder, environment) as shell:
            for step in steps(page):
                output = run(shell, step)
                compare(step, output)
                if step.image and not check:
                    draw(step, output, step.image)
                sys.stdout.write(f"{time.monotonic() - started:6.1f} s  line {step.line}: {step.last_command}\n")
                sys.stdout.flush()
    return 0


if __name__ == "__main__":
    # Told to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        raise SystemExit(main())
    except DiffersError as difference:
        raise SystemExit(str(difference)) from None
