"""`tools/build_packages.py` where it cannot build."""

import sys
from pathlib import Path

import pytest

from tools.build_packages import build_packages


def test_an_environment_that_cannot_build_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "build", None)
    with pytest.raises(SystemExit, match=r"has no package `build`.*pip install -c .*constraints\.txt build"):
        build_packages(tmp_path)
    assert list(tmp_path.iterdir()) == []
