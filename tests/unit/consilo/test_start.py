"""The first step of the program: another project's `shared` is noticed before any of it is imported."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from consilo.start import overwritten_package

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["shared", "coordinator", "participant"])
def test_a_package_of_another_project_that_is_found_first(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it was imported')")
    (tmp_path / "work").mkdir()
    done = _consilo(tmp_path / "work", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the package '{name}' that Python finds is not Consilo's ({ROOT / name})")
    assert str(tmp_path / f"{name}.py") in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_a_folder_of_data_with_that_name_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    done = _consilo(tmp_path, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("consilo ")


@pytest.mark.parametrize("theirs", ["shared/__init__.py", "shared/config.py", "shared/wire/__init__.py"])
def test_a_package_that_an_installer_wrote_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str) -> None:
    ours = {"shared/__init__.py": "", "shared/config.py": "", "shared/wire/__init__.py": ""}
    for name, text in ours.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"").digest()).rstrip(b"=").decode()
    record = tmp_path / "consilo-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.4\nName: consilo\nVersion: 1.0\n")
    recorded = "".join(f"{name},sha256={digest},0\n" for name in ours)
    (record / "RECORD").write_text(f"{recorded}shared/taken_away.py,sha256=x,1\nshared/py.typed,sha256=x,0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert overwritten_package() is None

    (tmp_path / theirs).write_text("theirs = True\n")
    complaint = overwritten_package() or ""
    assert complaint.startswith(f"{tmp_path / theirs} is not as Consilo's installation wrote it")


def test_a_package_that_another_project_took_away_with_itself(tmp_path: Path) -> None:
    (tmp_path / "consilo").mkdir()
    for module in ("__init__.py", "__main__.py", "start.py"):
        shutil.copy(ROOT / "consilo" / module, tmp_path / "consilo")
    (tmp_path / "shared").mkdir()
    done = _consilo(tmp_path)
    assert done.returncode == 1
    assert done.stderr == f"error: Consilo's package 'shared' is not whole in {tmp_path}: install Consilo again\n"


def _consilo(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **variables}
    return subprocess.run(
        [sys.executable, "-m", "consilo", "--version"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
