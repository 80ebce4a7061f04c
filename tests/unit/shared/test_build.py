"""Which code this is, and what to tell pip for one more extra of it."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from shared.build import REVISION_FILE, UNKNOWN, build_info, requirement, source_revision


def test_the_environment_has_the_first_word() -> None:
    assert build_info(environment={"CONSILO_BUILD_REVISION": "abc"}).revision == "abc"
    assert build_info(environment={"CONSILO_BUILD_REVISION": ""}).revision != ""


def test_what_a_wheel_carries(tmp_path: Path) -> None:
    assert source_revision(tmp_path) == UNKNOWN
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / REVISION_FILE).write_text("0123abcd\n")
    assert source_revision(tmp_path) == "0123abcd"


def test_a_checkout_is_asked_and_says_when_it_was_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    git("init", "--quiet")
    (tmp_path / "module.py").write_text("1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    assert source_revision(tmp_path) == commit
    (tmp_path / "module.py").write_text("2\n")
    assert source_revision(tmp_path) == f"{commit}-dirty"

    # What was installed below somebody's repository is not of that repository.
    (tmp_path / "below").mkdir()
    assert source_revision(tmp_path / "below") == UNKNOWN


def test_a_folder_that_only_looks_like_a_checkout(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert source_revision(tmp_path) == UNKNOWN


class _Installed(Distribution):
    """A distribution of which an installer recorded where it came from."""

    def __init__(self, **files: str) -> None:
        self._files = {"METADATA": "Metadata-Version: 2.4\nName: consilo\nVersion: 1.2\n", **files}

    def read_text(self, filename: str) -> str | None:
        return self._files.get(filename.removesuffix(".json"))

    def locate_file(self, path: object) -> Path:
        return Path("/srv/source") / str(path)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("file:///srv/my%20wheels/consilo-1.2-py3-none-any.whl", "/srv/my wheels/consilo-1.2-py3-none-any.whl[demo]"),
        ("https://packages.example/consilo-1.2.whl", "consilo[demo] @ https://packages.example/consilo-1.2.whl"),
        (None, "consilo[demo]==1.2"),
    ],
)
def test_one_more_extra_of_the_same_consilo(url: str | None, told: str) -> None:
    record = {} if url is None else {"direct_url": json.dumps({"url": url})}
    assert requirement("demo", _Installed(INSTALLER="pip\n", **record)) == told


@pytest.mark.parametrize("url", ["https://code.example/consilo.git", "file:///srv/consilo"])
def test_one_more_extra_of_a_repository_is_of_the_same_commit(url: str) -> None:
    record = json.dumps({"url": url, "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": "0123abcd"}})
    told = requirement("demo", _Installed(INSTALLER="pip\n", direct_url=record))
    assert told == f"consilo[demo] @ git+{url}@0123abcd"


def test_one_more_extra_of_a_source_that_is_run_in_place() -> None:
    assert requirement("demo", _Installed()) == "/srv/source[demo]"
