"""Each command that a document shows is run by something, or is marked as an example, with the reason (ADR 0023)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.documents.__main__ import TUTORIAL
from tests.documents.marks import DOCUMENTS, ROOT, Block, Example, MarkError, Run, RunElsewhere, all_blocks, blocks_of
from tests.documents.runner import labelled
from tests.documents.scripts import FOLDER, PRELUDE, Show, Write, script_names, steps_of

BLOCKS = all_blocks()
SCRIPTS = script_names()


def problems(blocks: list[Block], reached: dict[str, dict[str, set[int]]]) -> list[str]:
    """What is wrong with the marks, given by which script which commands of which label are reached."""
    found = []
    for block in blocks:
        match block.mark:
            case None if block.commands():
                found.append(f"{block.where}: commands without a mark")
            case Run(script=script) if script != TUTORIAL and script not in reached:
                found.append(f"{block.where}: no script {script}")
            case Run(script=script, label=str() as label):
                wanted = {0} if block.is_file else set(range(1, len(block.commands()) + 1))
                if not wanted:
                    found.append(f"{block.where}: no commands to run")
                if missing := wanted - reached.get(script, {}).get(label, set()):
                    found.append(f"{block.where}: {script} does not reach {label}: commands {sorted(missing)}")
            case RunElsewhere(path=path, text=text):
                there = ROOT / path
                if not there.is_file() or text not in there.read_text(encoding="utf-8"):
                    found.append(f"{block.where}: {path} has no {text!r}")
            case _:
                pass
    return found


def reached_by(script: str, blocks: list[Block]) -> dict[str, set[int]]:
    """Which commands of which label a script runs, from 1; 0 where it writes the block to a file."""
    known = labelled(script, blocks)
    found: dict[str, set[int]] = {}
    for step in steps_of(script):
        match step:
            case Show(label=label):
                numbers = range(1, len(known[label].commands()) + 1)
                found.setdefault(label, set()).update(number for number in numbers if step.takes(number))
            case Write(label=label):
                found.setdefault(label, set()).add(0)
            case _:
                pass
    return found


def test_every_command_is_run_or_marked() -> None:
    reached = {script: reached_by(script, BLOCKS) for script in SCRIPTS}
    assert problems(BLOCKS, reached) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_step_of_a_script_is_a_block_that_the_documents_have(script: str) -> None:
    said = {step.label for step in steps_of(script) if isinstance(step, Show | Write)}
    assert said == labelled(script, BLOCKS).keys()


@pytest.mark.parametrize("script", [*SCRIPTS, PRELUDE])
def test_scripts_are_bash(script: str) -> None:
    subprocess.run(["bash", "-n", str(FOLDER / f"{script}.sh")], check=True)


def test_ci_runs_the_scripts() -> None:
    assert "make documents" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "-m tests.documents $(ARGS)" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_only_the_tutorial_is_a_whole_page() -> None:
    whole = [block for block in BLOCKS if block.mark == Run(TUTORIAL, None)]
    shells = [block for block in BLOCKS if block.document == "docs/tutorial.md" and block.language == "sh"]
    assert whole == shells != []


def test_blocks_were_found() -> None:
    assert sum(isinstance(block.mark, Run) for block in BLOCKS) > 60
    assert len(DOCUMENTS) > 12


# --- the rule notices -------------------------------------------------------------------------------------------------


def in_document(text: str, folder: Path) -> list[Block]:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return blocks_of(path, folder)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```console\n$ ls\n```\n", "page.md:1: commands without a mark"),
        ("```sh\nls\n```\n", "page.md:1: commands without a mark"),
        ("<!-- run: nothing ls -->\n```sh\nls\n```\n", "page.md:2: no script nothing"),
        ("<!-- run: known ls -->\n```sh\nls\n```\n", "page.md:2: known does not reach ls: commands [1]"),
        ("<!-- run: known half -->\n```console\n$ ls\n$ cd\n```\n", "known does not reach half: commands [2]"),
        ("<!-- file: known half -->\n```toml\na = 1\n```\n", "page.md:2: known does not reach half: commands [0]"),
        ("<!-- run: known half -->\n```console\nonly shown\n```\n", "page.md:2: no commands to run"),
        ('<!-- run by: .ci/run "make tset" -->\n```sh\nls\n```\n', "page.md:2: .ci/run has no 'make tset'"),
        ('<!-- run by: ci/run "make test" -->\n```sh\nls\n```\n', "page.md:2: ci/run has no 'make test'"),
    ],
)
def test_a_block_that_nobody_runs_is_found(text: str, problem: str, tmp_path: Path) -> None:
    (found, *_) = problems(in_document(text, tmp_path), {"known": {"half": {1}}})
    assert problem in found


@pytest.mark.parametrize(
    "text",
    [
        "```console\nonly shown\n```\n",
        "```toml\na = 1\n```\n",
        "<!-- example: needs systemd as PID 1 -->\n```sh\nsystemctl start x\n```\n",
        '<!-- run by: .ci/run "make test" -->\n\n```console\n$ make test\n```\n',
        "<!-- run: known both -->\n```console\n$ ls\nshown\n$ cd \\\n  /\n```\n",
    ],
)
def test_a_block_that_is_run_or_marked_is_right(text: str, tmp_path: Path) -> None:
    assert problems(in_document(text, tmp_path), {"known": {"both": {1, 2}}}) == []


@pytest.mark.parametrize(
    "text",
    [
        "<!-- run: known -->\n```sh\nls\n```\n",
        "<!-- example: systemd -->\n```sh\nls\n```\n",
        "<!-- run by: .ci/run make test -->\n```sh\nls\n```\n",
        "<!-- run: known ls -->\n\nA paragraph.\n\n```sh\nls\n```\n",
        "* item\n  ```sh\n  ls\n  ```\n",
    ],
)
def test_a_mark_that_says_nothing_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(MarkError):
        in_document(text, tmp_path)


def test_two_blocks_of_one_label_are_refused(tmp_path: Path) -> None:
    twice = in_document("<!-- run: known ls -->\n```sh\nls\n```\n" * 2, tmp_path)
    with pytest.raises(ValueError, match=r"page.md:6 and page.md:2 have the same label: ls"):
        labelled("known", twice)


def test_an_example_has_its_reason(tmp_path: Path) -> None:
    (block,) = in_document("<!-- example: needs a GPU machine -->\n```sh\nls\n```\n", tmp_path)
    assert block.mark == Example("needs a GPU machine")
