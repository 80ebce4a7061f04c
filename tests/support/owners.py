"""A file that is somebody else's, whoever runs the tests."""

from __future__ import annotations

import os
from pathlib import Path


def belong_to_another(path: Path) -> None:
    """Only root can give a file away; for everybody else root's own are another's."""
    if os.geteuid() == 0:
        os.chown(path, 65534, -1)
    else:
        path.unlink()
        path.symlink_to("/etc/passwd")
