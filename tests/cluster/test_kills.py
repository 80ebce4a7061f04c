"""kill -9 of anything, at any moment of a masked round: what is on record decides, and nobody trains twice.

One federation of real processes for all of it. Its task has no chance in it, so that jobs with one specification make
the same models, byte for byte, whatever happened to processes meanwhile; and it writes into a file each time when it
trains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from consilo.demo.moment import Blow, Moment
from participant.tasks.state_dict import write_model
from shared.ids import JobId
from shared.reasons import DropReason
from tests.cluster.tasks.regression_task import build
from tests.support.doomed_coordinator import DECIDED
from tests.support.federation import Federation, Process, job_spec, rounds_of
from tests.support.hurried_daemon import HURRY, hurried

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 64, "hospital-d": 16}
*OTHERS, SLOW, VICTIM = ROWS
TRAINING = {"learning_rate": 0.05}
LONG_S = 120.0 * HURRY  # two minutes for the silos

COORDINATOR_KILLED = [
    "Recruiting", "Advertising", "Sharing", "Uploading", "Confirming", "Unmasking", "Folding", DECIDED,
]  # fmt: skip

BOTH = ["Confirming", pytest.param("Sharing", marks=pytest.mark.long)]

# In which state of a round a silo is killed (participant.round.phases).
UNHARMED = ["Working", "Ready", "Advertised", "Shared", "Committed", "Confirmed", "Opened"]
HARMED = "Uploading"  # its shares are dealt, and its update is not in
SILO_KILLED = {"some": ["Working", "Shared", HARMED, "Committed", "Opened"]}
SILO_KILLED["each"] = [*UNHARMED[:4], HARMED, *UNHARMED[4:]]


class Hurried(Federation):
    """Its silos look for a coordinator that is gone as eagerly as if it had never been gone before."""

    def _command(self, member: str, *moments: Moment) -> list[str]:
        return hurried(self._config(member), *moments)

    def start_doomed(self, member: str, *moments: Moment) -> Process:
        process = self._start(member, self._command(member, *moments))
        process.wait_for("participant_started")
        return process


@dataclass(frozen=True)
class Study:
    """The federation, and what it makes of a job when nothing happens."""

    federation: Federation
    initial: Path

    def submit(self, name: str, *, rounds: int, **changes: Any) -> JobId:
        options = {"training": TRAINING, "grace_s": 60.0, "deadline_s": LONG_S, **changes}
        spec = job_spec(list(ROWS), self.initial, rounds=rounds, **options)
        return self.federation.submit(name, spec, self.initial)

    def finish(self, job: JobId, *, rounds: int) -> list[dict[str, Any]]:
        committed = rounds_of(self.federation.finish(job))
        assert len(committed) == rounds
        return committed

    def trained(self, job: JobId) -> dict[str, Counter[int]]:
        """How often each silo trained in each round."""
        found: dict[str, Counter[int]] = {name: Counter() for name in ROWS}
        for name in ROWS:
            for line in self.ledger(name).read_text().splitlines():
                trained, number = line.split()
                if trained == job:
                    found[name][int(number)] += 1
        return found

    def ledger(self, name: str) -> Path:
        return self.federation.folder / f"{name}.ledger"

    def require_undisturbed(self, job: JobId, rounds: Sequence[Mapping[str, Any]], calm: Sequence[str]) -> None:
        """As if nothing had happened: everybody in every round, trained once, and the same models."""
        assert all(summary["survivors"] == list(ROWS) for summary in rounds)
        assert models(rounds) == list(calm[: len(rounds)])
        once = Counter(range(1, len(rounds) + 1))
        assert self.trained(job) == dict.fromkeys(ROWS, once)


def models(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Their digests: equal digests are equal bytes."""
    return [summary["next_model"] for summary in rounds]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("study")
    initial = folder / "initial.safetensors"
    write_model(build(), initial)
    options = {
        member: {"silo": silo, "rows": rows, "name": member, "ledger": str(folder / f"{member}.ledger")}
        for silo, (member, rows) in enumerate(ROWS.items())
    }
    # Totals over one model, of other silos than before: they are allowed by name here.
    both = [f"both-{state}" for state in ("sharing", "confirming")]
    everybody = [f"everybody-{state}" for state in ("uploading", "ready", "shared", "opened")]
    jobs = [
        "calm",
        "coordinator",
        "gracing",
        *(f"{kind}-{which}" for kind in ("silo", "crashing") for which in SILO_KILLED),
        *both,
        *everybody,
    ]
    policy = {"allowed_repeats": jobs, "max_deadline_s": LONG_S}
    with Hurried(folder, entry="regression_task:RegressionTask", options=options, policy=policy) as federation:
        federation.start()
        yield Study(federation, initial)


@pytest.fixture(scope="module")
def calm(study: Study) -> list[str]:
    """The models of a job that nothing happens to."""
    rounds = len(COORDINATOR_KILLED)
    return models(study.finish(study.submit("calm", rounds=rounds), rounds=rounds))


def test_a_coordinator_killed_in_each_phase_commits_the_same_rounds(study: Study, calm: list[str]) -> None:
    moments = [Moment(number, state, Blow.KILL) for number, state in enumerate(COORDINATOR_KILLED, start=1)]
    federation = study.federation
    federation.kill("coordinator")
    process = federation.start_doomed_coordinator(moments[0])
    job = study.submit("coordinator", rounds=len(moments))
    for following in [*moments[1:], None]:
        process.wait_until_killed()
        process = federation.start_doomed_coordinator(*([following] if following else []))
    study.require_undisturbed(job, study.finish(job, rounds=len(moments)), calm)


def test_a_coordinator_killed_while_it_waits_for_the_last_goes_on_waiting(study: Study, calm: list[str]) -> None:
    """Enough silos are Ready, and one more is given its time."""
    federation = study.federation
    federation.kill("coordinator")
    federation.kill(SLOW)
    process = federation.start_doomed_coordinator(Moment(1, "Gracing", Blow.KILL))
    slow = federation.start_doomed(SLOW, Moment(1, "Working", Blow.STOP))
    job = study.submit("gracing", rounds=1, quorum=len(ROWS) - 1)
    process.wait_until_killed()
    federation.start_coordinator()
    slow.wait_until_stopped()
    slow.go_on()
    study.require_undisturbed(job, study.finish(job, rounds=1), calm)


@pytest.mark.parametrize("which", ["some", pytest.param("each", marks=pytest.mark.long)])
def test_a_silo_killed_in_each_phase_is_in_the_total_or_named_as_missing(study: Study, which: str) -> None:
    """Compared with a job in which the same silo has no update in the same round."""
    federation = study.federation
    states = SILO_KILLED[which]
    moments = [Moment(number, state, Blow.KILL) for number, state in enumerate(states, start=1)]
    harmed, committed = states.index(HARMED) + 1, states.index("Committed") + 1
    rounds = len(moments) + 1

    federation.kill(VICTIM)
    federation.kill(SLOW)
    # While it stands still the survivors are not fixed: a silo that is last sees their list before the word that its
    # own update is in, and is never in the state Committed.
    slow = federation.start_doomed(SLOW, Moment(committed, "Uploading", Blow.STOP))
    victim = federation.start_doomed(VICTIM, moments[0])
    job = study.submit(f"silo-{which}", rounds=rounds)
    for moment, following in zip(moments, [*moments[1:], None], strict=True):
        victim.wait_until_killed()
        victim = federation.start_doomed(VICTIM, *([following] if following else []))
        if moment.round == committed:
            slow.wait_until_stopped()
            slow.go_on()
    disturbed = study.finish(job, rounds=rounds)

    training = {**TRAINING, "crash": {VICTIM: [harmed]}}
    reference = study.submit(f"crashing-{which}", rounds=rounds, quorum=len(ROWS) - 1, training=training)
    expected = study.finish(reference, rounds=rounds)
    assert [summary["survivors"] for summary in disturbed] == [
        [name for name in ROWS if name != VICTIM or number != harmed] for number in range(1, rounds + 1)
    ]
    assert models(disturbed) == models(expected)
    # It says itself that its keys are gone, unless it takes its time to come back.
    assert disturbed[harmed - 1]["dropped"][VICTIM] in {DropReason.ATTEMPT_LEFT, DropReason.DISCONNECTED}
    trained = study.trained(job)
    once = Counter(range(1, rounds + 1))
    assert {name: trained[name] for name in ROWS if name != VICTIM} == dict.fromkeys((*OTHERS, SLOW), once)
    again = {states.index("Working") + 1}  # nothing was spooled yet
    assert {number for number, times in trained[VICTIM].items() if times > 1} <= again


@pytest.mark.parametrize("state", BOTH)
def test_coordinator_and_silo_killed_at_once(study: Study, calm: list[str], state: str) -> None:
    """The silo has lost its secrets by then: there is another attempt, or the others open the total for it."""
    federation = study.federation
    federation.kill("coordinator")
    process = federation.start_doomed_coordinator(Moment(1, state, Blow.KILL))
    job = study.submit(f"both-{state.lower()}", rounds=2)
    process.wait_until_killed()
    federation.kill(VICTIM)
    federation.start_participant(VICTIM)
    federation.start_coordinator()
    study.require_undisturbed(job, study.finish(job, rounds=2), calm)


@pytest.mark.long
@pytest.mark.parametrize("state", ["Uploading", "Ready", "Shared", "Opened"])
def test_all_silos_killed_at_once(study: Study, calm: list[str], state: str) -> None:
    federation = study.federation
    for name in ROWS:
        federation.kill(name)
    silos = [federation.start_doomed(name, Moment(1, state, Blow.KILL)) for name in ROWS]
    job = study.submit(f"everybody-{state.lower()}", rounds=2)
    for silo in silos:
        silo.wait_until_killed()
    federation.start_participants(list(ROWS))
    study.require_undisturbed(job, study.finish(job, rounds=2), calm)
