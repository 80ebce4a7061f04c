"""What a daemon learns only by dialling is tried again, and the log says what a person should look at first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from consilo.cli import main
from consilo.pki import Authority, render_allowlist
from shared.clock import SystemClock
from shared.identity import Allowlist, Role
from shared.tensors import write_model_file
from shared.update import DType, ModelManifest, TensorSpec
from tests.inputs.asked import Asked, running_coordinator
from tests.inputs.place import KNOWN_JOB, Place
from tests.support.federation import CONSILO, Federation, Process, free_port, job_spec
from tests.support.models import random_tensors


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with running_coordinator(tmp_path_factory.mktemp("asked")) as found:
        yield found


@pytest.fixture
def place(asked: Asked, tmp_path: Path) -> Place:
    return asked.copy(tmp_path / "consilo")


@contextmanager
def daemon(place: Place, address: str, *, name: str = "participant") -> Iterator[Process]:
    """A participant that dials `address`."""
    place.replace("participant.toml", '"127.0.0.1:1"', f'"{address}"')
    config = place.path("participant.toml")
    process = Process(
        [*CONSILO, "participant", "run", "--config", str(config)],
        log=place.path(f"{name}.log"),
        environment={"CONSILO_PARTICIPANT__DATA_DIR": str(place.path(f"{name}-data"))},
    )
    try:
        yield process
    finally:
        process.stop()


def twice(process: Process, event: str) -> dict[str, Any]:
    """The second of two lines: that it is there says that the daemon went on trying."""
    process.wait_for(event)
    return process.wait_for(event)


def of_another_consortium(place: Place) -> None:
    other = Authority.load(place.path("other-pki"))
    other.issue(Role.PARTICIPANT, "hospital-a", out=place.path("hospital-a"), now=SystemClock().now())
    text = place.read("participant.toml")
    place.write("participant.toml", re.sub(r"\[consortium\]\n.*\n.*\n", "", text))  # masked jobs are not what is tried


def test_a_coordinator_that_is_down_or_on_another_port(place: Place) -> None:
    address = f"localhost:{free_port()}"
    with daemon(place, address) as process:
        said = twice(process, "session_ended")["detail"]
    assert said.startswith(
        f"{address} cannot be reached: nothing listens there: is the coordinator running, and the port"
    )


def test_a_coordinator_whose_name_nobody_knows(place: Place) -> None:
    with daemon(place, "coordinator.invalid:8443") as process:
        said = process.wait_for("session_ended")["detail"]
    assert "cannot be reached: the host name does not resolve: is it written right?" in said


def test_a_coordinator_under_a_name_that_its_certificate_does_not_have(place: Place, asked: Asked) -> None:
    with daemon(place, f"127.0.0.1:{asked.port}") as process:
        said = twice(process, "session_ended")["detail"]
    assert "cannot be reached: its certificate is for another host name than the one dialled" in said


def test_a_coordinator_of_another_ca(place: Place, asked: Asked) -> None:
    of_another_consortium(place)
    with daemon(place, f"localhost:{asked.port}") as process:
        said = twice(process, "session_ended")["detail"]
    assert "cannot be reached: its certificate is not of the CA in [tls] ca" in said


def test_who_is_taken_off_the_allow_list_is_told_so(place: Place, asked: Asked) -> None:
    path = asked.place.path("pki/allowlist.toml")
    whole = path.read_bytes()
    listed = Allowlist.load(path)
    kept = {identity: entry for identity, entry in listed.entries.items() if identity.name != "hospital-a"}
    try:
        with daemon(place, f"localhost:{asked.port}") as process:
            process.wait_for("session_open")
            path.write_bytes(render_allowlist(Allowlist(listed.consortium, kept)))
            said = process.wait_for("session_refused")["detail"]
    finally:
        path.write_bytes(whole)
    assert "allow-list" in said


def test_two_daemons_with_one_identity_hear_of_each_other(place: Place, asked: Asked, tmp_path: Path) -> None:
    twin = asked.copy(tmp_path / "twin")
    with daemon(place, f"localhost:{asked.port}") as first:
        first.wait_for("session_open")
        with daemon(twin, f"localhost:{asked.port}") as second:
            second.wait_for("session_open")
            said = first.wait_for("session_refused")["detail"]
    assert said.startswith("superseded: ")
    assert said.endswith("another daemon runs with this participant's identity: stop one of them")


def test_a_member_that_does_not_have_the_task_is_named_where_the_job_waits(place: Place, asked: Asked) -> None:
    with daemon(place, f"localhost:{asked.port}") as process:
        process.wait_for("session_open")
        command = ["job", "show", KNOWN_JOB, "--json", "--config", str(place.path("operator.toml"))]
        shown = CliRunner().invoke(main, command)
    said = json.loads(shown.stdout)["reason"]
    assert said == "0 of quorum 3; not connected: hospital-b, hospital-c; without task heart: hospital-a"


@pytest.mark.long
@pytest.mark.cluster
def test_a_model_of_another_task_is_withdrawn_from_and_the_silo_s_log_names_the_tensor(tmp_path: Path) -> None:
    options = {"hospital-a": {"parameters": 3}}
    initial = tmp_path / "initial.safetensors"
    manifest = ModelManifest.of([TensorSpec("values", DType.F32, (4,))])
    write_model_file(initial, manifest, {}, random_tensors(manifest, 1))
    with Federation(tmp_path, entry="constant_task:ConstantTask", options=options) as federation:
        federation.start()
        plain = {"mode": "plain"}
        federation.submit("heart-1", job_spec(["hospital-a"], initial, rounds=1, masking=plain, metrics=()), initial)
        said = federation.process("hospital-a").wait_for("work_failed")
    assert said["reason"] == "manifest_mismatch"
    assert said["detail"] == "tensor 'values': expected F32 of shape [3], got F32 of shape [4]"
