"""Make a release, in the two steps that a program can do (docs/releasing.md has all of them).

    python tools/release.py prepare       write the descriptor set and the recorded sessions of this version
    python tools/release.py finish NEXT   note the release's commit in CHANGELOG.md, and begin version NEXT

Neither commits anything: each ends by saying what a person does then.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from changelog import UNRELEASED, VERSION, Release, read_changelog, releases

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PROTOS_AT_RELEASE = Path("protos/release.binpb")
RECORDINGS = Path("tests/releases")


class NotYet(Exception):  # noqa: N818 - what is to be done first, said to a person
    """Something has to be done before this step."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make a release: docs/releasing.md")
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("prepare", help="write the descriptor set and the recorded sessions of this version")
    finishing = steps.add_parser("finish", help="note the release's commit, and begin the next version")
    finishing.add_argument("next", metavar="NEXT", help="the next version, such as 0.2.0")
    asked = parser.parse_args(arguments)
    try:
        print(prepare(ROOT) if asked.step == "prepare" else finish(ROOT, asked.next))
    except NotYet as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    return 0


def prepare(root: Path) -> str:
    """What to do next. Raises NotYet; when what was recorded does not hold, it stays there to be looked at."""
    require_clean(root)
    version = require_version(root)
    require_being_made(root, version)
    recording = RECORDINGS / version
    if (root / recording).exists():
        raise NotYet(f"{recording} is there already: a recorded release is never recorded again")
    if (root / PROTOS_AT_RELEASE).exists():
        run(root, BIN / "buf", "breaking", "protos", "--against", str(PROTOS_AT_RELEASE))
    run(root, sys.executable, "-m", "tests.releases", version)
    # Comments and line numbers are no part of the wire, and would change the file with every edit.
    run(root, BIN / "buf", "build", "protos", "--exclude-source-info", "-o", str(PROTOS_AT_RELEASE))
    run(root, sys.executable, "-m", "pytest", "-q", str(RECORDINGS), "-k", version)
    return (
        f"written: {PROTOS_AT_RELEASE}, {recording}\n"
        "next:\n"
        f"  git add {PROTOS_AT_RELEASE} {recording} && git commit -m 'Release {version}'\n"
        "  python tools/release.py finish NEXT"
    )


def finish(root: Path, following: str) -> str:
    """What to do next. Raises NotYet, and has changed nothing then."""
    if re.fullmatch(VERSION, following) is None:
        raise NotYet(f"the next version has the form 0.2.0, got {following!r}")
    require_clean(root)
    version = require_version(root)
    if [int(part) for part in following.split(".")] <= [int(part) for part in version.split(".")]:
        raise NotYet(f"the next version comes after {version}, got {following}")
    require_being_made(root, version)
    committed = git(root, "ls-files", "--", str(RECORDINGS / version / "release.json"), str(PROTOS_AT_RELEASE))
    if len(committed.splitlines()) != 2:
        raise NotYet(f"the last commit is no release: it lacks {RECORDINGS / version} or {PROTOS_AT_RELEASE}")
    commit = git(root, "rev-parse", "HEAD").strip()
    changelog, pyproject = root / "CHANGELOG.md", root / "pyproject.toml"
    changelog.write_text(noted(read_changelog(root), commit), encoding="utf-8")
    text = pyproject.read_text(encoding="utf-8")
    pyproject.write_text(text.replace(f'\nversion = "{version}"', f'\nversion = "{following}.dev0"'), encoding="utf-8")
    for dockerfile in root.glob("Dockerfile.*"):  # their labels say it: a Dockerfile cannot look it up
        text = dockerfile.read_text(encoding="utf-8")
        dockerfile.write_text(
            text.replace(f"ARG VERSION={version}\n", f"ARG VERSION={following}.dev0\n"), encoding="utf-8"
        )
    return (
        f"noted: {version} is {commit}; the version is {following}.dev0\n"
        "next:\n"
        f"  git commit -am 'Version {following} begins, and the commit of {version} is on record'\n"
        f"  git tag v{version} {commit}"
    )


def noted(changelog: str, commit: str) -> str:
    """With the newest release's commit under its heading, and a section for what comes."""
    heading = re.compile(rf"^## {VERSION} - .*$", re.MULTILINE)
    return heading.sub(lambda found: f"## {UNRELEASED}\n\n{found[0]}\n\nCommit: {commit}", changelog, count=1)


def require_clean(root: Path) -> None:
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        raise NotYet(f"commit first, or put away: {', '.join(line[3:] for line in changed[:5])}")


def require_version(root: Path) -> str:
    """Of pyproject.toml, which is the one place that states it; and the installed code is of that version."""
    version = str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    if re.fullmatch(VERSION, version) is None:
        raise NotYet(f"pyproject.toml has version {version}: say the release's own, such as 0.1.0, and commit")
    installed = metadata.version("consilo")
    if installed != version:
        raise NotYet(
            f"version {installed} is installed here and {version} is to be released: make .venv/.installed-dev"
        )
    return version


def require_being_made(root: Path, version: str) -> Release:
    """The newest section of CHANGELOG.md is this version's, and has no commit yet."""
    try:
        found = releases(read_changelog(root))
    except ValueError as error:
        raise NotYet(f"CHANGELOG.md: {error}") from None
    if not found or found[0].version != version:
        raise NotYet(f"CHANGELOG.md: expected `## {version} - <date>` in place of `## {UNRELEASED}`; and commit")
    if found[0].commit is not None:
        raise NotYet(f"CHANGELOG.md: {version} is released already, as {found[0].commit}")
    return found[0]


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def run(root: Path, *command: str | Path) -> None:
    """Raises NotYet when it fails; it has said why."""
    print(f"$ {' '.join(map(str, command))}", flush=True)
    if subprocess.run(list(map(str, command)), cwd=root, check=False).returncode:
        raise NotYet(f"this failed: {' '.join(map(str, command))}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
