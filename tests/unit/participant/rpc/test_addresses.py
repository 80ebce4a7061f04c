"""One coordinator under several addresses, behind a proxy that forgets, and under a name that moves."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from coordinator.rpc.opening import SessionTimes
from tests.support.connect_proxy import ConnectProxy, Manner
from tests.support.credentials import Consortium
from tests.support.federation import REPOSITORY, free_port
from tests.support.live_coordinator import live_coordinator
from tests.unit.participant.rpc.test_session_loop import LIMIT_S, Heard, loop_for

IDLE_S = 5.0


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("pki"))


def test_the_next_address_is_tried_and_the_first_one_again(consortium: Consortium, tmp_path: Path) -> None:
    """A coordinator that moves between two machines of which one is off."""
    first, second = free_port(), free_port()

    async def served_at(port: int, heard: Heard) -> None:
        async with live_coordinator(consortium, tmp_path, listen=f"127.0.0.1:{port}"):
            await asyncio.wait_for(heard.opened.wait(), LIMIT_S)
            heard.opened.clear()

    async def scenario() -> None:
        heard = Heard()
        loop = loop_for(consortium, heard, f"localhost:{first}", others=(f"localhost:{second}",))
        running = asyncio.create_task(loop.run())
        for port in (second, first, second):
            await served_at(port, heard)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(scenario())


@pytest.mark.parametrize(("heartbeat_s", "sessions"), [(0.2, 1), (20.0, 2)])
def test_heartbeats_keep_a_proxy_from_forgetting_the_session(
    heartbeat_s: float, sessions: int, consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rare ones it does forget: the proxy is one that would."""
    heard = Heard()

    async def scenario() -> None:
        times = SessionTimes(heartbeat_s=heartbeat_s, silence_s=60.0)
        async with live_coordinator(consortium, tmp_path, times=times) as live:
            running = asyncio.create_task(loop_for(consortium, heard, f"localhost:{live.port}").run())
            await asyncio.wait_for(heard.opened.wait(), LIMIT_S)
            if sessions == 1:
                await asyncio.sleep(1.5 * IDLE_S)  # the silence is what is tested
            else:
                heard.opened.clear()
                await asyncio.wait_for(heard.opened.wait(), LIMIT_S)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    with ConnectProxy(Manner(idle_s=IDLE_S)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        asyncio.run(scenario())
        assert heard.states.count(True) == len(proxy.targets) == sessions


def test_a_name_that_moves_is_looked_up_anew(tmp_path: Path) -> None:
    """The name server says that its answers hold for an hour."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    inside = f'ip link set lo up && mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec "$@"'
    alone = ["unshare", "-n", "-m", "sh", "-c", inside, "sh"]
    command = [*alone, sys.executable, "-m", "tests.support.moved_name", str(tmp_path)]
    if shutil.which("ip") is None or subprocess.run(["unshare", "-n", "-m", "true"], check=False).returncode:
        pytest.skip("no network namespace can be made here")
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["sessions"] == ["127.0.0.1", "127.0.0.2", "::1", "127.0.0.1 of both"]
    assert seen["bulk"] == ["127.0.0.1", "unreachable", "127.0.0.2"]
