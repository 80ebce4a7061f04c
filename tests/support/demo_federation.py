"""A federation whose status pages show something of everything: for the test in a browser, and for the pictures.

Four hospitals. One job ended, with rounds that a hospital missed; in one a round is open because a hospital stands
still, as a machine that hangs does; one waits for its turn; one is paused. Real processes, on loopback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from consilo.demo.moment import Blow, Moment
from participant.tasks.state_dict import write_model
from shared.ids import JobId
from tests.cluster.tasks.regression_task import build
from tests.support.credentials import CONSORTIUM
from tests.support.federation import Federation, job_spec

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 16, "hospital-d": 32}
AWAY = "hospital-d"
ENDED, OPEN, WAITING, PAUSED = "heart-2026-spring", "heart-2026-autumn", "lung-2026", "kidney-pilot"
ENDED_ROUNDS, OPEN_ROUNDS = 14, 30
STANDS_STILL_IN = ENDED_ROUNDS + 3  # a round that only the second job comes to
METRICS = ("loss", "accuracy")


@contextmanager
def demo_federation(folder: Path) -> Iterator[Federation]:
    """Running, with the round open and the silo noticed that is away."""
    options = {
        name: {"silo": place, "rows": rows, "name": name, "measured": str(folder / f"ledger-{name}")}
        for place, (name, rows) in enumerate(ROWS.items())
    }
    federation = Federation(folder, entry="pictured_task:PicturedTask", options=options, status=True)
    with federation:
        coordinator = federation.start_coordinator()
        federation.start_participants([name for name in ROWS if name != AWAY])
        federation.start_doomed(AWAY, Moment(STANDS_STILL_IN, "Working", Blow.STOP))
        _run_to_its_end(federation)
        _submit_the_others(federation)
        federation.process(AWAY).wait_until_stopped()
        coordinator.wait_for("session_ended", peer=f"spiffe://{CONSORTIUM}/participant/{AWAY}")
        yield federation


def _run_to_its_end(federation: Federation) -> None:
    initial = _model(federation.folder / "initial.safetensors", changed=0.0)
    training = {"learning_rate": 0.05, "crash": {"hospital-c": [5, 6]}}
    spec = job_spec(
        list(ROWS), initial, rounds=ENDED_ROUNDS, training=training, quorum=3, grace_s=30.0, metrics=METRICS
    )
    federation.finish(federation.submit(ENDED, spec, initial))


def _submit_the_others(federation: Federation) -> None:
    model = _model(federation.folder / "other.safetensors", changed=0.3)
    training = {"learning_rate": 0.03}
    everybody = job_spec(
        list(ROWS), model, rounds=OPEN_ROUNDS, training=training, seed=8, deadline_s=1800.0, metrics=METRICS
    )
    federation.submit(OPEN, everybody, model)
    federation.submit(WAITING, job_spec(list(ROWS), model, rounds=5, training=training, seed=9, metrics=METRICS), model)
    two = {"quorum": 2, "min_survivors": 2, "masking": {"mode": "plain"}}
    pilot = job_spec(["hospital-a", "hospital-c"], model, rounds=3, training=training, seed=10, metrics=METRICS, **two)
    federation.submit(PAUSED, pilot, model)
    with federation.operations() as operations:
        operations.pause_job(JobId(PAUSED), "waits for the ethics board")


def _model(path: Path, *, changed: float) -> Path:
    """Where a job starts: totals of one model are opened once, so each job of the same silos has its own."""
    model = build()
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(changed * torch.randn(parameter.shape, generator=generator))
    write_model(model, path)
    return path
