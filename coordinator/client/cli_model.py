"""`consilo model`: list, show, promote and export the model versions of a running coordinator."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.client.connection import byte_progress, with_operations
from coordinator.client.operations import Operations
from coordinator.client.views import model_facts, model_json, model_table
from shared.errors import ConfigError
from shared.terminal import emit, facts, json_option

_DIGEST = click.argument("digest", metavar="DIGEST")


@click.group()
def model() -> None:
    """List, show, promote and export model versions. A digest may be cut short."""


@model.command("list")
@click.option("--job", help="Only versions that this job made.")
@with_operations
@json_option
def list_models(*, operations: Operations, job: str | None, as_json: bool) -> None:
    """List all versions, oldest first."""
    models = [found for found in operations.models() if job is None or model_json(found).get("job") == job]
    emit([model_json(found) for found in models], as_json=as_json, render=lambda: model_table(models))


@model.command()
@_DIGEST
@with_operations
@json_option
def show(*, operations: Operations, digest: str, as_json: bool) -> None:
    """Show where a version comes from: its parent, its round, and who is in it."""
    found = operations.find_model(digest)
    emit(model_json(found), as_json=as_json, render=lambda: model_facts(found))


@model.command()
@_DIGEST
@click.option("--undo", is_flag=True, help="Take it back: the retention decides again.")
@with_operations
@json_option
def promote(*, operations: Operations, digest: str, undo: bool, as_json: bool) -> None:
    """Keep a version for good, whatever [retention] of the coordinator says.

    The audit log names who said so. Doing it again changes nothing.
    """
    found = operations.find_model(digest)
    changed = operations.promote_model(found.model, promoted=not undo)
    made = {"model": str(found.model), "promoted": not undo, "changed": changed}
    said = [(name, ("yes" if value else "no") if isinstance(value, bool) else value) for name, value in made.items()]
    emit(made, as_json=as_json, render=lambda: facts(said))


@model.command()
@_DIGEST
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace OUT when it is there already.")
@with_operations
@json_option
def export(*, operations: Operations, digest: str, out: Path, force: bool, as_json: bool) -> None:
    """Write a version to OUT, a safetensors file that plain PyTorch can load.

    OUT appears when all of it has arrived and has the right digest.
    """
    if out.is_dir() or (out.exists() and not force):
        raise ConfigError(f"{out}: expected a file that is not there yet: choose another name, or give --force")
    found = operations.find_model(digest)
    with byte_progress(f"receiving {out.name}", None) as progress:
        size = operations.export_model(found.model, out, progress=progress)
    made = {"model": str(found.model), "path": str(out), "bytes": size}
    emit(made, as_json=as_json, render=lambda: facts(made.items()))
