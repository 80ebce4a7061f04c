"""Peers that stop answering without a word, and links that forget who is quiet."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from coordinator.client.operations import Operations
from coordinator.client.rpc import OperationsChannel
from participant.rpc.channel import dial
from shared.ids import JobId, parse_job_id
from shared.protocol.messages import Heartbeat
from shared.wire.transfer import UploadOpen, encode_data, encode_upload_open
from tests.support.credentials import Consortium
from tests.support.fake_participant import TRANSFER, Talk, fake_participant
from tests.support.federation import CONSILO, Federation, job_spec, rounds_of, write_toml
from tests.support.links import MEMBERS, VICTIM, assert_no_traceback, constant_federation, linked
from tests.support.live_coordinator import OPERATOR, live_coordinator
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.cluster]

NOTICED_WITHIN_S = 15.0
SMALL = 1000


@pytest.mark.timeout(180)
def test_a_peer_that_stops_answering_is_noticed_in_time(tmp_path: Path) -> None:
    """A process that stands still, a link on which nothing moves, and a coordinator that stands still."""
    federation, initial = constant_federation(tmp_path, parameters=SMALL, seconds=600.0)
    frozen, quick, cut_off = MEMBERS
    with federation, linked(federation, cut_off) as link:
        federation.start()
        coordinator = federation.process("coordinator")
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=1, metrics=()), initial)
        coordinator.wait_for("round_moved", round=1, phase="recruiting")
        began = time.monotonic()
        os.kill(federation.process(frozen).pid, signal.SIGSTOP)
        link.stall()
        for _ in (frozen, cut_off):
            coordinator.wait_for("session_ended", why="silent")
        assert time.monotonic() - began < NOTICED_WITHIN_S
        federation.process(cut_off).wait_for("session_ended")
        assert time.monotonic() - began < NOTICED_WITHIN_S
        with federation.operations() as operations:
            live = operations.job(job).live
            assert live is not None
            assert {member.participant for member in live.members if member.connected} == {quick}
        federation.process(frozen).go_on()
        link.go_on()
        for member in (frozen, cut_off):
            federation.process(member).wait_for("session_open")
        began = time.monotonic()
        os.kill(coordinator.pid, signal.SIGSTOP)
        for member in (quick, cut_off):
            federation.process(member).wait_for("session_ended")
        assert time.monotonic() - began < NOTICED_WITHIN_S
        coordinator.go_on()
        with federation.operations() as operations:
            operations.abort_job(job, "seen enough")
    assert_no_traceback(tmp_path)


@pytest.mark.parametrize(
    ("forgets_after_s", "idle_s"),
    [
        pytest.param(6.0, 15.0, id="scaled", marks=[pytest.mark.long, pytest.mark.timeout(180)]),
        pytest.param(60.0, 600.0, id="whole", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_a_session_that_has_nothing_to_say_is_not_forgotten(
    tmp_path: Path, forgets_after_s: float, idle_s: float
) -> None:
    federation, initial = constant_federation(tmp_path, parameters=SMALL)
    with federation, linked(federation) as link:
        link.idle_drop_s = forgets_after_s
        federation.start()
        coordinator = federation.process("coordinator")
        coordinator.wait_for("session_opened")
        time.sleep(idle_s)  # the silence is what is tested
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=1, metrics=()), initial)
        (committed,) = rounds_of(federation.finish(job))
    assert committed["survivors"] == list(MEMBERS)
    assert_no_traceback(tmp_path)
    assert (tmp_path / f"{VICTIM}.log").read_text().count('"event": "session_open"') == 1


@pytest.mark.timeout(120)
def test_a_watch_goes_on_when_the_coordinator_is_back(tmp_path: Path) -> None:
    federation, initial = constant_federation(tmp_path, parameters=SMALL, seconds=3.0)
    with federation:
        federation.start()
        job = federation.submit("study-1", job_spec(MEMBERS, initial, rounds=2, metrics=()), initial)
        config = _operator_config(federation)
        command = [*CONSILO, "job", "watch", job, "--config", str(config), "--json"]
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            federation.process("coordinator").wait_for("round_moved", round=1, phase="recruiting")
            assert watch.stdout is not None
            assert watch.stderr is not None
            assert json.loads(watch.stdout.readline())
            federation.kill("coordinator")
            assert "connection lost" in watch.stderr.readline()
            federation.start_coordinator()
            assert "connected again" in watch.stderr.readline()
            out, _ = watch.communicate(timeout=90)
        finally:
            watch.kill()
            watch.communicate()
    assert watch.returncode == 0
    assert_no_traceback(tmp_path)
    finished = [told["round"] for line in map(json.loads, out.splitlines()) for told in line["finished"]]
    assert finished == [1, 2, 3], "each once, and the closing one after them"


def _operator_config(federation: Federation) -> Path:
    credentials = federation.consortium.operator().folder
    config = federation.folder / "operator.toml"
    write_toml(
        config,
        {
            "operator": {
                "coordinator": federation.address,
                "coordinator_certificate": str(federation.consortium.coordinator().folder / "signing.crt"),
            },
            "tls": {
                "certificate": str(credentials / "tls.crt"),
                "key": str(credentials / "tls.key"),
                "ca": str(credentials / "ca.crt"),
            },
        },
    )
    return config


# --- streams with nothing to say --------------------------------------------------------------------------------------

QUIET_S = 70.0
FORGETS_AFTER_S = 25.0  # more than the intervals of the transport's own pings, less than any firewall that is in use


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_watch_and_an_upload_that_are_quiet_are_not_forgotten(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    member = consortium.participant("hospital-a")

    async def scenario() -> None:
        async with live_coordinator(consortium, tmp_path, stalled_s=2 * QUIET_S) as live:
            with FaultProxy(("127.0.0.1", live.port)) as link:
                link.idle_drop_s = FORGETS_AFTER_S
                async with fake_participant(live.port, "hospital-a", member, consortium.coordinator()) as participant:
                    model, _ = await live.add_model(10)
                    talk, _ = await participant.open()
                    await live.submit("heart-1", ["hospital-a"], model)
                    attempt = await participant.train(talk)
                    watching = asyncio.create_task(asyncio.to_thread(_watch, consortium, link))
                    async with dial(f"localhost:{link.port}", member.tls) as channel:
                        upload: Any = channel.stream_unary(TRANSFER + "UploadUpdate")()
                        await upload.write(encode_upload_open(UploadOpen(attempt.key, 0)))
                        beats = asyncio.create_task(_beat(talk))
                        await asyncio.sleep(QUIET_S)
                        for chunk in attempt.chunks():
                            await upload.write(encode_data(chunk))
                        await upload.done_writing()
                        await upload
                    await participant.commit(attempt)
                    await live.thread.call(live.conductor.desk.abort_job, JobId("heart-1"), "seen enough", OPERATOR)
                    assert await watching == "aborted"
                    beats.cancel()

    asyncio.run(scenario())


async def _beat(talk: Talk) -> None:
    while True:
        await talk.say(Heartbeat())
        await asyncio.sleep(3)


def _watch(consortium: Consortium, link: FaultProxy) -> str:
    with OperationsChannel(address=f"localhost:{link.port}", tls=consortium.operator().tls) as channel:
        *_, last = Operations(channel).watch_job(parse_job_id("heart-1"))
        return last.job.state.value
