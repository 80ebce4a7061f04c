from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.client.job_file import MaskingTable, RoundTable, load_job_file
from shared.errors import ConfigError
from shared.ids import Digest
from shared.job import MaskingSpec, RoundPolicy, parse_jobspec

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
PLAIN = '[masking]\nmode = "plain"\n'


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
    assert (spec.strategy.name, spec.training) == ("fedavg", {})
    assert spec.masking == MaskingSpec(
        mode="masked",
        max_colluding=1,
        encoding="u32",
        weights="examples",
        max_weight=2.0**24,
        metric_bound=1024.0,
        allow_two_party=False,
        allow_no_collusion=False,
        protocol="fedsecagg/v1",
        suite=1,
    )
    assert (spec.threshold, spec.floor, spec.round.exchange_deadline_s) == (3, 3, 30.0)
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


def of(members: int) -> str:
    """The file of a job with that many members."""
    names = ", ".join(f'"h-{number}"' for number in range(members))
    return JOB.replace('"hospital-d", "hospital-a", "hospital-c", "hospital-b"', names)


@pytest.mark.parametrize(("members", "floor"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_the_floor_of_a_plain_job_follows_the_members(tmp_path: Path, members: int, floor: int) -> None:
    spec = load_job_file(write(tmp_path, of(members) + PLAIN)).spec
    assert (spec.round.quorum, spec.round.min_survivors, spec.floor) == (members, floor, floor)
    assert (spec.masking.mode, spec.masking.max_colluding) == ("plain", 0)


# members, c, t
COLLUDING = [(2, 0, 2), (3, 1, 3), (4, 1, 3), (5, 1, 4), (6, 1, 4), (7, 2, 5), (8, 2, 6), (9, 2, 6), (10, 3, 7),
             (11, 3, 8), (12, 3, 8)]  # fmt: skip


@pytest.mark.parametrize(("members", "colluding", "needed"), COLLUDING)
def test_how_many_may_collude_follows_the_members(tmp_path: Path, members: int, colluding: int, needed: int) -> None:
    tables = "[masking]\nallow_two_party = true\n" if members == 2 else ""
    spec = load_job_file(write(tmp_path, of(members) + tables)).spec
    assert (spec.masking.max_colluding, spec.threshold, spec.floor) == (colluding, needed, max(needed, min(members, 3)))
    assert parse_jobspec(spec.to_bytes()) == spec


def test_what_is_said_of_masking_is_kept(tmp_path: Path) -> None:
    said = """
[masking]
max_colluding = 0
allow_no_collusion = true
encoding = "u16"
weights = "equal"
max_weight = 1
metric_bound = 0.5
[round]
exchange_deadline_s = 5
"""
    spec = load_job_file(write(tmp_path, JOB + said)).spec
    assert spec.masking == MaskingSpec(
        max_colluding=0, allow_no_collusion=True, encoding="u16", weights="equal", max_weight=1.0, metric_bound=0.5
    )
    assert spec.round.exchange_deadline_s == 5.0
    assert parse_jobspec(spec.to_bytes()) == spec


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
    "a missing name": (('name = "heart"\n', ""), "name: it is missing"),
    "no members": (
        ('"hospital-d", "hospital-a", "hospital-c", "hospital-b"', ""),
        "members: expected at least 1 in the list",
    ),
    "members that are no list": (
        ('["hospital-d", "hospital-a", "hospital-c", "hospital-b"]', '"hospital-a"'),
        "members: .*got 'hospital-a'",
    ),
    "a member twice": (('"hospital-d"', '"hospital-a"'), "'hospital-a' is there twice"),
    "a metric twice": (('"loss", "accuracy"', '"loss", "loss"'), "'loss' is there twice"),
    "a member that is no name": (('"hospital-d"', '"Hospital D"'), "members.0: .*a-z, 0-9"),
    "rounds as text": (("rounds = 10", 'rounds = "10"'), "rounds: expected a whole number, got '10'"),
    "no rounds": (("rounds = 10", "rounds = 0"), "rounds: expected at least 1.*got 0"),
    "a quorum of too many": (("seed = 42", ""), "round.quorum is 5, but the job has 4 members"),
    "an unknown strategy": (("seed = 42", ""), "strategy.name: .*'fedavg', not 'fedprox'"),
    "no such mode": (("seed = 42", ""), "masking.mode: .*'masked' or 'plain'.*got 'off'"),
    "a misspelt key of masking": (("seed = 42", ""), "masking.max_coluding: unknown key; expected one of allow_no"),
    "no such encoding": (("seed = 42", ""), "masking.encoding: .*'u32', 'u16' or 'u64'.*got 'u8'"),
    "no such weights": (("seed = 42", ""), "masking.weights: .*'examples' or 'equal'.*got 'steps'"),
    "weights below one example": (("seed = 42", ""), "masking.max_weight: expected at least 1.*got 0.5"),
    "a bound of nothing": (("seed = 42", ""), "masking.metric_bound: expected more than 0.*got 0.0"),
    "fewer than nobody": (("seed = 42", ""), "masking.max_colluding: expected at least 0.*got -1"),
    "no time for an exchange": (("seed = 42", ""), "round.exchange_deadline_s: expected more than 0.*got 0"),
    "one member": (('"hospital-d", "hospital-a", "hospital-c", "hospital-b"', '"h"'), "at least 2 members"),
    "two members": (
        ('"hospital-d", "hospital-a", "hospital-c", "hospital-b"', '"h", "i"'),
        "with 2 members each learns the other's update.*masking.allow_two_party",
    ),
    "two members, one of whom colludes": (
        ('"hospital-d", "hospital-a", "hospital-c", "hospital-b"', '"h", "i"'),
        "masking.max_colluding is 1 of 2 members: at least 2 must be left",
    ),
    "nobody colludes": (("seed = 42", ""), "masking.max_colluding is 0: .*leave the key out, or set masking.allow_no_"),
    "too many collude": (("seed = 42", ""), "masking.max_colluding is 3 of 4 members: at least 2 must be left"),
    "a quorum below the threshold": (
        ("seed = 42", ""),
        "round.quorum is 3, but 4 of 4 members are needed to open a total .masking.max_colluding is 2.",
    ),
    "a total over two": (("seed = 42", ""), "round.min_survivors is 2, a masked total is over at least 3"),
    "totals that could overflow": (
        ("seed = 42", ""),
        "totals of metrics of 4 members could overflow: lower masking.max",
    ),
    "a strategy that sees each update": (("seed = 42", ""), "'median' must see each update, and masking hides them"),
    "collusion in the open": (("seed = 42", ""), "masking.max_colluding means nothing in a plain job: expected 0"),
    "a quorum below the default floor": (("seed = 42", ""), "round.quorum: 2 is below the 3 updates"),
    "a floor above the quorum": (("seed = 42", ""), "round.min_survivors is 4, above round.quorum 3"),
    "a date": (("seed = 42", ""), "got the date 2026-01-01"),
    "not a number": (("seed = 42", ""), "training: .*NaN"),
    "a deadline in the past": (("seed = 42", ""), "round.deadline_s: expected more than 0.*got -1"),
    "a quorum of none": (("seed = 42", ""), "round.quorum: expected at least 1.*got 0"),
    "an initial that is not there": (("initial.safetensors", "lost.safetensors"), "initial: .*init-model"),
    "a short digest": (("initial.safetensors", "model:12ab"), "initial: expected 64 .* model list --json"),
    "not TOML": (("rounds = 10", "rounds 10"), "not TOML"),
}
TABLES = {
    "a misspelt key in a table": "[round]\nqourum = 2\n",
    "a quorum of too many": "[round]\nquorum = 5\n",
    "an unknown strategy": '[strategy]\nname = "fedprox"\n',
    "no such mode": '[masking]\nmode = "off"\n',
    "a misspelt key of masking": "[masking]\nmax_coluding = 1\n",
    "no such encoding": '[masking]\nencoding = "u8"\n',
    "no such weights": '[masking]\nweights = "steps"\n',
    "weights below one example": "[masking]\nmax_weight = 0.5\n",
    "a bound of nothing": "[masking]\nmetric_bound = 0\n",
    "fewer than nobody": "[masking]\nmax_colluding = -1\n",
    "no time for an exchange": "[round]\nexchange_deadline_s = 0\n",
    "two members, one of whom colludes": "[masking]\nmax_colluding = 1\nallow_two_party = true\n",
    "nobody colludes": "[masking]\nmax_colluding = 0\n",
    "too many collude": "[masking]\nmax_colluding = 3\n",
    "a quorum below the threshold": "[masking]\nmax_colluding = 2\n[round]\nquorum = 3\n",
    "a total over two": "[round]\nmin_survivors = 2\n",
    "totals that could overflow": "[masking]\nmax_weight = 4e9\n",
    "a strategy that sees each update": '[strategy]\nname = "median"\n',
    "collusion in the open": '[masking]\nmode = "plain"\nmax_colluding = 1\n',
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


def test_every_rule_of_masking_can_be_said_but_what_a_version_has_one_of() -> None:
    assert MaskingTable.model_fields.keys() == MaskingSpec.model_fields.keys() - {"protocol", "suite"}
