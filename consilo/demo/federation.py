"""The demo, start to end: a federation in a folder, its daemons, one job, and what came of it.

Nothing here is a shortcut: the daemons are the ones that a consortium runs, they meet over mutual TLS on loopback, and
the demo is an operator like any other. Only `comparison` does what no federation can: put all rows in one place.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from consilo.demo.daemons import CONSILO, Daemons, Interrupts, run_consilo
from consilo.demo.dropping import Dropping, run_arguments, victim
from consilo.demo.folders import BATCH_SIZE, LEARNING_RATE, LOCAL_EPOCHS, LOOPBACK, Federation
from consilo.demo.outcome import Outcome
from coordinator.audit import verify_lines
from coordinator.client.cli_audit import load_verifying_key
from coordinator.client.cli_job import new_job_id, submit_request
from coordinator.client.connection import dial
from coordinator.client.job_file import load_job_file
from coordinator.client.operations import Operations
from coordinator.client.settings import OperatorSettings, load_operator
from coordinator.client.views import summary_of
from coordinator.storage.interface import COMMITTED
from shared.entropy import SystemEntropy
from shared.errors import AuditError, FederationError, UnreachableError
from shared.ids import Digest, JobId
from shared.reasons import JobState, Purpose
from shared.wire.operations import JobDetail

START_LIMIT_S = 60.0
JOB_LIMIT_S = 15 * 60.0
LOOK_S = 0.25
RETRY_S = 0.1
METRICS_LIMIT_S = 5.0
POOLED = "pooled"

Watcher = Callable[[JobDetail], None]


def run(
    federation: Federation, *, watcher: Watcher, say: Callable[[str], None], interrupts: Interrupts, drop: bool = False
) -> Outcome:
    """Run the federation's job to its end; with `drop`, kill a hospital on the way. `watcher` is shown each change.
    Raises a leaf of FederationError.
    """
    started = time.monotonic()
    settings = load_operator(federation.operator_config, environment={})
    with Daemons(logs=federation.logs, interrupts=interrupts) as daemons:
        say("starting the coordinator")
        daemons.start(
            "coordinator",
            [*CONSILO, "coordinator", "run", "--config", str(federation.coordinator_config)],
            folder=federation.root,
        )
        make_initial_model(federation)
        wait_until_up(settings, daemons)
        say(f"starting {len(federation.hospitals)} participants, each with a task process of its own")
        dropping = Dropping(federation, daemons=daemons, say=say) if drop else None
        for name in federation.hospitals:
            if dropping is not None and name == victim(federation):
                dropping.start()
            else:
                daemons.start(name, [*CONSILO, *run_arguments(federation, name)], folder=federation.root)
        with dial(settings) as operations:
            request = load_job_file(federation.job_file)
            job_id = new_job_id(request, SystemEntropy())
            submit_request(operations, request, job_id)
            job = follow(operations, job_id, daemons, watcher, dropping)
            if job.job.state is not JobState.COMPLETED:
                raise UnreachableError(
                    f"job {job_id} was aborted ({job.job.reason}); what the daemons said is in {federation.logs}"
                )
            digest = last_version(job)
            model_path = federation.root / "model.safetensors"
            operations.export_model(digest, model_path)
            verified, head = verify_audit(operations, settings)
        keep_metrics(federation)
    say("training each hospital alone, and all rows in one place, to compare")
    accuracy = comparison(federation, model_path)
    return Outcome(
        job=job,
        federated_accuracy=accuracy["federated"],
        pooled_accuracy=accuracy[POOLED],
        alone_accuracy={name: accuracy[name] for name in federation.hospitals},
        model_path=model_path,
        model_digest=digest,
        audit_verified=verified,
        audit_head=head,
        seconds=time.monotonic() - started,
    )


def make_initial_model(federation: Federation) -> None:
    """As a data scientist makes it: with the task that the hospitals have installed."""
    config = federation.participant_config(federation.hospitals[0])
    arguments = ["task", "init-model", "--config", str(config), "--seed", str(federation.seed)]
    run_consilo([*arguments, str(federation.initial_model)], folder=federation.operator)


def wait_until_up(settings: OperatorSettings, daemons: Daemons) -> None:
    """Ask until the coordinator answers. Raises UnreachableError."""
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            with dial(settings) as operations:
                operations.jobs()
            return
        except UnreachableError:
            daemons.check()
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)  # a process that starts tells nobody when it is there


def follow(
    operations: Operations, job_id: JobId, daemons: Daemons, watcher: Watcher, dropping: Dropping | None
) -> JobDetail:
    """Watch a job to its end, and its daemons with it. Raises UnreachableError when one of them ends."""
    news: queue.SimpleQueue[JobDetail | FederationError | None] = queue.SimpleQueue()

    def listen() -> None:
        try:
            for detail in operations.watch_job(job_id):
                news.put(detail)
            news.put(None)
        except FederationError as error:
            news.put(error)

    threading.Thread(target=listen, daemon=True, name="watch").start()
    deadline = time.monotonic() + JOB_LIMIT_S
    last: JobDetail | None = None
    while time.monotonic() < deadline:
        if dropping is not None:
            dropping.look(last)
        try:
            told = news.get(timeout=LOOK_S)
        except queue.Empty:
            daemons.check()
            continue
        if isinstance(told, FederationError):
            daemons.check()
            raise told
        if told is None:
            break
        last = told
        watcher(told)
    if last is None or not last.job.state.over:
        raise UnreachableError(f"job {job_id} did not end within {JOB_LIMIT_S:.0f} s: is this machine very busy?")
    return last


def last_version(job: JobDetail) -> Digest:
    """The model that the last round of training made."""
    versions = [
        summary_of(finished).next_model
        for finished in job.rounds
        if finished.purpose is Purpose.TRAIN and finished.outcome == COMMITTED
    ]
    return Digest.parse(versions[-1])


def verify_audit(operations: Operations, settings: OperatorSettings) -> tuple[bool, str]:
    """Whether the coordinator's log verifies under the consortium's authority; and its head, to keep."""
    certificate = settings.operator.coordinator_certificate
    if certificate is None:
        raise RuntimeError("the demo's operator.toml names the coordinator's certificate")
    key = load_verifying_key(certificate, ca=settings.tls.ca)
    try:
        verified = verify_lines(operations.audit_lines(), verifying_key=key)
    except AuditError:
        return False, ""
    return True, str(verified.head)


def metrics_urls(federation: Federation) -> Iterator[tuple[str, int]]:
    """Name and port of every daemon's /metrics."""
    yield "coordinator", federation.ports.coordinator_metrics
    yield from zip(federation.hospitals, federation.ports.participant_metrics, strict=True)


def keep_metrics(federation: Federation) -> None:
    """What Prometheus would have collected at the end, as files; a daemon that does not answer leaves none."""
    folder = federation.root / "metrics"
    folder.mkdir()
    for name, port in metrics_urls(federation):
        connection = HTTPConnection(LOOPBACK, port, timeout=METRICS_LIMIT_S)
        try:
            connection.request("GET", "/metrics")
            (folder / f"{name}.prom").write_bytes(connection.getresponse().read())
        except (OSError, HTTPException):
            continue
        finally:
            connection.close()


def comparison(federation: Federation, model: Path) -> dict[str, float]:
    """Accuracies on the common test rows: `federated`, `pooled`, and each hospital's own."""
    constants = json.loads((federation.comparison / "constants.json").read_bytes())
    alone = {name: str(federation.hospital(name) / "rows.csv") for name in federation.hospitals}
    plan = {
        "initial": str(federation.initial_model),
        "federated": str(model),
        "train": {**alone, POOLED: str(federation.comparison / "rows.csv")},
        "test": str(federation.comparison / "rows.csv"),
        "training": {
            "local_epochs": federation.rounds * LOCAL_EPOCHS,
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
        },
        "seed": federation.seed,
        **constants,
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "consilo.demo.baselines"],
        input=json.dumps(plan).encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise UnreachableError(f"the comparison failed:\n{done.stderr.decode(errors='replace')}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured
