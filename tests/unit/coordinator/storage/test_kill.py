"""A real process killed (-9) between and inside writes: what it was told to be durable is there, and work goes on."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.audit import verify_lines
from shared.ids import Digest
from tests.support.audit_log import KEY
from tests.support.storage_crash import ADA, JOB, Campaign, attempt_of, model_of, shares_of, update_of

REPOSITORY = Path(__file__).parents[4]


def start(mode: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.storage_crash", mode, str(folder)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def acknowledged(folder: Path) -> list[str]:
    path = folder / "acknowledged"
    return path.read_text().splitlines() if path.exists() else []


def check_recovery(folder: Path) -> None:
    """Start again on what was left, as the next process does."""
    told = acknowledged(folder)
    with closing(Campaign(folder)) as campaign:
        jobs = campaign.store.jobs()
        assert len(jobs) == 1 or "job" not in told
        committed = [int(record.key.number) for record in campaign.store.rounds(JOB) if record.outcome == "committed"]
        assert {f"committed {number}" for number in committed} >= {line for line in told if "committed" in line}
        assert len(committed) <= sum("committed" in line for line in told) + 1
        assert [record.digest for record in campaign.store.models()] == [Digest.of(model_of(n)) for n in committed]
        for record, number in zip(campaign.store.models(), committed, strict=True):
            with closing(campaign.blobs.model(record.digest)) as reader:
                assert bytes(reader.read_at(0, reader.size)) == model_of(number)
        for line in told:
            number = int(line.split()[-1]) if " " in line else 0
            if line.startswith("received") and number not in committed:
                with closing(campaign.blobs.spool(attempt_of(number), ADA)) as spool, closing(spool.reader()) as reader:
                    assert bytes(reader.read_at(0, reader.size)) == update_of(number)
        for number in committed:
            database = [file.read_bytes() for file in (folder / "data").glob("consilo.db*")]
            assert not any(shares_of(number)[:18] in content for content in database), "a restart sheds them"
        check_log(folder, campaign)
        assert list((folder / "data" / "staging").iterdir()) == []
        campaign.run(max(committed, default=0) + 1)
        check_log(folder, campaign)
        assert len(campaign.store.models()) == len(committed) + 1


def check_log(folder: Path, campaign: Campaign) -> None:
    content = (folder / "data" / "audit.log").read_bytes()
    if campaign.log.size:
        verified = verify_lines(content, verifying_key=KEY.verifying_key, head=campaign.log.head)
        assert (verified.size, verified.entries_after_head) == (campaign.log.size, 0)
    else:
        assert content == b""


@pytest.mark.cluster
def test_a_process_killed_at_any_step_loses_nothing_that_was_durable(tmp_path: Path) -> None:
    process = start("steps", tmp_path)
    _, complaints = process.communicate(timeout=100)
    assert (process.returncode, complaints) == (0, b"")
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    assert len(folders) > 50
    assert acknowledged(folders[-1])[-1] == "dropped 1", "the last one was not killed"
    for folder in folders:
        check_recovery(folder)


@pytest.mark.cluster
@pytest.mark.parametrize("rounds", [1, 7, 20])
def test_a_process_killed_at_any_moment_loses_nothing_that_was_durable(tmp_path: Path, rounds: int) -> None:
    process = start("endless", tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line == b"committed %d\n" % rounds:
            break
    process.kill()
    _, complaints = process.communicate(timeout=60)
    assert complaints == b""
    check_recovery(tmp_path)
