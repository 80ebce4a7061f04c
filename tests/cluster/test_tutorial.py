"""docs/tutorial.md is run as it stands, on real processes; what needs no processes is looked at each time."""

from __future__ import annotations

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
        [sys.executable, ROOT / "tools" / "render_tutorial.py", "--check"],
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


def test_each_step_of_the_tutorial_says_what_comes_of_it() -> None:
    """The tool takes what follows a block for what comes of it; an image that follows something else is never drawn."""
    images = re.findall(r"!\[[^\]]+\]\((images/tutorial-[\w-]+\.svg)\)", PAGE)
    assert len(re.findall(r"^```\n\n!\[", PAGE, re.MULTILINE)) == len(images) >= 5
    drawn = {f"images/{path.name}" for path in (ROOT / "docs" / "images").glob("tutorial-*.svg")}
    assert drawn == set(images)


def test_images_fetch_nothing() -> None:
    for image in (ROOT / "docs" / "images").glob("*.svg"):
        text = image.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "url(http" not in text.replace('"', ""), image.name
        assert "href" not in text, image.name
