"""The command `consilo demo` itself, before anything runs."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from consilo.demo.cli import demo


@pytest.mark.parametrize("module", ["sklearn", "sqlalchemy", "torch"])
def test_what_is_not_installed_is_missed_before_a_folder_is_made(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = CliRunner().invoke(demo, ["--keep", str(tmp_path / "kept")])
    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == module, "by which the root command says which extra brings it"
    assert result.output == ""
    assert not (tmp_path / "kept").exists()
