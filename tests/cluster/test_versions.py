"""N and N-1: the previous release's daemons and commands with this code's, each way round.

The previous release is the newest in CHANGELOG.md whose commit stands there. Before the first one its part is played by
the last commit, so that what will be needed is known to work. `PREVIOUS_RELEASE` names another revision, for trying.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from consilo.demo.moment import Blow, Moment
from participant.tasks.state_dict import write_model
from tests.cluster.tasks.constant_task import Flat
from tests.support.federation import REPOSITORY, job_spec, rounds_of, write_toml
from tests.support.previous import MixedFederation, code_of
from tools.changelog import newest_released, read_changelog

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RELEASED = newest_released(read_changelog(REPOSITORY))
MEMBERS = ("hospital-a", "hospital-b")
ELDER = MEMBERS[0]
PARAMETERS = 5
ROUNDS = 2

TRIED = os.environ.get("PREVIOUS_RELEASE")
REVISION, NAME = ("HEAD", "last commit") if RELEASED is None else (RELEASED.commit, RELEASED.version)


@pytest.fixture(scope="module", params=[TRIED or REVISION], ids=[TRIED or NAME])
def code(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return code_of(str(request.param), tmp_path_factory.mktemp("code"))


@contextmanager
def mixed(folder: Path, *, code: Path, elders: set[str]) -> Iterator[tuple[MixedFederation, Path]]:
    initial = folder / "initial.safetensors"
    write_model(Flat(PARAMETERS), initial)
    options = {member: {"parameters": PARAMETERS} for member in MEMBERS}
    with MixedFederation(
        folder, code=code, elders=elders, entry="constant_task:ConstantTask", options=options
    ) as federation:
        yield federation, initial


def require_trained(federation: MixedFederation, rounds: list[dict[str, object]]) -> None:
    """Everybody in every round, and each added one to every parameter."""
    assert [summary["survivors"] for summary in rounds] == [list(MEMBERS)] * ROUNDS
    trained = load_file(federation.model(str(rounds[-1]["next_model"])))
    torch.testing.assert_close(trained["values"], torch.full((PARAMETERS,), float(ROUNDS)))


def test_an_older_silo_and_an_older_operator_with_this_coordinator(tmp_path: Path, code: Path) -> None:
    """The silo is killed when its update is ready, and goes on with what it had; killed again, it is brought up to
    date, and goes on with what the older one had.
    """
    with mixed(tmp_path, code=code, elders={ELDER}) as (federation, initial):
        federation.start_coordinator()
        first = federation.start_doomed(ELDER, Moment(1, "Ready", Blow.KILL))
        federation.start_participants(MEMBERS[1:])
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=ROUNDS, metrics=()), initial)
        first.wait_until_killed()
        second = federation.start_doomed(ELDER, Moment(2, "Ready", Blow.KILL))
        second.wait_until_killed()
        federation.bring_up_to_date(ELDER)
        federation.start_participant(ELDER)
        rounds = rounds_of(federation.finish(job))
        require_trained(federation, rounds)

        operator = federation.consortium.operator().tls
        write_toml(
            tmp_path / "operator.toml",
            {
                "operator": {"coordinator": federation.address},
                "tls": {"certificate": str(operator.certificate), "key": str(operator.key), "ca": str(operator.ca)},
            },
        )
        assert json.loads(federation.elder_says("job", "show", job, "--json"))["state"] == "completed"
        last = str(rounds[-1]["next_model"])
        federation.elder_says("model", "export", last, "exported.safetensors")
        assert (tmp_path / "exported.safetensors").read_bytes() == federation.model(last).read_bytes()


def test_an_older_coordinator_with_these_silos_and_this_operator(tmp_path: Path, code: Path) -> None:
    """The coordinator is killed while updates come in, and goes on; killed again, it is brought up to date, and goes on
    with the round that the older one left open.
    """
    with mixed(tmp_path, code=code, elders={"coordinator"}) as (federation, initial):
        first = federation.start_doomed_coordinator(Moment(1, "Uploading", Blow.KILL))
        federation.start_participants(MEMBERS)
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=ROUNDS, metrics=()), initial)
        first.wait_until_killed()
        second = federation.start_doomed_coordinator(Moment(2, "Uploading", Blow.KILL))
        with federation.operations() as operations:
            assert [known.job for known in operations.jobs()] == [job]
        second.wait_until_killed()
        federation.bring_up_to_date("coordinator")
        federation.start_coordinator()
        require_trained(federation, rounds_of(federation.finish(job)))
