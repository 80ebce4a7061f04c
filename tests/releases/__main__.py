"""Record a release: `python -m tests.releases VERSION` writes tests/releases/VERSION. `tools/release.py` runs this."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.releases.kept import RELEASES, keep_release


def main(version: str) -> None:
    out = RELEASES / version
    if out.exists():
        sys.exit(f"error: {out} is there already: a recorded release is never recorded again")
    with tempfile.TemporaryDirectory(prefix="consilo-release-") as workspace:
        keep_release(version, out, workspace=Path(workspace))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.releases VERSION")
    main(sys.argv[1])
