"""The code of another commit beside this one's, and a federation in which some daemons run it.

The code comes out of git into a folder, and whoever runs it gets that folder first in PYTHONPATH: the interpreter, the
dependencies and the tasks are those of this checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.federation import CLUSTER_TASKS, REPOSITORY, Federation

GIT_LIMIT_S = 60.0
COMMAND_LIMIT_S = 60.0
PACKAGES = ("consilo", "coordinator", "participant", "shared", "tests")


def code_of(revision: str, folder: Path) -> Path:
    """The tree of a commit. Without git's records there is none, and the test is skipped; a commit that these records
    lack fails it.
    """
    if not (REPOSITORY / ".git").exists():
        pytest.skip(f"the code of {revision} is in the history, and this checkout has no .git")
    archive = subprocess.run(
        ["git", "-C", str(REPOSITORY), "archive", "--format=tar", revision, *PACKAGES],
        capture_output=True,
        timeout=GIT_LIMIT_S,
        check=False,
    )
    if archive.returncode:
        pytest.fail(
            f"the code of {revision} cannot be had from git ({archive.stderr.decode(errors='replace').strip()}): if "
            "this is a shallow clone, fetch the whole history (git fetch --unshallow)"
        )
    # The command, because Python's own reader has its safe way of extracting from 3.11.4 on only.
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, timeout=GIT_LIMIT_S, check=True)
    return folder


class MixedFederation(Federation):
    """Its `elders` run the code in `code`, each time they are started."""

    def __init__(self, folder: Path, *, code: Path, elders: set[str], **options: Any) -> None:
        super().__init__(folder, **options)
        self._elders = set(elders)
        path = os.pathsep.join(map(str, (CLUSTER_TASKS, code)))
        self._elder = {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}  # -P: else the folder it is started in comes first
        self._require_elders_run(code)

    def bring_up_to_date(self, name: str) -> None:
        """From its next start on it runs this checkout's code, over what the older left."""
        self._elders.remove(name)

    def _environment_of(self, name: str) -> Mapping[str, str]:
        return self._elder if name in self._elders else super()._environment_of(name)

    def _status_table(self, _name: str) -> dict[str, dict[str, str]]:
        """One configuration for both, and 0.1.0 knows no status page."""
        return {}

    def elder_says(self, *arguments: str) -> str:
        """What a command of the old code prints."""
        return self._run("-m", "consilo", *arguments)

    def _require_elders_run(self, code: Path) -> None:
        """That they would run this checkout's code without anybody's noticing is what must not happen."""
        modules = ", ".join(PACKAGES)
        found = self._run("-c", f"import {modules}; print(*(m.__path__[0] for m in ({modules})))").split()
        assert found == [str(code / package) for package in PACKAGES]

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **self._elder},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
