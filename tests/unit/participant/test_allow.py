"""`consilo participant allow`: what a person at the silo answers for, beside a daemon that runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from participant.cli import participant
from participant.journal import SqliteJournal
from participant.journal_file import JOURNAL_FILE
from participant.startup import lock_folder
from shared.errors import ConfigError
from shared.ids import JobId
from shared.job import jobspec_digest
from tests.support.credentials import Consortium
from tests.support.rounds import make_plan, make_spec

HEART = JobId("heart-1")
PLAN = make_plan(make_spec())


class Silo:
    """A configured participant with a journal."""

    def __init__(self, folder: Path) -> None:
        credentials = Consortium(folder / "pki").participant("hospital-a")
        self.data, self.config = folder / "data", folder / "participant.toml"
        tls = credentials.tls
        self.config.write_text(
            f'[participant]\nid = "hospital-a"\ncoordinators = ["localhost:1"]\ndata_dir = "{self.data}"\n'
            f'[tls]\ncertificate = "{tls.certificate}"\nkey = "{tls.key}"\nca = "{tls.ca}"\n'
            f'[signing]\ncertificate = "{credentials.signing_certificate}"\nkey = "{credentials.signing_key_path}"\n'
            '[policy]\nallowed_repeats = ["lung-1"]\n'
        )
        self.data.mkdir()
        self.journal = SqliteJournal(self.data / JOURNAL_FILE)  # as a daemon holds it

    def allow(self, *arguments: str, answer: str = "") -> Result:
        return CliRunner().invoke(participant, ["allow", "--config", str(self.config), *arguments], input=answer)

    def listed(self) -> list[tuple[str, str]]:
        result = self.allow("--json")
        return [(row["job"], row["by"]) for row in json.loads(result.stdout)]


@pytest.fixture
def silo(tmp_path: Path) -> Silo:
    return Silo(tmp_path)


def test_a_running_daemon_knows_at_once(silo: Silo) -> None:
    with lock_folder(silo.data):
        assert not silo.journal.repeat_allowed(HEART)
        assert silo.allow("heart-1", "--yes").exit_code == 0
        assert silo.journal.repeat_allowed(HEART)
        assert silo.listed() == [("lung-1", "policy.allowed_repeats"), ("heart-1", "this command")]
        assert silo.allow("heart-1", "--undo").exit_code == 0
        assert not silo.journal.repeat_allowed(HEART)


def test_a_person_is_told_what_it_costs_and_asked(silo: Silo) -> None:
    silo.journal.record_plan(PLAN, jobspec_digest(PLAN.value.jobspec))
    refused = silo.allow("heart-1", answer="n\n")
    assert isinstance(refused.exception, ConfigError)
    assert f"has the specification {jobspec_digest(PLAN.value.jobspec)}" in refused.stderr
    assert "learn this silo's update" in refused.stderr
    assert not silo.journal.repeat_allowed(HEART)
    accepted = silo.allow("heart-1", "--json", answer="y\n")
    assert json.loads(accepted.stdout)[1] == {"job": "heart-1", "by": "this command"}
    assert silo.journal.repeat_allowed(HEART)


def test_a_job_may_be_allowed_before_it_is_known_and_twice(silo: Silo) -> None:
    assert "is not known here yet" in silo.allow("heart-9", "--yes").stderr
    assert silo.allow("heart-9", "--yes").exit_code == 0
    assert [job for job, _ in silo.listed()] == ["lung-1", "heart-9"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(("Heart 1",), "a job id has"), (("--undo",), "which job"), (("--yes",), "which job")],
)
def test_what_makes_no_sense_is_a_usage_error(silo: Silo, arguments: tuple[str, ...], why: str) -> None:
    result = silo.allow(*arguments)
    assert result.exit_code == 2
    assert why in result.stderr


def test_what_was_not_allowed_cannot_be_taken_back(silo: Silo) -> None:
    assert "is not among those" in str(silo.allow("lung-1", "--undo").exception)  # that one stands in the configuration


def test_no_journal_is_made_for_it(silo: Silo) -> None:
    silo.journal.close()
    (silo.data / JOURNAL_FILE).unlink()
    assert "taken part in nothing" in str(silo.allow("heart-1", "--yes").exception)
    assert not (silo.data / JOURNAL_FILE).exists()
