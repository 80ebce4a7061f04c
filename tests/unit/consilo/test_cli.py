"""The root of the command line: what it imports, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from importlib.metadata import EntryPoint

import click
import pytest
from click.testing import CliRunner, Result

from consilo.cli import COMMANDS, make_main
from consilo.version_cli import version
from shared.errors import ConfigError


@click.group()
def sample() -> None:
    """Commands that end in each possible way."""


@sample.command()
def well() -> None:
    click.echo("done")


@sample.command()
def badly() -> None:
    raise ConfigError("x.toml: policy.\x1bminimum: expected 3")


@sample.command()
def interrupted() -> None:
    raise KeyboardInterrupt


@sample.command()
def late() -> None:
    raise ModuleNotFoundError("No module named 'torch'", name="torch")


@sample.command()
def bug() -> None:
    raise ModuleNotFoundError("No module named 'colour'", name="colour")


class _Loaded(EntryPoint):
    """An entry point whose object is at hand, or whose import fails."""

    def load(self) -> object:
        if self.name == "sample":
            return sample
        if self.name == "wrong":
            return "no command"
        raise ModuleNotFoundError(f"No module named {self.value!r}", name=self.value)


def _found() -> dict[str, EntryPoint]:
    values = {"sample": "here", "wrong": "here:text", "job": "sqlalchemy.x", "model": "coordinator.client.cli_model"}
    return {name: _Loaded(name, value, COMMANDS) for name, value in values.items()}


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(make_main(_found), list(arguments), prog_name="consilo")


def test_a_command_that_ends_well() -> None:
    result = _run("sample", "well")
    assert (result.exit_code, result.stdout) == (0, "done\n")


def test_a_failure_is_one_clean_line() -> None:
    result = _run("sample", "badly")
    assert result.exit_code == 1
    assert result.stderr == "error: x.toml: policy.?minimum: expected 3\n"
    assert not result.stdout


def test_an_interrupt() -> None:
    assert _run("sample", "interrupted").exit_code == 130


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["wrong"], "not a command"),
        (["nothing"], "No such command"),
        (["sample", "nothing"], "No such command"),
        (["--nothing"], "No such option"),
    ],
)
def test_what_is_used_wrongly(arguments: list[str], complaint: str) -> None:
    result = _run(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["job", "list"],
            r"`consilo job` needs sqlalchemy.x, which the extra 'coordinator' brings: pip install '/.+\[coordinator\]'",
        ),
        (
            ["sample", "late"],
            r"`consilo sample` needs torch, which the extra 'participant' brings: pip install '/.+\[participant\]'",
        ),
        (["model", "list"], r"`consilo model` \(coordinator.client.cli_model\) is not part of this installation: .+"),
    ],
)
def test_what_is_not_installed_is_said_in_one_line(arguments: list[str], complaint: str) -> None:
    result = _run(*arguments)
    assert result.exit_code == 1
    assert re.fullmatch(f"error: {complaint}\n", result.stderr), result.stderr


def test_a_bug_stays_a_bug() -> None:
    assert isinstance(_run("sample", "bug").exception, ModuleNotFoundError)


def test_help_lists_groups_that_cannot_be_loaded() -> None:
    result = _run("--help")
    assert result.exit_code == 0
    assert "Submit, list, show, watch and abort jobs." in result.stdout
    assert all(name in result.stdout for name in _found())


def test_version() -> None:
    result = _run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("consilo ")
    assert "revision" in result.stdout
    assert result.stdout.count("\n") == 1


def test_everything_about_an_installation() -> None:
    result = CliRunner().invoke(version, ["--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert set(told) == {"version", "revision", "python", "platform", "packages"}
    assert told["packages"]["torch"] == metadata.version("torch")
    assert all(told["packages"].values()), "each is installed where the tests run"
    table = CliRunner().invoke(version).stdout
    assert all(value in table for value in (told["revision"], told["packages"]["grpcio"]))


HEAVY = ("torch", "sqlalchemy", "grpc", "numpy", "coordinator", "participant", "cryptography", "pydantic")


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_installed_root_imports_nothing_heavy(argument: str) -> None:
    program = (
        "import sys\n"
        "from consilo.cli import main\n"
        f"main([{argument!r}], standalone_mode=False, prog_name='consilo')\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "consilo" in done.stdout
