"""`tools/release.py` in repositories of its own: what it refuses, what it writes, and once, at length, a whole release
of this checkout with the next version's tests against it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.federation import REPOSITORY
from tools.changelog import Release, newest_released, releases

IDENTITY = ("-c", "user.name=consilo", "-c", "user.email=consilo@localhost")
VERSION = "0.1.0"
PRETENDED = "99.0.0"  # of a release of this checkout, whatever was released before
SECTION = f"# Changelog\n\nWhat users notice.\n\n## {VERSION} - 2026-12-01\n\n### Added\n\n* All of it.\n"
A, B = "a" * 40, "b" * 40


def section(version: str, commit: str | None = None) -> str:
    return f"## {version} - 2026-12-01\n\n" + (f"Commit: {commit}\n\n" if commit else "") + "* Something.\n\n"


class Repository:
    """A folder under git, in which a version of the distribution looks installed."""

    def __init__(self, root: Path, *, site: Path, installed: str = VERSION) -> None:
        self.root = root
        described = site / f"consilo-{installed}.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: consilo\nVersion: {installed}\n")
        commands = metadata.distribution("consilo").read_text("entry_points.txt")
        (described / "entry_points.txt").write_text(commands or "")
        self._environment = {**os.environ, "PYTHONPATH": str(site)}

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *IDENTITY, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a commit")
        return self.git("rev-parse", "HEAD")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root, env=self._environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def release(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("tools/release.py", *arguments)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Repository]:
    def make(*, version: str = VERSION, changelog: str = SECTION, installed: str = VERSION) -> Repository:
        made = Repository(tmp_path / "repository", site=tmp_path / "site", installed=installed)
        for tool in ("release.py", "changelog.py"):
            made.write(f"tools/{tool}", (REPOSITORY / "tools" / tool).read_text("utf-8"))
        made.write(".gitignore", "__pycache__/\n")
        made.write("pyproject.toml", f'[project]\nname = "consilo"\nversion = "{version}"\n')
        made.write("Dockerfile.coordinator", f"FROM scratch\nARG VERSION={version}\n")
        made.write("CHANGELOG.md", changelog)
        made.git("init", "--quiet")
        made.commit()
        return made

    return make


# --- the change log ---------------------------------------------------------------------------------------------------


def test_releases_are_read_newest_first() -> None:
    text = "# Changelog\n\n## Unreleased\n\n* More.\n\n" + section("0.10.0") + section("0.9.1", B) + section("0.9.0", A)
    assert [(each.version, each.commit) for each in releases(text)] == [("0.10.0", None), ("0.9.1", B), ("0.9.0", A)]
    newest = newest_released(text)
    assert isinstance(newest, Release)
    assert newest.commit == B, "the one that is being made cannot be had yet"
    assert newest_released("# Changelog\n\n## Unreleased\n") is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("## 0.1.0\n", "expected a section"),
        ("## v0.1.0 - 2026-12-01\n", "expected a section"),
        (section("0.1.0", A) + "## Unreleased\n", "first"),
        (section("0.2.0", B) + section("0.1.0"), "only the newest release may have none"),
        (section("0.1.0", "abc"), "40 hexadecimal digits"),
        (section("0.1.0", A) + f"Commit: {B}\n", "one line"),
        (section("0.1.0", A) + section("0.2.0", B), "newest first"),
        (section("0.1.0", A) + section("0.1.0", A), "each release once"),
        ("## 0.1.0 - 2026-13-01\n", "month"),
    ],
)
def test_a_change_log_that_cannot_be_understood_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        releases(text)


def test_this_checkouts_change_log_is_understood() -> None:
    releases((REPOSITORY / "CHANGELOG.md").read_text("utf-8"))


# --- the tool ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "step", "complaint"),
    [
        ({"version": "0.1.0.dev0"}, "prepare", "version 0.1.0.dev0: say the release's own"),
        ({"installed": "0.1.0.dev0"}, "prepare", "version 0.1.0.dev0 is installed here and 0.1.0 is to be released"),
        ({"changelog": "## Unreleased\n"}, "prepare", "expected `## 0.1.0 - <date>`"),
        ({"changelog": section("0.1.0", A)}, "prepare", f"released already, as {A}"),
        ({"changelog": "## Something\n"}, "prepare", "expected a section"),
        ({}, "finish", "the last commit is no release"),
    ],
)
def test_what_is_not_ready_is_refused_and_nothing_is_changed(
    make: Callable[..., Repository], state: dict[str, str], step: str, complaint: str
) -> None:
    repository = make(**state)
    done = repository.release(step, *(["0.2.0"] if step == "finish" else []))
    assert done.returncode == 1
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert repository.git("status", "--porcelain") == ""


def test_a_tree_with_changes_and_a_release_that_is_recorded_are_refused(make: Callable[..., Repository]) -> None:
    repository = make()
    repository.write("CHANGELOG.md", SECTION + "\n")
    assert "commit first, or put away: CHANGELOG.md" in repository.release("prepare").stderr
    repository.write(f"tests/releases/{VERSION}/release.json", "{}\n")
    repository.commit()
    assert "is there already" in repository.release("prepare").stderr


@pytest.mark.parametrize(("following", "complaint"), [("0.1.0", "comes after 0.1.0"), ("next", "has the form")])
def test_a_next_version_that_is_none_is_refused(
    make: Callable[..., Repository], following: str, complaint: str
) -> None:
    assert complaint in make().release("finish", following).stderr


def test_a_finished_release_has_its_commit_on_record_and_the_next_version_begins(
    make: Callable[..., Repository],
) -> None:
    repository = make()
    repository.write(f"tests/releases/{VERSION}/release.json", "{}\n")
    repository.write("protos/release.binpb", "a descriptor set")
    commit = repository.commit()
    done = repository.release("finish", "0.2.0")
    assert done.returncode == 0, done.stderr
    assert f"git tag v0.1.0 {commit}" in done.stdout
    text = (repository.root / "CHANGELOG.md").read_text("utf-8")
    newest = newest_released(text)
    assert newest is not None
    assert (newest.version, newest.commit) == (VERSION, commit)
    assert text == SECTION.replace(
        "## 0.1.0 - 2026-12-01\n", f"## Unreleased\n\n## 0.1.0 - 2026-12-01\n\nCommit: {commit}\n"
    )
    assert 'version = "0.2.0.dev0"' in (repository.root / "pyproject.toml").read_text("utf-8")
    assert (repository.root / "Dockerfile.coordinator").read_text("utf-8").endswith("\nARG VERSION=0.2.0.dev0\n")


def test_the_version_stands_in_one_place() -> None:
    """What would have to be changed at each release would be forgotten at one."""
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    places = [REPOSITORY / "README.md", *(REPOSITORY / "protos").rglob("*.md")]
    for folder in ("consilo", "coordinator", "participant", "shared", "deploy", "docs"):
        places += [path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    stated = re.compile(rf"(?<![\d.]){re.escape(version)}(?![\d.])".encode())
    assert [str(path) for path in places if path.name != "releasing.md" and stated.search(path.read_bytes())] == []


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.timeout(1800)
def test_a_whole_release_of_this_checkout(tmp_path: Path) -> None:
    """Prepared, committed, finished; then its recordings are read and its daemons run beside the next version's."""
    repository = Repository(tmp_path / "repository", site=tmp_path / "site", installed=PRETENDED)
    listed = subprocess.run(
        ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        target = repository.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, target)
    repository.write("CHANGELOG.md", f"# Changelog\n\n{section(PRETENDED)}")
    pyproject = (repository.root / "pyproject.toml").read_text("utf-8")
    versioned = re.sub(r'^version = ".*"$', f'version = "{PRETENDED}"', pyproject, count=1, flags=re.MULTILINE)
    repository.write("pyproject.toml", versioned)
    repository.git("init", "--quiet")
    repository.commit()

    prepared = repository.release("prepare")
    assert prepared.returncode == 0, prepared.stdout + prepared.stderr
    commit = repository.commit()
    finished = repository.release("finish", "100.0.0")
    assert finished.returncode == 0, finished.stderr
    repository.commit()

    tests = ("tests/releases/test_recordings.py", "tests/cluster/test_versions.py")
    done = repository.run("-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"test_an_older_coordinator_with_these_silos_and_this_operator[{PRETENDED}]" in done.stdout
    assert f"test_every_frame_means_what_it_meant[{PRETENDED}]" in done.stdout
    kept = repository.git("show", "--format=", "--name-only", commit).splitlines()
    assert {"protos/release.binpb", f"tests/releases/{PRETENDED}/frames/1-masked.jsonl"} <= set(kept)
