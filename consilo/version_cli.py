"""`consilo version`: everything about an installation that a report of a fault should say."""

from __future__ import annotations

import os
import platform

import click

from shared.build import COMPONENTS, build_info, installed_version
from shared.terminal import emit, facts, json_option


@click.command()
@json_option
def version(*, as_json: bool) -> None:
    """Show version, revision, Python, platform and the packages that matter.

    The revision is the commit that this was built from: as CONSILO_BUILD_REVISION says, or the wheel, or git where this
    is a checkout ("-dirty" behind it: with changes since); otherwise "unknown". `consilo --version` is one line of it.
    """
    build = build_info(environment=os.environ)
    packages = {name.lower(): installed_version(name) for name in COMPONENTS}
    shown = {
        "version": build.version,
        "revision": build.revision,
        "python": build.python,
        "platform": platform.platform(),
    }
    emit(
        {**shown, "packages": packages},
        as_json=as_json,
        render=lambda: facts([*shown.items(), *((name, found or "not installed") for name, found in packages.items())]),
    )
