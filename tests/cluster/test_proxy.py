"""A federation of real processes behind an HTTP proxy, and one whose coordinator moves to its second address."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.connect_proxy import ConnectProxy, Manner
from tests.support.federation import free_port, job_spec, rounds_of
from tests.support.links import MEMBERS, assert_no_traceback, constant_federation

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

PARAMETERS = 100_000
PASSWORD = "hidden-word"  # noqa: S105 - of a proxy that a test made
SECONDS = 20.0  # under load; alone it is 2


def test_sessions_uploads_and_commands_go_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = MEMBERS[:2]
    federation, initial = constant_federation(tmp_path, parameters=PARAMETERS, members=pair)
    with ConnectProxy(Manner(credentials=f"silo:{PASSWORD}")) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        with federation:
            federation.start()
            job = federation.submit("study-1", job_spec(pair, initial, rounds=1, metrics=()), initial)
            (committed,) = rounds_of(federation.finish(job))
        assert committed["survivors"] == list(pair)
        assert set(proxy.targets) == {federation.address}
        assert len(proxy.targets) >= 2 * len(pair) + 2  # a session and bulk data of each, and the commands above
        # The model comes in with the job, goes out to both, and an update of each comes back: five times its size.
        assert proxy.tunnelled_bytes > 5 * 4 * PARAMETERS
    assert_no_traceback(tmp_path)
    assert not [log.name for log in tmp_path.glob("*.log") if PASSWORD in log.read_text()]


@pytest.mark.long
def test_silos_find_a_coordinator_that_moved_to_its_second_address(tmp_path: Path) -> None:
    federation, initial = constant_federation(tmp_path, parameters=PARAMETERS, members=MEMBERS)
    first, second = federation.address, f"localhost:{free_port()}"
    for member in MEMBERS:
        config = tmp_path / member / "participant.toml"
        config.write_text(config.read_text().replace(json.dumps([first]), json.dumps([first, second])))
    with federation:
        federation.start()
        for member in MEMBERS:
            federation.process(member).wait_for("session_open", address=first)
        federation.stop("coordinator")
        config = tmp_path / "coordinator.toml"
        config.write_text(config.read_text().replace(first.partition(":")[2], second.partition(":")[2]))
        federation.start_coordinator()
        began = time.monotonic()
        for member in MEMBERS:
            federation.process(member).wait_for("session_open", address=second)
        assert time.monotonic() - began < SECONDS
        federation.address = second
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=1, metrics=()), initial)
        (committed,) = rounds_of(federation.finish(job))
    assert committed["survivors"] == list(MEMBERS)
    assert_no_traceback(tmp_path)
