"""Build the source archive, and the wheel from it: `python tools/build_packages.py [FOLDER]`, `dist` unless told.

What is built is what git knows of: files that merely lie in the checkout do not get in. The same commit gives the same
wheel, byte for byte: every date is the commit's, every mode one of two, and constraints.txt pins what builds it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from shared.build import REVISION_VARIABLE, source_revision

ROOT = Path(__file__).resolve().parent.parent
EXECUTABLE, PLAIN = 0o755, 0o644


@dataclass(frozen=True, slots=True)
class Packages:
    """What a build made."""

    archive: Path
    wheel: Path


def build_packages(folder: Path) -> Packages:
    """Build both into `folder`, which is made. Raises SystemExit with what the build said."""
    _build(folder)
    return Packages(_only(folder.glob("consilo-*.tar.gz"), folder), _only(folder.glob("consilo-*.whl"), folder))


def build_wheel(folder: Path) -> Path:
    """Build the wheel alone into `folder`, without the archive in between."""
    _build(folder, "--wheel")
    return _only(folder.glob("consilo-*.whl"), folder)


def _build(folder: Path, *options: str) -> None:
    if find_spec("build") is None:
        raise SystemExit(
            f"{sys.executable} has no package `build`, which builds them: "
            f"{sys.executable} -m pip install -c {ROOT / 'constraints.txt'} build"
        )
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": _git("log", "-1", "--format=%ct").strip(),
        "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
        "PIP_BUILD_CONSTRAINT": str(ROOT / "constraints.txt"),  # where newer versions of pip look
        REVISION_VARIABLE: source_revision(ROOT),  # the copy has no git
    }
    with tempfile.TemporaryDirectory(prefix="consilo-build-") as copy:
        _copy_tracked(Path(copy))
        command = [sys.executable, "-P", "-m", "build", *options, "--outdir", str(folder), copy]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the build failed:\n{done.stdout}{done.stderr}")


def _copy_tracked(copy: Path) -> None:
    for name in _git("ls-files", "-z").split("\0"):
        source = ROOT / name
        if name and source.is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod(EXECUTABLE if source.stat().st_mode & 0o100 else PLAIN)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _only(found: Iterable[Path], folder: Path) -> Path:
    paths = list(found)
    if len(paths) != 1:
        raise SystemExit(f"{folder}: expected one package of each kind, found {len(paths)}: empty it first")
    return paths[0]


if __name__ == "__main__":
    made = build_packages(Path(sys.argv[1] if len(sys.argv) > 1 else "dist"))
    print(made.archive, made.wheel, sep="\n")
