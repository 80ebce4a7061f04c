"""Whoever may not come in costs little, leaves nothing behind, and keeps nobody out."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from shared.log_budget import LINES_MAX
from tests.hostile.strangers import CUT, REFUSED, STRANGER, dial, strangers
from tests.hostile.target import Attacked, attacked

GROWTH_MIB = 64  # after a warm-up: connections that came and went leave no more than the allocator's slack
FILES = 8  # connections of the members that open and close meanwhile
THREADS = 16  # the pools of the process fill up while it is busy; what counts is that no connection has one of its own
AUDITED = {
    "coordinator_started",
    "model_added",
    "job_submitted",
    "job_started",
    "round_committed",
    "round_aborted",
    "job_abort_asked",
    "job_aborted",
}
ROUND_S = 30.0  # of the honest, on a machine that does both sides


def _run(folder: Path, each: int) -> dict[str, object]:
    async def run() -> dict[str, object]:
        async with attacked(folder) as target:
            quiet_s = await target.round()
            kinds = strangers(target.federation.consortium)
            for context in kinds.values():
                await dial(target.port, context, 50)
            before = target.footprint
            figures: dict[str, object] = {"round_before_s": round(quiet_s, 2), "each": each, "before": str(before)}
            for kind, context in kinds.items():
                attack = asyncio.create_task(dial(target.port, context, each))
                if kind == "not on the list":  # the dearest of them: it is let into HTTP/2
                    round_s = await target.round()
                    assert round_s < ROUND_S
                    figures["round_meanwhile_s"] = round(round_s, 2)
                refusals = await attack
                assert refusals.met == Counter({REFUSED if kind in {"not on the list", "revoked"} else CUT: each})
                _require_honest(target)
                figures[kind] = {"each_ms": round(refusals.each_ms, 2), "footprint": str(target.footprint)}
            after = await target.settled(files=before.open_files + FILES, threads=before.threads + THREADS)
            figures["after"] = str(after)
            assert after.rss_mib < before.rss_mib + GROWTH_MIB
            assert after.open_files <= before.open_files + FILES
            assert after.threads <= before.threads + THREADS
            minutes = 1 + sum(kind["each_ms"] * each / 60_000 for kind in figures.values() if isinstance(kind, dict))
            refused = [line for line in target.log if line["event"] == "call_refused"]
            assert len(refused) <= 2 * (minutes + 1) * LINES_MAX, "two identities, so many lines a minute each"
            figures["log_lines"] = len(target.log)
            await target.round()
            return figures

    return asyncio.run(run())


def _require_honest(target: Attacked) -> None:
    """Strangers write nothing into the audit log: what stands there comes of the rounds of the honest, once of each."""
    audited = target.audited
    kinds = Counter(str(entry["kind"]) for entry in audited)
    assert kinds.keys() <= AUDITED, kinds
    assert kinds["coordinator_started"] == 1
    assert all(count <= target.rounds for count in kinds.values()), kinds
    assert not any(STRANGER in json.dumps(entry["data"]) for entry in audited)


@pytest.mark.cluster
def test_a_thousand_strangers_are_refused_while_a_round_commits(tmp_path: Path) -> None:
    _run(tmp_path, 250)


@pytest.mark.long
@pytest.mark.cluster
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_strangers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = _run(tmp_path, 25_000)
    with capsys.disabled():
        print(json.dumps(figures, indent=1))  # noqa: T201 - the figures of docs/reliability.md
