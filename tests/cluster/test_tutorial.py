"""docs/tutorial.md is run as it stands, on real processes; what needs no processes is looked at each time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from coordinator.client.job_file import JobFile
from coordinator.client.settings import OperatorSettings
from coordinator.settings import CoordinatorSettings
from participant.settings import ParticipantSettings
from shared.config import load_config
from tests.documents import tutorial
from tests.documents.compare import DiffersError
from tests.documents.shell import Shell

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "tabular_script"
RUN_LIMIT_S = 1800


def written(path: str) -> str:
    """What the page writes into a file."""
    (text,) = re.findall(rf"cat > {re.escape(path)} <<'?END'?\n(.*?)^END$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.timeout(RUN_LIMIT_S + 60)
def test_the_tutorial_runs_as_it_stands() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.documents.tutorial", "--check"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=RUN_LIMIT_S,
    )
    assert ran.returncode == 0, ran.stdout
    assert ran.stdout.splitlines()[-1].endswith("kill $(cat coordinator/pid hospital-*/pid)")


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("coordinator/coordinator.toml", CoordinatorSettings),
        ("operator/operator.toml", OperatorSettings),
        ("operator/job.toml", JobFile),
        ("$silo/participant.toml", ParticipantSettings),
    ],
)
def test_the_files_of_the_tutorial_parse(path: str, model: type[BaseModel], tmp_path: Path) -> None:
    text = written(path).replace("$silo", "hospital-a").replace("$digest", "0" * 64)
    (tmp_path / "from-page.toml").write_text(text, encoding="utf-8")
    load_config(tmp_path / "from-page.toml", model, environment={})


def test_the_task_of_the_tutorial_is_the_example() -> None:
    task = (EXAMPLE / "heart_task.py").read_text(encoding="utf-8")
    assert task.split("\n", 1)[1] == written("study/heart_task.py")


def test_the_example_is_shown_in_the_guide() -> None:
    guide = (ROOT / "docs" / "guide-data-scientist.md").read_text(encoding="utf-8")
    assert written("study/heart_task.py") in guide
    (shown,) = re.findall(r"^```python\n(def build_model.*?)^```", guide, re.MULTILINE | re.DOTALL)
    assert shown in (EXAMPLE / "heart_script.py").read_text(encoding="utf-8")


def test_every_block_and_every_image_of_the_page_is_a_step() -> None:
    first = PAGE.index(tutorial.FIRST_SECTION)
    steps = list(tutorial.steps(PAGE))
    assert len(steps) == PAGE.count("```sh\n") == PAGE.count("```sh\n", first)
    assert sum(bool(step.expected) for step in steps) == PAGE.count("```text\n") > 5
    drawn = {step.image for step in steps if step.image}
    assert len(drawn) == PAGE.count("![") > 5
    assert drawn == set((ROOT / "docs" / "images").glob("tutorial-*.svg"))


def test_the_tool_notices_what_differs() -> None:
    step = tutorial.Step(line=1, commands="ls\n", expected=("first [...] 4 rounds", "second"), image=None)
    tutorial.compare(step, "before\r\n\x1b[1mfirst of 4 rounds\x1b[0m\r\nbetween\r\nthe second\r\n")
    for output in ("first of 4 rounds\n", "second\nfirst of 4 rounds\n", "first of 5 rounds\nsecond\n"):
        with pytest.raises(DiffersError):
            tutorial.compare(step, output)


def test_the_tool_draws_what_is_left_on_the_screen() -> None:
    frames = "before\r\n\x1b[?25lone\r\ntwo\r\x1b[2K\x1b[1A\x1b[2K\x1b[32mthree\x1b[0m\r\nfour\r\n\x1b[?25h"
    assert tutorial.screen(frames) == "before\n\x1b[32mthree\x1b[0m\nfour"
    assert tutorial.screen("bar 0%\r\x1b[2Kbar 9%\r\n\r\x1b[1A\x1b[2Kdone\r\n") == "done"


def test_the_shell_of_the_tool_says_which_step_failed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with Shell(tmp_path / "folder", {"PATH": os.environ["PATH"]}) as shell:
        kept = tutorial.Step(line=1, commands="kept=yes\necho from $(basename $PWD)\n", expected=(), image=None)
        assert tutorial.run(shell, kept) == "from folder\r\n"
        with pytest.raises(DiffersError, match="line 7: this failed"):
            tutorial.run(
                shell, tutorial.Step(line=7, commands="test $kept = no\necho not here\n", expected=(), image=None)
            )


def test_images_fetch_nothing() -> None:
    for image in (ROOT / "docs" / "images").glob("*.svg"):
        text = image.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "url(http" not in text.replace('"', ""), image.name
        assert "href" not in text, image.name
