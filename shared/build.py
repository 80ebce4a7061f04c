"""Which code this is: for `--version`, the build-info metric and the manifest of a model version."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

REVISION_VARIABLE = "CONSILO_BUILD_REVISION"  # set when an image is built; a source tree does not know it
UNKNOWN = "unknown"


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
    try:
        version = metadata.version("consilo")
    except metadata.PackageNotFoundError:  # run from a source tree that nobody installed
        version = UNKNOWN
    return BuildInfo(version, environment.get(REVISION_VARIABLE) or UNKNOWN, platform.python_version())
