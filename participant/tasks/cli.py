"""`consilo task`: for the data scientist, before there is a federation."""

from __future__ import annotations

import asyncio
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Group, RenderableType
from rich.progress import Progress as ProgressBar

from participant.settings import ParticipantSettings
from participant.tasks.catalogue import task_definitions
from participant.tasks.contract import (
    DeviceRequest,
    EvaluationDone,
    RoundContext,
    TaskDefinition,
    TaskFailed,
    TrainingDone,
)
from participant.tasks.entry import check_search_path, parse_entry
from participant.tasks.rehearsal import Interruption, Rehearsal, TensorMove, rehearse
from participant.tasks.runner import TaskRunner
from participant.tasks.seeding import SEED_MAX, init_seed
from shared.config import load_config
from shared.errors import ConfigError, TaskError
from shared.ids import JobId, ParticipantId, RoundNumber, TaskName, parse_task_name
from shared.tensors import read_index_file
from shared.terminal import emit, facts, json_option, stderr_console, table
from shared.toml import read_toml

DEADLINE_S = 24 * 3600.0
Command = TypeVar("Command", bound=Callable[..., Any])


@click.group()
def task() -> None:
    """Try a task, and make its initial model."""


def _source_options(command: Command) -> Command:
    """Where the task is: said on the command line, or in a participant's configuration."""
    for option in reversed(
        [
            click.option("--entry", help="The task's class, as package.module:Class."),
            click.option(
                "--path",
                "folders",
                multiple=True,
                type=click.Path(path_type=Path),
                help="A folder to look for the module in; the current one, unless told.",
            ),
            click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="One of the task's options."),
            click.option(
                "--config",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                help="A participant.toml that installs the task, in place of --entry.",
            ),
            click.option("--task", "name", help="Which task of --config; not needed when there is one."),
            click.option(
                "--device", type=click.Choice([str(device) for device in DeviceRequest]), help="Default: auto."
            ),
            click.option("--seed", type=click.IntRange(0, SEED_MAX), default=0, show_default=True),
        ]
    ):
        command = option(command)
    return command


@task.command("init-model")
@_source_options
@json_option
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def init_model(*, out: Path, seed: int, as_json: bool, **source: Any) -> None:
    """Write the model that round 1 starts from to OUT, a safetensors file.

    The values are those of build_model under --seed: the same seed gives the same file.
    """
    runner = TaskRunner(definition=_definition(**source), log=None, load_seed=init_seed(seed))

    async def make() -> str:
        try:
            digest = await runner.init_model(out=out, deadline_s=DEADLINE_S)
        finally:
            await runner.stop()
        if isinstance(digest, TaskFailed):
            raise TaskError(f"{digest.reason}: {digest.message}")
        return str(digest)

    digest = asyncio.run(make())
    manifest = read_index_file(out).manifest
    made = {"path": str(out), "digest": digest, "tensors": len(manifest.tensors), "parameters": manifest.parameters}
    emit(made, as_json=as_json, render=lambda: facts(made.items()))


@task.command("try")
@_source_options
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Start from this model.")
@click.option(
    "--job",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A job file: its [training], metrics and seed are used.",
)
@click.option("--training", multiple=True, metavar="KEY=VALUE", help="One key of the job's [training] table.")
@click.option(
    "--interrupt", is_flag=True, help="Train once more, killed after the first round.save, and go on from it."
)
@json_option
def try_task(
    *,
    model: Path | None,
    job: Path | None,
    training: tuple[str, ...],
    interrupt: bool,
    seed: int,
    as_json: bool,
    **source: Any,
) -> None:
    """Train once and evaluate on this silo's own data, with no federation.

    What the task prints, and the traceback of what it raises, go to standard error.
    """
    definition = _definition(**source)
    plan = _read_job(job, seed)
    runner = TaskRunner(definition=definition, log=None, load_seed=init_seed(plan.seed))
    context = RoundContext(
        job=JobId("try"),
        job_name="try",
        number=RoundNumber(1),
        participant=ParticipantId("try"),
        job_seed=plan.seed,
        training={**plan.training, **_pairs(training, "--training")},
        metrics=plan.metrics,
    )
    with tempfile.TemporaryDirectory(prefix="consilo-try-") as folder, _bar(visible=not as_json) as bar:
        line = bar.add_task("training", total=1.0)
        done = asyncio.run(
            rehearse(
                runner,
                context=context,
                model=model,
                folder=Path(folder),
                deadline_s=DEADLINE_S,
                progress=lambda fraction: bar.update(line, completed=fraction),
                interrupt=interrupt,
            )
        )
    emit(_as_json(definition, plan.seed, done), as_json=as_json, render=lambda: _as_tables(definition, done))


@dataclass(frozen=True, slots=True, kw_only=True)
class _JobPart:
    """What a task sees of a job."""

    training: dict[str, Any]
    metrics: tuple[str, ...] | None
    seed: int


def _read_job(path: Path | None, seed: int) -> _JobPart:
    if path is None:
        return _JobPart(training={}, metrics=None, seed=seed)
    try:
        found = read_toml(path.read_bytes(), source=str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): check the path and who runs this") from None
    training, metrics, seed = found.get("training", {}), found.get("metrics", []), found.get("seed", seed)
    if not isinstance(training, dict) or not isinstance(metrics, list) or not isinstance(seed, int):
        raise ConfigError(f"{path}: training is a table, metrics a list and seed an integer")
    return _JobPart(training=training, metrics=tuple(map(str, metrics)), seed=seed)


def _definition(
    *,
    entry: str | None,
    folders: tuple[Path, ...],
    options: tuple[str, ...],
    config: Path | None,
    name: str | None,
    device: str | None,
) -> TaskDefinition:
    if (entry is None) == (config is None):
        raise click.UsageError("say where the task is: --entry module:Class, or --config participant.toml")
    search_path = folders or (Path(),)
    check_search_path(search_path)
    if config is not None:
        definition = _installed(config, name)
    else:
        definition = TaskDefinition(name=TaskName("try"), entry=str(parse_entry(entry or "")))
    return replace(
        definition,
        options={**definition.options, **_pairs(options, "--option")},
        device=definition.device if device is None else DeviceRequest(device),
        search_path=search_path,
    )


def _installed(config: Path, name: str | None) -> TaskDefinition:
    found = task_definitions(load_config(config, ParticipantSettings, environment=os.environ))
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    known = ", ".join(sorted(found)) or "none"
    if name is None:
        raise click.UsageError(f"{config} installs these tasks: {known}; choose one with --task")
    try:
        return found[parse_task_name(name)]
    except (KeyError, ValueError):
        raise click.UsageError(f"{config} has no task {name!r}; it installs: {known}") from None


def _pairs(texts: Iterable[str], option: str) -> dict[str, Any]:
    """`key=value`, the value as in TOML; what is no TOML is text."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{option} takes KEY=VALUE, got {text!r}")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            found[key] = value
    return found


def _bar(*, visible: bool) -> ProgressBar:
    console = stderr_console()
    return ProgressBar(console=console, transient=True, disable=not (visible and console.is_terminal))


def _as_json(definition: TaskDefinition, seed: int, done: Rehearsal) -> dict[str, Any]:
    ready, training = done.ready, done.training
    return {
        "entry": definition.entry,
        "seed": seed,
        "device": ready.device,
        "device_note": ready.device_note,
        "tensors": ready.tensors,
        "parameters": ready.parameters,
        "manifest": ready.manifest_digest,
        "keeps_state": training.state is not None,
        "train": {"weight": training.weight, "metrics": training.metrics, "duration_s": training.duration_s},
        "evaluate_before": _evaluation(done.before),
        "evaluate_after": _evaluation(done.after),
        "update": [_move(move) for move in done.moves],
        "interruption": None if done.interruption is None else asdict(done.interruption),
    }


def _evaluation(done: EvaluationDone) -> dict[str, Any]:
    return {"weight": done.weight, "metrics": done.metrics, "duration_s": done.duration_s}


def _move(move: TensorMove) -> dict[str, Any]:
    tensor = move.tensor
    return {
        "tensor": tensor.name,
        "dtype": str(tensor.dtype),
        "shape": list(tensor.shape),
        "norm": move.norm,
        "largest": move.largest,
    }


def _as_tables(definition: TaskDefinition, done: Rehearsal) -> RenderableType:
    ready = done.ready
    head = facts(
        [
            ("task", definition.entry),
            ("device", ready.device if ready.device_note is None else f"{ready.device} ({ready.device_note})"),
            ("model", f"{ready.tensors} tensors, {ready.parameters} parameters in an update"),
            ("manifest", ready.manifest_digest),
            ("keeps state", "yes" if done.training.state is not None else "no"),
            *([] if done.interruption is None else [("interrupted", _interruption(done.interruption))]),
        ]
    )
    results: list[tuple[str, EvaluationDone | TrainingDone]] = [
        ("evaluate before", done.before),
        ("train", done.training),
        ("evaluate after", done.after),
    ]
    names = list(dict.fromkeys(name for _, result in results for name in result.metrics))
    measured = table(
        ["call", "weight", *names, "seconds"],
        [
            [call, result.weight, *(_short(result.metrics.get(name)) for name in names), round(result.duration_s, 3)]
            for call, result in results
        ],
    )
    moved = table(
        ["tensor", "type", "shape", "norm of change", "largest change"],
        [
            [move.tensor.name, move.tensor.dtype, list(move.tensor.shape), _short(move.norm), _short(move.largest)]
            for move in done.moves
        ],
    )
    return Group(head, measured, moved)


def _interruption(found: Interruption) -> str:
    if not found.saved:
        return "the task saves nothing: a training that is interrupted starts over"
    if found.same_update:
        return "killed after its first save, it went on to the same update, bit for bit"
    return "killed after its first save, it went on to another update: not all that training depends on is saved"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
