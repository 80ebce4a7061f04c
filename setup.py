"""What pyproject.toml cannot say: a wheel and a source archive carry the revision that they were made of.

Both are built from a checkout, or the wheel from the archive; `shared.build` reads the file in what was installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # a build starts without it

from shared.build import REVISION_FILE, build_info  # noqa: E402 - see above


class BuildPackages(build_py):
    """The packages, with the revision beside `shared.build`. Not where the checkout itself is installed."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            write_revision(Path(self.build_lib))


class SourceArchive(sdist):
    """The sources, with the same file."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_revision(Path(base_dir))


def write_revision(root: Path) -> None:
    path = root / "shared" / REVISION_FILE
    path.unlink(missing_ok=True)  # it may be a link to the archive's that this is built from
    path.write_text(f"{build_info(environment=os.environ).revision}\n", encoding="ascii")


setup(cmdclass={"build_py": BuildPackages, "sdist": SourceArchive})
