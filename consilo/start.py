"""The program's first step: are `shared`, `coordinator` and `participant` Consilo's own?

The folders are the import names (docs/adr/0001), and the names are plain words. Where another project's package of one
of them is found first, or was installed over ours, nothing that follows could be trusted to be what was reviewed, and
it would fail far from the cause. So nothing of the three is imported before this has looked.
"""

from __future__ import annotations

import hashlib
import sys
from base64 import urlsafe_b64encode
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

OWN = ("shared", "coordinator", "participant")
_HERE = Path(__file__).resolve().parents[1]


def main(prog_name: str | None = None) -> None:
    """The console script."""
    complaint = foreign_package(_HERE) or overwritten_package()
    if complaint:
        sys.stderr.write(f"error: {complaint}\n")
        raise SystemExit(1)
    from consilo.cli import main as consilo
    from shared.dumps import forbid_core_dumps

    forbid_core_dumps()  # of every command: most of them load a private key
    consilo(prog_name=prog_name)


def foreign_package(folder: Path) -> str | None:
    """What is wrong, if Python finds one of our packages elsewhere than beside this one in `folder`."""
    for name in OWN:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder alone: its __init__.py went with another project
            return f"Consilo's package {name!r} is not whole in {folder}: install Consilo again"
        if Path(spec.origin).resolve().parent != folder / name:
            return (
                f"the package {name!r} that Python finds is not Consilo's ({folder / name}) but {spec.origin}: "
                "give Consilo an environment of its own, and no folder on PYTHONPATH with a package of that name"
            )
    return None


def overwritten_package() -> str | None:
    """What is wrong, if an installer wrote another project's package over one of ours.

    All modules are compared: an `__init__.py` is often empty in either project.
    """
    try:
        files = metadata.files("consilo") or ()
    except metadata.PackageNotFoundError:
        return None  # run from a source tree that nobody installed
    for file in files:
        if file.parts[0] not in OWN or file.suffix != ".py" or file.hash is None:
            continue
        path = Path(str(file.locate()))
        if path.exists() and _digest(path, file.hash.mode) != file.hash.value:
            return (
                f"{path} is not as Consilo's installation wrote it: was another project with a package "
                f"{file.parts[0]!r} installed into this environment? Give Consilo one of its own"
            )
    return None


def _digest(path: Path, algorithm: str) -> str:
    """As an installer's record writes it."""
    digest = hashlib.new(algorithm, path.read_bytes()).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
