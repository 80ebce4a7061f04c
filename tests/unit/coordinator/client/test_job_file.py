from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.client.job_file import RoundTable, load_job_file
from shared.errors import ConfigError
from shared.ids import Digest
from shared.job import RoundPolicy, parse_jobspec

MODEL = b"the bytes of a model"
JOB = """\
name = "heart"
task = "heart"
members = ["hospital-d", "hospital-a", "hospital-c", "hospital-b"]
rounds = 10
seed = 42
initial = "initial.safetensors"
metrics = ["loss", "accuracy"]
"""


def write(folder: Path, text: str) -> Path:
    (folder / "initial.safetensors").write_bytes(MODEL)
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_defaults_are_resolved(tmp_path: Path) -> None:
    request = load_job_file(write(tmp_path, JOB))
    spec = request.spec
    assert spec.members == ("hospital-a", "hospital-b", "hospital-c", "hospital-d")
    assert spec.metrics == ("loss", "accuracy")  # their order is that of the cells of an update
    assert (spec.round.quorum, spec.round.min_survivors) == (4, 3)
    assert (spec.strategy.name, spec.masking.mode, spec.training) == ("fedavg", "plain", {})
    assert spec.initial == str(Digest.of(MODEL))
    assert request.initial == tmp_path / "initial.safetensors"
    assert request.opening is not None
    assert request.opening.model_bytes == len(MODEL)
    assert parse_jobspec(spec.to_bytes()) == spec


def test_the_order_of_members_changes_nothing(tmp_path: Path) -> None:
    other = JOB.replace('"hospital-d", "hospital-a"', '"hospital-a", "hospital-d"')
    first = load_job_file(write(tmp_path, JOB)).spec.to_bytes()
    assert load_job_file(write(tmp_path, other)).spec.to_bytes() == first


def test_what_is_said_is_kept(tmp_path: Path) -> None:
    tables = "[round]\nquorum = 3\ndeadline_s = 600\ngrace_s = 1.5\n[training]\nlearning_rate = 0.05\nlayers = [8, 4]\n"
    spec = load_job_file(write(tmp_path, JOB + tables)).spec
    assert (spec.round.quorum, spec.round.deadline_s, spec.round.grace_s) == (3, 600.0, 1.5)
    assert spec.training == {"learning_rate": 0.05, "layers": [8, 4]}


@pytest.mark.parametrize(("members", "floor"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_the_floor_follows_the_members(tmp_path: Path, members: int, floor: int) -> None:
    names = ", ".join(f'"h-{number}"' for number in range(members))
    text = JOB.replace('"hospital-d", "hospital-a", "hospital-c", "hospital-b"', names)
    policy = load_job_file(write(tmp_path, text)).spec.round
    assert (policy.quorum, policy.min_survivors) == (members, floor)


def test_a_job_goes_on_from_a_version(tmp_path: Path) -> None:
    digest = Digest.of(b"a version")
    request = load_job_file(write(tmp_path, JOB.replace("initial.safetensors", f"model:{digest}")))
    assert request.spec.initial_model == digest
    assert request.initial is None
    assert request.opening is None


REFUSED = {
    "a misspelt key": (("seed = 42", "sede = 42"), "sede: unknown key; expected one of initial, masking, members"),
    "a misspelt key in a table": (
        ("seed = 42", ""),
        "round.qourum: unknown key; expected one of aborted_rounds_allowed, attempts",
    ),
    "a missing name": (('name = "heart"\n', ""), "name: Field required"),
    "no members": (('"hospital-d", "hospital-a", "hospital-c", "hospital-b"', ""), "members: .*at least 1 item"),
    "members that are no list": (
        ('["hospital-d", "hospital-a", "hospital-c", "hospital-b"]', '"hospital-a"'),
        "members: .*got 'hospital-a'",
    ),
    "a member twice": (('"hospital-d"', '"hospital-a"'), "'hospital-a' is there twice"),
    "a metric twice": (('"loss", "accuracy"', '"loss", "loss"'), "'loss' is there twice"),
    "a member that is no name": (('"hospital-d"', '"Hospital D"'), "members.0: .*a-z, 0-9"),
    "rounds as text": (("rounds = 10", 'rounds = "10"'), "rounds: .*valid integer.*got '10'"),
    "no rounds": (("rounds = 10", "rounds = 0"), "rounds: .*greater than or equal to 1.*got 0"),
    "a quorum of too many": (("seed = 42", ""), "round.quorum is 5, but the job has 4 members"),
    "an unknown strategy": (("seed = 42", ""), "strategy.name: .*'fedavg'.*got 'median'"),
    "masking that is not there yet": (("seed = 42", ""), "masking.mode: .*'plain'.*got 'masked'"),
    "a quorum below the default floor": (("seed = 42", ""), "round.quorum: 2 is below the 3 updates"),
    "a floor above the quorum": (("seed = 42", ""), "round.min_survivors is 4, above round.quorum 3"),
    "a date": (("seed = 42", ""), "got the date 2026-01-01"),
    "not a number": (("seed = 42", ""), "training: .*NaN"),
    "a deadline in the past": (("seed = 42", ""), "round.deadline_s: .*greater than 0.*got -1"),
    "a quorum of none": (("seed = 42", ""), "round.quorum: .*greater than or equal to 1.*got 0"),
    "an initial that is not there": (("initial.safetensors", "lost.safetensors"), "initial: .*init-model"),
    "a short digest": (("initial.safetensors", "model:12ab"), "initial: expected 64 .* model list --json"),
    "not TOML": (("rounds = 10", "rounds 10"), "not TOML"),
}
TABLES = {
    "a misspelt key in a table": "[round]\nqourum = 2\n",
    "a quorum of too many": "[round]\nquorum = 5\n",
    "an unknown strategy": '[strategy]\nname = "median"\n',
    "masking that is not there yet": '[masking]\nmode = "masked"\n',
    "a quorum below the default floor": "[round]\nquorum = 2\n",
    "a floor above the quorum": "[round]\nquorum = 3\nmin_survivors = 4\n",
    "a date": "[training]\nsince = 2026-01-01\n",
    "a deadline in the past": "[round]\ndeadline_s = -1\n",
    "a quorum of none": "[round]\nquorum = 0\n",
    "not a number": "[training]\nrate = nan\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_named(tmp_path: Path, name: str) -> None:
    (old, new), complaint = REFUSED[name]
    path = write(tmp_path, JOB.replace(old, new) + TABLES.get(name, ""))
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_job_file(path)
    assert "job.toml" in str(caught.value)


def test_an_empty_initial_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, JOB)
    (tmp_path / "initial.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="is empty"):
        load_job_file(path)


def test_every_rule_of_a_round_can_be_said() -> None:
    assert RoundTable.model_fields.keys() == RoundPolicy.model_fields.keys()
