"""`consilo job`, `consilo model` and `consilo audit` against a service that speaks the wire, over mutual TLS."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.audit import head_of
from coordinator.checkpoints import describe_version
from coordinator.client.connection import byte_progress
from coordinator.client.operations import Operations
from coordinator.client.rpc import OperationsChannel
from coordinator.client.views import summary_of
from shared.errors import UnreachableError
from shared.ids import Digest, JobId, ParticipantId, RoundKey, RoundNumber
from shared.job import MaskingSpec, StrategySpec, canonical_json, jobspec_digest, parse_jobspec
from shared.reasons import DropReason, JobState, Purpose
from shared.tensors import ModelIndex
from shared.update import CHUNK_BYTES, DType, ModelManifest, TensorSpec
from shared.wire.operations import JobDetail, ModelStatus, PutModelOpen, RoundStatus
from tests.support.audit_log import some_entries
from tests.support.credentials import Consortium
from tests.support.fake_operations import MEMBERS, FakeOperations, Listening, a_spec, committed, live, status
from tests.support.models import model_bytes
from tests.support.operator_commands import run, write_config

LARGE = ModelManifest.of([TensorSpec("weights", DType.F32, (CHUNK_BYTES // 4 + 17,))])  # more than one chunk
JOB = JobId("heart-0011aabb")


def job_file(folder: Path) -> Path:
    (folder / "initial.safetensors").write_bytes(model_bytes(LARGE, {"weights": bytes(LARGE.tensors[0].data_bytes)}))
    path = folder / "job.toml"
    path.write_text(
        'name = "heart"\ntask = "heart"\nmembers = ["hospital-b", "hospital-c", "hospital-a"]\nrounds = 3\n'
        'initial = "initial.safetensors"\n'
    )
    return path


# --- job --------------------------------------------------------------------------------------------------------------


def test_submit_sends_the_initial_model_and_the_job(config: Path, fake: FakeOperations, tmp_path: Path) -> None:
    result = run(config, "job", "submit", job_file(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["job"].startswith("heart-")
    assert len(told["job"]) == len("heart-") + 8
    (digest,) = fake.files
    assert fake.files[digest] == (tmp_path / "initial.safetensors").read_bytes()
    spec = parse_jobspec(fake.jobs[JobId(told["job"])].job.spec)
    assert (spec.initial_model, spec.members) == (digest, MEMBERS)


def test_what_a_silo_approves_is_told_before_and_after_the_job_is_submitted(
    config: Path, fake: FakeOperations, tmp_path: Path
) -> None:
    path = job_file(tmp_path)
    alone = run(tmp_path / "no-operator.toml", "job", "digest", path, "--json")
    assert alone.exit_code == 0, alone.output
    told = json.loads(alone.stdout)["specification"]
    assert not fake.jobs
    assert json.loads(run(config, "job", "submit", path, "--id", JOB, "--json").stdout)["specification"] == told
    assert told == str(jobspec_digest(fake.jobs[JOB].job.spec))
    assert json.loads(run(config, "job", "show", JOB, "--json").stdout)["specification"] == told
    for command in (("digest", path), ("submit", path, "--id", JOB), ("show", JOB)):
        assert told in run(config, "job", *command).stdout


def test_a_repeated_submission_is_the_same_job_and_another_one_is_refused(
    config: Path, fake: FakeOperations, tmp_path: Path
) -> None:
    path = job_file(tmp_path)
    for _ in range(2):
        assert run(config, "job", "submit", path, "--id", JOB).exit_code == 0
    path.write_text(path.read_text().replace("rounds = 3", "rounds = 4"))
    result = run(config, "job", "submit", path, "--id", JOB)
    assert result.exit_code == 1
    assert result.stderr == f"error: job {JOB} exists with another specification: choose another id\n"
    assert len(fake.jobs) == 1


def test_a_mistake_in_the_job_file_is_one_line(config: Path, tmp_path: Path) -> None:
    path = job_file(tmp_path)
    path.write_text(path.read_text() + "quorom = 2\n")
    result = run(config, "job", "submit", path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {path}: quorom: unknown key; expected one of")
    assert result.stderr.count("\n") == 1


def test_list_and_show(config: Path, fake: FakeOperations) -> None:
    rounds = (committed(JOB, 1, dropped={"hospital-c": "disconnected"}),)
    fake.jobs[JOB] = JobDetail(job=status(JOB, state=JobState.RUNNING), rounds=rounds, live=live(JOB, 2))
    listed = run(config, "job", "list")
    assert JOB in listed.stdout
    assert "running" in listed.stdout
    assert json.loads(run(config, "job", "list", "--json").stdout)[0]["members"] == list(MEMBERS)
    shown = run(config, "job", "show", JOB).stdout
    for part in (
        "evaluate",
        "0.5000",
        "0.7500",
        "2/3",
        "hospital-c: disconnected",
        "round 2 (train): recruiting",
        "40 %",
    ):
        assert part in shown
    told = json.loads(run(config, "job", "show", JOB, "--json").stdout)
    assert told["rounds_committed"] == 1
    assert told["finished"][0]["dropped"] == {"hospital-c": "disconnected"}
    assert told["live"]["members"][0] == {
        "participant": "hospital-a",
        "phase": "training",
        "connected": True,
        "percent": 40,
    }


def test_how_updates_are_protected_is_shown(config: Path, fake: FakeOperations) -> None:
    fake.jobs[JOB] = JobDetail(job=status(JOB, state=JobState.RUNNING), rounds=(), live=live(JOB, 1, phase="sharing"))
    shown = run(config, "job", "show", JOB).stdout
    assert "masked u32, 3 of 3 must help to open a total, 1 may collude" in shown
    assert "round 1 (train): sharing (sealed shares)" in shown
    told = json.loads(run(config, "job", "list", "--json").stdout)[0]["masking"]
    assert told == {
        "mode": "masked",
        "encoding": "u32",
        "weights": "examples",
        "members": 3,
        "threshold": 3,
        "max_colluding": 1,
    }
    plain = a_spec(masking=MaskingSpec(mode="plain", max_colluding=0)).to_bytes()
    fake.jobs[JOB] = JobDetail(job=status(JOB, spec=plain), rounds=(), live=None)
    assert "plain: the coordinator sees each update" in run(config, "job", "show", JOB).stdout
    assert json.loads(run(config, "job", "show", JOB, "--json").stdout)["masking"] == {"mode": "plain"}


def test_why_a_job_waits_is_shown(config: Path, fake: FakeOperations) -> None:
    waiting = status(JOB, reason="1 of quorum 2; not connected: hospital-b")
    fake.jobs[JOB] = JobDetail(job=waiting, rounds=(), live=None)
    assert "waits for" in run(config, "job", "show", JOB).stdout
    assert "not connected: hospital-b" in run(config, "job", "show", JOB).stdout


def test_whom_a_job_is_bound_to_is_shown_until_its_model_is_another_one(config: Path, fake: FakeOperations) -> None:
    summary = {"reason": "unopenable", "dropped": {"hospital-c": "absent"}, "opened": ["hospital-a", "hospital-b"]}
    key = RoundKey(JOB, RoundNumber(2))
    unopenable = RoundStatus(key=key, purpose=Purpose.TRAIN, outcome="unopenable", summary=canonical_json(summary))
    missed = replace(
        unopenable, key=RoundKey(JOB, RoundNumber(3)), outcome="below_quorum", summary=canonical_json({"dropped": {}})
    )
    running = status(JOB, state=JobState.RUNNING)
    told = "rounds on it ask hospital-a, hospital-b alone"
    rounds = (committed(JOB, 1), unopenable, missed)
    for state, finished, bound in (
        (JobState.RUNNING, rounds, ["hospital-a", "hospital-b"]),
        (JobState.RUNNING, (*rounds, committed(JOB, 4)), []),
        (JobState.ABORTED, rounds, []),
    ):
        fake.jobs[JOB] = JobDetail(job=replace(running, state=state), rounds=finished, live=None)
        shown = " ".join(run(config, "job", "show", JOB).stdout.split())
        assert (told in shown) is bool(bound)
        said = json.loads(run(config, "job", "show", JOB, "--json").stdout)
        assert said["bound_to"] == bound
        assert said["finished"][1]["opened"] == ["hospital-a", "hospital-b"]


def refused_round(number: int) -> RoundStatus:
    """One that two silos left: one since it would be another total on the model, and one since it restarted."""
    left = {"hospital-a": "repeated_total", "hospital-b": "gone"}
    summary = {"reason": "below_floor", "dropped": dict.fromkeys(left, "attempt_left"), "left": left}
    key = RoundKey(JOB, RoundNumber(number))
    return RoundStatus(key=key, purpose=Purpose.TRAIN, outcome="below_floor", summary=canonical_json(summary))


def test_for_what_a_silo_left_is_shown_and_what_to_do_about_a_repeated_total(
    config: Path, fake: FakeOperations
) -> None:
    running = status(JOB, state=JobState.RUNNING)
    rounds = (committed(JOB, 1), refused_round(2))
    for state, finished, advice in (
        (JobState.RUNNING, rounds, f"run `consilo participant allow {JOB}`"),
        (JobState.ABORTED, rounds, "run `consilo participant allow JOB` with the id of the new job"),
        (JobState.RUNNING, (*rounds, committed(JOB, 3)), ""),  # of the new model nothing was opened
    ):
        fake.jobs[JOB] = JobDetail(job=replace(running, state=state), rounds=finished, live=None)
        shown = " ".join(run(config, "job", "show", JOB).stdout.split())
        assert ("hospital-a left an attempt (repeated_total)" in shown) is bool(advice)
        assert ("participant allow" in shown) is bool(advice)
        assert advice in shown
        said = json.loads(run(config, "job", "show", JOB, "--json").stdout)
        assert said["finished"][1]["left"] == {"hospital-a": "repeated_total", "hospital-b": "gone"}
        assert said["finished"][0]["left"] == {}


def test_for_what_a_silo_left_is_in_the_lines_of_a_watcher_and_in_the_table(config: Path, fake: FakeOperations) -> None:
    detail = JobDetail(job=status(JOB, state=JobState.COMPLETED), rounds=(refused_round(1),), live=None)
    fake.watched[JOB], fake.jobs[JOB] = [detail], detail
    watched = run(config, "job", "watch", JOB).stdout
    assert "without hospital-a: attempt_left (repeated_total), without hospital-b: attempt_left (gone)" in watched
    (column,) = summary_of(refused_round(1)).left_out[:1]
    assert column == "hospital-a: attempt_left (repeated_total)"
    other = {"dropped": {"hospital-a": "revoked"}, "left": {"hospital-a": "gone"}}
    summary = summary_of(replace(refused_round(1), summary=canonical_json(other)))
    assert list(summary.left_out) == ["hospital-a: revoked"], "it is missing for another reason"


def test_by_which_rule_a_silo_declined_is_shown(config: Path, fake: FakeOperations) -> None:
    dropped = {"hospital-a": "declined", "hospital-b": "absent", "hospital-c": "of a later version"}
    told = {"reason": "below_quorum", "dropped": dropped, "rules": {"hospital-a": "two_party", "hospital-b": "odd"}}
    declined = replace(refused_round(1), summary=canonical_json(told))
    detail = JobDetail(job=status(JOB, state=JobState.COMPLETED), rounds=(declined,), live=None)
    fake.watched[JOB], fake.jobs[JOB] = [detail], detail
    watched = run(config, "job", "watch", JOB).stdout
    assert "without hospital-a: declined (two_party), without hospital-b: absent, without hospital-c" in watched


def watch_of(end: JobState, reason: str = "") -> list[JobDetail]:
    running = status(JOB, state=JobState.RUNNING)
    return [
        JobDetail(job=status(JOB), rounds=(), live=None),
        JobDetail(job=running, rounds=(committed(JOB, 1),), live=live(JOB, 2)),
        JobDetail(job=running, rounds=(), live=live(JOB, 2)),
        JobDetail(job=replace(running, state=end, reason=reason), rounds=(committed(JOB, 2),), live=None),
    ]


def test_watch_tells_each_round_once_and_ends_with_the_job(config: Path, fake: FakeOperations) -> None:
    fake.watched[JOB] = watch_of(JobState.COMPLETED)
    fake.jobs[JOB] = fake.watched[JOB][-1]
    result = run(config, "job", "watch", JOB)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{JOB}: queued, masked u32, 3 of 3"
    assert [line[:8] for line in lines if line.startswith("round")] == ["round 1 ", "round 2 "]
    assert lines[-1] == f"{JOB}: completed", "the end is said last"
    told = [json.loads(line) for line in run(config, "job", "watch", JOB, "--json").stdout.splitlines()]
    assert [[finished["round"] for finished in line["finished"]] for line in told] == [[], [1], [], [2]]
    assert [line["rounds_committed"] for line in told] == [0, 1, 1, 2]


def test_watching_an_aborted_job_is_a_failure(config: Path, fake: FakeOperations) -> None:
    fake.watched[JOB] = watch_of(JobState.ABORTED, "operator: enough")
    fake.jobs[JOB] = fake.watched[JOB][-1]
    result = run(config, "job", "watch", JOB)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].endswith("aborted (operator: enough)")


def test_a_watch_that_is_cut_short_says_so(config: Path, fake: FakeOperations) -> None:
    fake.watched[JOB] = watch_of(JobState.COMPLETED)[:2]
    fake.jobs[JOB] = fake.watched[JOB][-1]
    result = run(config, "job", "watch", JOB)
    assert result.exit_code == 1
    assert "the job is not over" in result.stderr


def test_abort_says_why(config: Path, fake: FakeOperations) -> None:
    fake.jobs[JOB] = JobDetail(job=status(JOB), rounds=(), live=None)
    told = json.loads(run(config, "job", "abort", JOB, "--reason", "wrong seed", "--json").stdout)
    assert (told["state"], told["reason"]) == ("aborted", "operator: wrong seed")


def test_a_file_s_name_beside_its_bar_is_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    with byte_progress("sending [/x]\a.safetensors", 8) as told:
        told(8)
    assert "sending [/x]?.safetensors" in capsys.readouterr().err


def test_the_list_has_the_queue_in_order(config: Path, fake: FakeOperations) -> None:
    states = {"a": JobState.COMPLETED, "b": JobState.QUEUED, "c": JobState.PAUSED, "d": JobState.QUEUED}
    for name, state in states.items():
        fake.jobs[JobId(name)] = JobDetail(job=status(JobId(name), state=state), rounds=(), live=None)
    told = json.loads(run(config, "job", "list", "--json").stdout)
    assert [(job["job"], job["place_in_queue"]) for job in told] == [("a", None), ("b", 1), ("c", None), ("d", 2)]
    assert "queued (2)" in run(config, "job", "list").stdout


def test_a_job_that_is_not_there(config: Path) -> None:
    for command in (["show"], ["watch"], ["abort"], ["pause"], ["resume"], ["control", "--reset"]):
        result = run(config, "job", *command, JOB)
        assert (result.exit_code, result.stderr) == (1, f"error: there is no job {JOB}\n")


def test_a_job_id_that_is_none_is_wrong_use(config: Path) -> None:
    assert run(config, "job", "show", "Heart 1").exit_code == 2


# --- model ------------------------------------------------------------------------------------------------------------


def a_version(data: bytes, number: int) -> ModelStatus:
    digest = Digest.of(data)
    manifest = ModelManifest.of([TensorSpec("weight", DType.F32, (4, 2))])
    description = describe_version(
        digest=digest,
        parent=Digest.of(b"parent"),
        index=ModelIndex(manifest, {}, {"weight": 0}, 32),
        key=RoundKey(JOB, RoundNumber(number)),
        survivors=[ParticipantId("hospital-a")],
        dropped={ParticipantId("hospital-b"): DropReason.UPLOAD_LATE},
        weight_total=10.0,
        totals={"train.weight": 10.0, "train.loss": 5.0, "evaluate.weight": 0.0, "evaluate.loss": 0.0},
        strategy=StrategySpec(),
    )
    return ModelStatus(digest, description)


@pytest.fixture
def versions(fake: FakeOperations) -> list[bytes]:
    files = [bytes([number]) * (CHUNK_BYTES + number) for number in (1, 2)]
    for number, data in enumerate(files, start=1):
        fake.files[Digest.of(data)] = data
        fake.models.append(a_version(data, number))
    return files


def test_models_are_listed_and_shown(config: Path, versions: list[bytes]) -> None:
    digest = str(Digest.of(versions[1]))
    listed = run(config, "model", "list")
    assert digest[:12] in listed.stdout
    assert len(json.loads(run(config, "model", "list", "--json", "--job", JOB).stdout)) == 2
    assert json.loads(run(config, "model", "list", "--json", "--job", "other").stdout) == []
    shown = run(config, "model", "show", digest[:6])
    assert "upload_late" in shown.stdout
    assert json.loads(run(config, "model", "show", digest, "--json").stdout)["round"] == 2


def test_what_is_kept_and_what_is_gone_is_shown(config: Path, fake: FakeOperations, versions: list[bytes]) -> None:
    old, new = (str(Digest.of(version)) for version in versions)
    fake.models[0] = replace(fake.models[0], pruned=True)
    made = run(config, "model", "promote", new[:8], "--json")
    assert json.loads(made.stdout) == {"model": new, "promoted": True, "changed": True}
    assert json.loads(run(config, "model", "promote", new, "--json").stdout)["changed"] is False
    rows = [line.strip("│ ").split() for line in run(config, "model", "promote", new).stdout.splitlines()]
    assert ["promoted", "│", "yes"] in rows
    assert ["changed", "│", "no"] in rows
    listed = json.loads(run(config, "model", "list", "--json").stdout)
    assert [(found["promoted"], found["pruned"]) for found in listed] == [(False, True), (True, False)]
    table = run(config, "model", "list").stdout
    assert ["pruned" in line for line in table.splitlines() if old[:12] in line] == [True]
    assert ["promoted" in line for line in table.splitlines() if new[:12] in line] == [True]
    assert "[retention] keep_versions" in run(config, "model", "show", old).stdout
    assert "it is kept for good" in run(config, "model", "show", new).stdout
    undone = run(config, "model", "promote", new, "--undo", "--json")
    assert json.loads(undone.stdout) == {"model": new, "promoted": False, "changed": True}
    refused = run(config, "model", "promote", old)
    assert refused.exit_code == 1
    assert "was pruned" in refused.stderr


def test_a_version_is_exported_whole_or_not_at_all(
    config: Path, fake: FakeOperations, versions: list[bytes], tmp_path: Path
) -> None:
    digest, out = Digest.of(versions[0]), tmp_path / "out" / "model.safetensors"
    out.parent.mkdir()
    result = run(config, "model", "export", str(digest)[:8], out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"model": str(digest), "path": str(out), "bytes": len(versions[0])}
    assert out.read_bytes() == versions[0]
    refused = run(config, "model", "export", digest, out)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    fake.files[digest] = versions[0][:-1] + b"x"
    wrong = run(config, "model", "export", digest, out, "--force")
    assert wrong.exit_code == 1
    assert "expected the bytes of model" in wrong.stderr
    assert out.read_bytes() == versions[0]
    assert [path.name for path in out.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("12", "at least its first 4 digits"), ("XYZW", "expected a model's digest"), ("0000", "has no model 0000")],
)
@pytest.mark.usefixtures("versions")
def test_a_digest_that_names_no_version(config: Path, text: str, complaint: str) -> None:
    result = run(config, "model", "show", text)
    assert result.exit_code == 1
    assert complaint in result.stderr


def test_an_abbreviation_of_two_versions(config: Path, fake: FakeOperations) -> None:
    description = a_version(b"", 1).description
    fake.models += [ModelStatus(Digest(b"\x12\x34" + bytes([number] * 30)), description) for number in (1, 2)]
    assert "2 models begin with 1234" in run(config, "model", "show", "1234").stderr


def test_the_coordinator_says_whether_a_model_was_new(
    config: Path, listening: Listening, consortium: Consortium, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"model")
    with OperationsChannel(address=f"127.0.0.1:{listening.port}", tls=consortium.operator().tls) as channel:
        for fresh in (True, False):
            with path.open("rb") as file:
                opening = PutModelOpen(Digest.of(b"model"), 5)
                assert Operations(channel).put_model(file, opening) is fresh


# --- audit ------------------------------------------------------------------------------------------------------------


def test_the_log_is_asked_from_the_coordinator_and_verified(
    config: Path, fake: FakeOperations, consortium: Consortium
) -> None:
    entries = some_entries(4, key=consortium.coordinator().signing_key)
    fake.audit = [entry.line for entry in entries]
    verified = run(config, "audit", "verify", "--head", head_of(entries[2]), "--json")
    assert verified.exit_code == 0, verified.output
    told = json.loads(verified.stdout)
    assert (told["entries"], told["tail_proven"], told["entries_after_head"]) == (4, True, 1)
    shown = run(config, "audit", "show", "--json", "--job", "heart-1")
    assert [json.loads(line)["seq"] for line in shown.stdout.strip().split("\n")] == [1, 3]
    assert shown.stderr == ""
    fake.audit[1] = fake.audit[1].replace(b"heart-1", b"heart-7")
    assert run(config, "audit", "verify").exit_code == 1


def test_a_log_in_a_file_needs_its_certificate(config: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"")
    assert run(config, "audit", "verify", "--log", log).exit_code == 2


# --- reaching the coordinator -----------------------------------------------------------------------------------------


def test_a_coordinator_that_is_not_there(consortium: Consortium, tmp_path: Path) -> None:
    config = write_config(tmp_path, consortium, "127.0.0.1:9")
    result = run(config, "job", "list")
    assert result.exit_code == 1
    assert "no connection to the coordinator at 127.0.0.1:9: nothing listens there: is the coordinator" in result.stderr


def test_the_command_line_says_where(consortium: Consortium, listening: Listening, tmp_path: Path) -> None:
    config = write_config(tmp_path, consortium, "127.0.0.1:9")
    result = run(config, "job", "list", "--json", "--coordinator", f"127.0.0.1:{listening.port}")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_an_operator_of_another_consortium_is_told_to_look_at_the_certificate(
    listening: Listening, consortium: Consortium, tmp_path: Path
) -> None:
    stranger = Consortium(tmp_path / "stranger", consortium="other.example").operator().tls
    tls = replace(stranger, ca=consortium.operator().tls.ca)
    with (
        OperationsChannel(address=f"127.0.0.1:{listening.port}", tls=tls) as channel,
        pytest.raises(UnreachableError, match="check this side's certificate"),
    ):
        Operations(channel).jobs()


def test_without_a_configuration_the_way_to_one_is_said(tmp_path: Path) -> None:
    result = run(tmp_path / "operator.toml", "job", "list")
    assert result.exit_code == 1
    assert "CONSILO_OPERATOR_CONFIG" in result.stderr


def test_a_daemons_environment_is_none_of_an_operators_business(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSILO_TRAINING__DEVICE", "cuda")
    assert run(config, "job", "list").exit_code == 0
