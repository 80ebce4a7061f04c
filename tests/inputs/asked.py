"""A real coordinator for the rows that ask one: its process, and what it knows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from coordinator.client.job_file import load_job_file
from coordinator.client.operations import Operations
from coordinator.client.rpc import OperationsChannel
from shared.ids import Digest, parse_job_id
from shared.tls import TlsPaths
from shared.wire.operations import PutModelOpen
from tests.inputs.place import KNOWN_JOB, MODEL, OPERATOR, Place, make_place
from tests.support.federation import CONSILO, Process
from tests.support.models import model_bytes, random_tensors

COPY_WITHOUT = shutil.ignore_patterns("coordinator-data")


@dataclass(frozen=True, slots=True)
class Asked:
    """The place of a coordinator that runs, to be copied for each row."""

    place: Place
    process: Process
    port: int
    known: Mapping[str, str]
    """What rows have in braces."""

    def copy(self, folder: Path) -> Place:
        shutil.copytree(self.place.folder, folder, ignore=COPY_WITHOUT)
        return Place(folder)


@contextmanager
def running_coordinator(folder: Path) -> Iterator[Asked]:
    """A coordinator with one job and two models whose digests begin alike."""
    place = make_place(folder / "whole", address="127.0.0.1:1")
    process = Process(
        [*CONSILO, "coordinator", "run", "--config", str(place.path("coordinator.toml"))],
        log=folder / "coordinator.log",
        environment={},
    )
    try:
        (listening,) = process.wait_for("coordinator_ready")["listen"]
        port = int(listening.rpartition(":")[2])
        place.write("operator.toml", OPERATOR.format(address=f"localhost:{port}"))
        first, _ = models = _two_that_begin_alike()
        tls = TlsPaths(*(place.path(f"operator/{name}") for name in ("tls.crt", "tls.key", "ca.crt")))
        with OperationsChannel(address=f"localhost:{port}", tls=tls) as channel:
            _tell(Operations(channel), place, models)
        known = {
            "known_model": str(Digest.of(first)),
            "ambiguous": str(Digest.of(first))[:4],
            "other_address": f"127.0.0.1:{port}",
        }
        yield Asked(place, process, port, known)
    finally:
        process.stop()


def _tell(operations: Operations, place: Place, models: tuple[bytes, bytes]) -> None:
    for content in (place.path("initial.safetensors").read_bytes(), *models):
        path = place.folder.parent / "model"
        path.write_bytes(content)
        with path.open("rb") as file:
            operations.put_model(file, PutModelOpen(Digest.of(content), len(content)))
    operations.submit_job(parse_job_id(KNOWN_JOB), load_job_file(place.path("job.toml")).spec.to_bytes())


def _two_that_begin_alike() -> tuple[bytes, bytes]:
    """By trying: four digits are alike after a few hundred models."""
    seen: dict[str, bytes] = {}
    tensors = random_tensors(MODEL, 1)
    for number in count():
        content = model_bytes(MODEL, tensors, {"number": str(number)})
        start = str(Digest.of(content))[:4]
        if start in seen:
            return seen[start], content
        seen[start] = content
    raise AssertionError("counting has no end")
