"""Which code this is: for `consilo version`, the build-info metric, the audit log and the manifest of a model version.

The revision is what somebody can look up: the commit of the source. An image says it in the environment, a wheel or a
source archive carries it in a file that its build wrote (setup.py), and a checkout is asked. Where none of them knows,
it is `unknown`: never a guess.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

REVISION_VARIABLE = "CONSILO_BUILD_REVISION"  # set when an image is built
REVISION_FILE = "revision.txt"  # beside this module, in a wheel and in a source archive; never in a checkout
UNKNOWN = "unknown"
# What a report of a fault depends on, beside our own version.
COMPONENTS = ("grpcio", "protobuf", "cryptography", "numpy", "pydantic", "SQLAlchemy", "torch")

_GIT_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Version of the distribution, revision of the source, version of Python."""

    version: str
    revision: str
    python: str

    def __str__(self) -> str:
        return f"consilo {self.version} (revision {self.revision}, Python {self.python})"


def build_info(*, environment: Mapping[str, str]) -> BuildInfo:
    """What is known about the running code."""
    revision = environment.get(REVISION_VARIABLE) or source_revision(Path(__file__).resolve().parents[1])
    return BuildInfo(installed_version("consilo") or UNKNOWN, revision, platform.python_version())


def source_revision(root: Path) -> str:
    """The commit of the source in `root`; `-dirty` behind it when something differs from that commit."""
    try:
        return (root / "shared" / REVISION_FILE).read_text("ascii").strip() or UNKNOWN
    except OSError:
        return _revision_of_checkout(root)


def installed_version(distribution: str) -> str | None:
    """The version that is installed, which is not yet imported; None when it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def requirement(extra: str, installed: metadata.Distribution | None = None) -> str:
    """What to tell pip for this same Consilo with one more extra: where this one came from, and else its version.

    A name alone would ask an index for whatever it has under that name.
    """
    installed = metadata.distribution("consilo") if installed is None else installed
    if installed.read_text("INSTALLER") is None:
        return f"{Path(str(installed.locate_file(''))).resolve()}[{extra}]"  # run from the source, beside its metadata
    record = installed.read_text("direct_url.json")  # an installer leaves it of a wheel, a folder or a repository
    origin = json.loads(record) if record else {}
    url = origin.get("url", "")
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    if url.startswith("file:"):
        return f"{unquote(urlsplit(url).path)}[{extra}]"
    return f"consilo[{extra}] @ {url}" if url else f"consilo[{extra}]=={installed.version}"


def _revision_of_checkout(root: Path) -> str:
    if not (root / ".git").exists():  # a folder above, of whoever installed this, says nothing about this code
        return UNKNOWN
    where = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}", "--no-optional-locks"]
    command = [*where, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return done.stdout.strip() if done.returncode == 0 else UNKNOWN
