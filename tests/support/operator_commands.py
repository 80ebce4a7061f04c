"""`consilo`'s commands of an operator, in this process: their configuration, and what they say."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

from click.testing import CliRunner, Result

from consilo.cli import make_main
from tests.support.credentials import Consortium

GROUPS = {
    name: EntryPoint(name, f"coordinator.client.cli_{name}:{name}", "consilo.commands")
    for name in ("job", "model", "audit")
}


def write_config(folder: Path, consortium: Consortium, address: str) -> Path:
    operator, coordinator = consortium.operator(), consortium.coordinator()
    path = folder / "operator.toml"
    path.write_text(
        f"""
[operator]
coordinator = "{address}"
coordinator_certificate = "{coordinator.signing_certificate}"
[tls]
certificate = "{operator.tls.certificate}"
key = "{operator.tls.key}"
ca = "{operator.tls.ca}"
"""
    )
    return path


def run(config: Path, *arguments: object) -> Result:
    environment = {"CONSILO_OPERATOR_CONFIG": str(config)}
    return CliRunner(env=environment).invoke(make_main(lambda: GROUPS), [str(argument) for argument in arguments])


def words(result: Result) -> str:
    """What a table says, without its lines and its breaks."""
    return " ".join(result.stdout.replace("│", " ").split())
