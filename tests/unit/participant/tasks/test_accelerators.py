"""The process that asks PyTorch what devices there are: what it imports, and what is said when it cannot tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from participant.tasks.accelerators import ask_accelerators
from shared.errors import TaskError


def test_a_torch_in_the_folder_where_a_person_stands_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, installed = tmp_path / "here", tmp_path / "installed"
    for folder in (here, installed):
        folder.mkdir()
        (folder / "torch.py").write_text(f"raise SystemExit('this is the one in {folder.name}')")
    monkeypatch.chdir(here)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    with pytest.raises(TaskError, match="this is the one in installed"):
        ask_accelerators()


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        ("print('hello', flush=True)", "got something else: run it"),
        (r"os.write(1, b'\xff')", "got something else: run it"),
        (r"os.write(2, b'no driver \xff'); raise SystemExit(1)", r"PyTorch cannot be used: no driver \\xff\. Install"),
    ],
    ids=["a greeting", "bytes", "an error in bytes"],
)
def test_what_is_no_answer_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: str, said: str
) -> None:
    (tmp_path / "torch.py").write_text(f"import os\n{torch}\nos._exit(os.EX_OK)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(TaskError, match=said):
        ask_accelerators()
