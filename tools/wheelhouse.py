"""A folder with all that an installation needs, for a machine without a network: `make wheelhouse`.

    python tools/wheelhouse.py coordinator|participant|demo FOLDER [--wheel FILE]

FOLDER gets the wheels of Consilo and of everything that the role depends on, in the versions of constraints.txt, for
this machine's Python and processor; requirements.txt, which names each with its SHA-256 and which `pip install
--require-hashes` holds to; and SHA256SUMS over all of it. PIP_ARGS in the environment is handed to pip: there the index
of PyTorch's CPU builds can stand. A folder that has something in it is refused: what lies in it would be installed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

from build_packages import ROOT, build_wheel

ROLES = ("coordinator", "participant", "demo")
REQUIREMENTS = "requirements.txt"
SUMS = "SHA256SUMS"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("role", choices=ROLES)
    options.add_argument("folder", type=Path)
    options.add_argument("--wheel", type=Path, help="Consilo's wheel, as released; made from this checkout otherwise")
    chosen = options.parse_args()
    folder: Path = chosen.folder
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        print(f"error: {folder}: expected an empty folder: give another one, or empty it", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="consilo-wheelhouse-") as scratch:
        wheel = chosen.wheel or build_wheel(Path(scratch))
        shutil.copy2(wheel, folder)
    fetch(folder, folder / wheel.name, chosen.role)
    write_requirements(folder, chosen.role)
    write_sums(folder)
    wheels = sorted(folder.glob("*.whl"))
    size = sum(path.stat().st_size for path in wheels)
    print(f"{folder}: {len(wheels)} wheels, {size / 1e6:.0f} MB, for the role {chosen.role}")
    return 0


def fetch(folder: Path, wheel: Path, role: str) -> None:
    """All wheels that the role needs; what exists as source only is built here, since the other machine cannot."""
    command = [
        sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--wheel-dir", str(folder),
        "--constraint", str(ROOT / "constraints.txt"), f"{wheel}[{role}]",
    ]  # fmt: skip
    more = shlex.split(os.environ.get("PIP_ARGS", ""))  # not printed: an index's address may have a password in it
    done = subprocess.run([*command, *more], check=False)
    if done.returncode != 0:
        with_more = " with the arguments of PIP_ARGS" if more else ""
        raise SystemExit(f"error: `{shlex.join(command)}`{with_more} ended with {done.returncode}")


def write_requirements(folder: Path, role: str) -> None:
    lines = [f"# consilo[{role}] and all that it needs. pip install --no-index --require-hashes -r {REQUIREMENTS}"]
    for path in sorted(folder.glob("*.whl")):
        name, version = name_and_version(path)
        wanted = f"consilo[{role}]" if name == "consilo" else name
        lines.append(f"{wanted}=={version} --hash=sha256:{digest_of(path)}")
    (folder / REQUIREMENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def name_and_version(wheel: Path) -> tuple[str, str]:
    """As the wheel says itself: a file's name spells some characters otherwise."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        message = message_from_bytes(archive.read(metadata))
    return message["Name"], message["Version"]


def write_sums(folder: Path) -> None:
    paths = sorted(path for path in folder.iterdir() if path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{digest_of(path)}  {path.name}\n" for path in paths), encoding="utf-8")


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
