"""`consilo participant confirm-journal`, and what `check` and the daemon say of a journal."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from participant.app import Daemon
from participant.cli import participant
from participant.journal import SqliteJournal
from participant.journal_file import JOURNAL_FILE
from participant.marker import doubt_about, marker_path, take_into_use
from participant.metrics import ParticipantMetrics
from participant.settings import ParticipantSettings
from participant.spool import ROOM_LEFT_BYTES
from participant.startup import check_identity, lock_folder
from shared.config import load_config
from shared.errors import ConfigError
from shared.job import jobspec_digest
from tests.support.credentials import Consortium
from tests.support.rounds import make_plan, make_spec
from tests.support.small_disk import small_disk

NAME = "hospital-a"
PLAN = make_plan(make_spec())


class Silo:
    """A configured participant whose daemon ran once."""

    def __init__(self, folder: Path) -> None:
        credentials = Consortium(folder / "pki").participant(NAME)
        self.key, self.data = credentials.signing_key_path, folder / "data"
        self.config = folder / "participant.toml"
        tls = credentials.tls
        self.config.write_text(
            f'[participant]\nid = "{NAME}"\ncoordinators = ["localhost:1"]\ndata_dir = "{self.data}"\n'
            f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
            f'[signing]\ncertificate = "{credentials.signing_certificate}"\nkey = "{self.key}"\n'
        )
        self.data.mkdir()
        assert take_into_use(self.journal(), self.key) is None

    def journal(self) -> SqliteJournal:
        return SqliteJournal(self.data / JOURNAL_FILE)

    def lose(self) -> None:
        for path in self.data.iterdir():
            path.unlink()

    def confirm(self, *options: str, answer: str = "") -> Result:
        return CliRunner().invoke(
            participant, ["confirm-journal", "--config", str(self.config), *options], input=answer
        )

    def checked(self, row: str = "journal") -> dict[str, Any]:
        result = CliRunner().invoke(participant, ["check", "--config", str(self.config), "--json"])
        return next(found for found in json.loads(result.output) if found["check"] == row)


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path)


def test_a_journal_as_it_should_be_needs_no_word(silo: Silo) -> None:
    result = silo.confirm()
    assert result.exit_code == 0
    assert "nothing to confirm" in result.output
    assert silo.checked()["ok"]


def test_a_person_is_told_what_happened_and_asked(silo: Silo) -> None:
    silo.lose()
    refused = silo.confirm(answer="n\n")
    assert isinstance(refused.exception, ConfigError)
    assert "nothing was changed" in str(refused.exception)
    assert "is new and empty" in refused.output
    assert doubt_about(silo.journal(), silo.key) is not None
    assert silo.confirm(answer="y\n").exit_code == 0
    assert doubt_about(silo.journal(), silo.key) is None


def test_what_a_restored_journal_has_open_is_over_once_it_is_confirmed(silo: Silo) -> None:
    """Nobody knows what was said in these rounds since: going on with one could open a second total of it."""
    journal = silo.journal()
    journal.record_plan(PLAN, jobspec_digest(PLAN.value.jobspec))
    journal.close()
    marker_path(silo.key).write_text(json.dumps({"journal": silo.journal().name().name, "generation": 6}))
    refused = silo.confirm(answer="n\n")
    for part in ("older copy", "Its open rounds end now: heart-1/1.", "no further part in its jobs: heart-1."):
        assert part in refused.output
    assert silo.journal().open_rounds() != []
    assert silo.confirm(answer="y\n").exit_code == 0
    daemon, logs = asyncio.run(begun(silo))
    assert [entry["event"] for entry in logs] == []
    assert daemon._driver.open_rounds == ()
    history = silo.journal().history(PLAN.value.key.job)
    assert history is not None
    assert (history.finished_round, history.stopped) == (1, "confirmed after a restore")


def test_a_script_can_confirm(silo: Silo) -> None:
    silo.lose()
    assert silo.confirm("--yes").exit_code == 0
    assert take_into_use(silo.journal(), silo.key) is None


def test_a_running_daemon_is_stopped_first(silo: Silo) -> None:
    silo.lose()
    with lock_folder(silo.data):
        result = silo.confirm("--yes")
    assert isinstance(result.exception, ConfigError)
    assert "stop the daemon" in str(result.exception)


def test_check_says_what_is_wrong_with_a_journal(silo: Silo) -> None:
    silo.lose()
    missing = silo.checked()
    assert not missing["ok"]
    assert "does not exist, although the signing key was used" in missing["detail"]
    silo.journal().close()
    found = silo.checked()
    assert not found["ok"]
    assert "is new and empty" in found["detail"]
    assert "confirm-journal" in found["detail"]


def test_before_the_first_start_there_is_no_journal(silo: Silo) -> None:
    silo.lose()
    marker_path(silo.key).unlink()
    found = silo.checked()
    assert (found["ok"], found["warning"], found["detail"]) == (True, False, "none yet")


def test_check_warns_when_a_lost_journal_would_not_be_noticed(silo: Silo) -> None:
    there = silo.checked("journal marker")
    assert (there["ok"], there["warning"]) == (True, False)
    marker_path(silo.key).with_name("signing.key.journal.check").mkdir()  # nobody can write a file there, root neither
    missing = silo.checked("journal marker")
    assert (missing["ok"], missing["warning"]) == (True, True)
    assert "a journal that is lost or restored is not noticed" in missing["detail"]
    table = CliRunner().invoke(participant, ["check", "--config", str(silo.config)]).output
    assert "warning" in table


async def begun(silo: Silo) -> tuple[Daemon, list[MutableMapping[str, Any]]]:
    """A daemon at its start, and what it logged."""
    settings = load_config(silo.config, ParticipantSettings, environment={})
    daemon = Daemon(settings, check_identity(settings), consortium=None, environment={}, metrics=ParticipantMetrics)
    with capture_logs() as logs:
        daemon._begin()
    await daemon._close()
    return daemon, logs


def test_a_daemon_with_a_doubtful_journal_says_so_loudly_and_takes_part_in_nothing(silo: Silo) -> None:
    silo.journal().record_plan(PLAN, jobspec_digest(PLAN.value.jobspec))
    silo.journal().set_generation(5)
    marker_path(silo.key).write_text(json.dumps({"journal": silo.journal().name().name, "generation": 6}))
    daemon, logs = asyncio.run(begun(silo))
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("journal_doubtful", "error")]
    assert "confirm-journal" in logs[0]["advice"]
    assert daemon._driver._around.policy.journal_doubtful
    assert daemon._driver.open_rounds == ()
    assert silo.journal().open_rounds() != [], "what it holds is kept, for the person who looks"


def test_a_daemon_with_its_own_journal_goes_on(silo: Silo) -> None:
    daemon, logs = asyncio.run(begun(silo))
    assert logs == []
    assert not daemon._driver._around.policy.journal_doubtful


def test_check_says_how_much_room_is_free_and_warns_below_what_the_daemon_leaves(tmp_path: Path) -> None:
    roomy = Silo(tmp_path / "roomy").checked("data folder")
    assert (roomy["ok"], roomy["warning"]) == (True, False)
    assert re.search(r"is writable, no daemon uses it, [0-9.]+ GB free$", roomy["detail"])
    with small_disk(tmp_path / "small", size=ROOM_LEFT_BYTES // 2):
        tight = Silo(tmp_path / "small").checked("data folder")
    assert (tight["ok"], tight["warning"]) == (True, True)
    assert re.search(r" has [0-9.]+ MiB free, and the daemon leaves 64 MiB free: ", tight["detail"])
    assert tight["advice"].startswith("make room there")
