"""Disks that a campaign can fill. With leave to mount (root, or a user namespace) each is a small tmpfs of its own, and
a full one is a full one: ENOSPC. Without, the processes on it are told that no file may grow (RLIMIT_FSIZE): another
error number on the same calls, and nothing else on the machine is touched.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

SIZE_MIB = 256  # a daemon wants 64 MiB left beside a model
BALLAST = "ballast"


class Disk(Protocol):
    """What one process has its data folder on."""

    def fill(self) -> None:
        """Until `free`, nothing more can be written."""
        ...

    def free(self) -> None: ...

    def close(self, *, keep: bool) -> None:
        """The federation is over. `keep`: somebody will want to look at what is on it."""
        ...


class SmallDisk:
    """A tmpfs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, mode=0o700)
        options = f"size={SIZE_MIB}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
        self._folder = folder

    def fill(self) -> None:
        """With one file, down to the last page."""
        ballast = os.open(self._folder / BALLAST, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            size = 0
            for step in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(ballast, size, step)
                        size += step
        finally:
            os.close(ballast)

    def free(self) -> None:
        (self._folder / BALLAST).unlink(missing_ok=True)

    def close(self, *, keep: bool) -> None:
        """The mount ends. What is kept is beside it: a mount is seen by this campaign alone."""
        if keep:
            shutil.copytree(self._folder, self._folder.with_name(f"{self._folder.name}-kept"), dirs_exist_ok=True)
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True)


class LimitedFiles:
    """The stand-in: a limit on the size of every file that these processes write."""

    def __init__(self, processes: Callable[[], Collection[int]]) -> None:
        """`processes`: the ids of those that work on this disk now."""
        self._processes = processes

    def fill(self) -> None:
        self._limit(0)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def close(self, *, keep: bool) -> None:
        """Nothing was put aside, and all of it stays."""

    def _limit(self, size: int) -> None:
        for process in self._processes():
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
                resource.prlimit(process, resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))


def may_mount(folder: Path) -> bool:
    """Whether this process may mount a tmpfs."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    tried = subprocess.run(mount, check=False, capture_output=True)
    if tried.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)
    return tried.returncode == 0
