"""Crash twins: one history, lived again for each call of storage and each word, with that one gone wrong.

A call fails in each way that `coordinator.storage.faults` knows, or its process is killed right before or after it. The
process comes back, every invariant holds all along, and the job ends as it would have. Silos lose what they must, and
no more: one whose process ends between the delivery of the shares and the word that its update is in is left out of
that round, or is what an opening lacks.

In a normal run some calls of each verb are struck, always the same ones; a long run strikes all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import structlog

from coordinator.storage.faults import Fault
from shared.reasons import AbortReason
from tests.simulation.boundaries import Death, Strike
from tests.simulation.settings import COORDINATOR
from tests.simulation.steps import note
from tests.simulation.twins import Ended, Twin
from tests.simulation.verbs import (
    COORDINATOR_VERBS,
    OTHER_COORDINATOR_BOUNDARIES,
    OTHER_PARTICIPANT_BOUNDARIES,
    PARTICIPANT_VERBS,
)

FIRST, LAST = "hospital-001", "hospital-004"  # one of those that nothing happens to, and the one that is dropped
STRUCK_OF_A_VERB = 1  # in a normal run
MODES = ["masked", "plain"]
STRUCK = {"masked": {COORDINATOR, FIRST}, "plain": {COORDINATOR, LAST}}  # in a normal run; a long one takes all
REPOSITORY = Path(__file__).parent.parent.parent

# Verbs that this history never calls, and where their failures are tested instead.
_STORE, _BLOBS = (f"tests/unit/coordinator/storage/test_{name}_contract.py" for name in ("store", "blobs"))
_JOURNAL = "tests/unit/participant/test_participant_journal.py"
ELSEWHERE: dict[str, str] = {
    "promote_model": _STORE, "prune_models": _STORE, "note_set_back": _STORE, "end_set_backs": _STORE,
    "append_audit": _STORE,
    "discard": _BLOBS, "drop_attempt": _BLOBS, "model_location": _BLOBS, "remove_model": _BLOBS,
    "allow_repeat": _JOURNAL, "state_round": _JOURNAL, "stop_job": _JOURNAL,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[note])
    yield
    structlog.reset_defaults()


@cache
def reference(mode: str) -> Twin:
    twin = Twin(masked=mode == "masked")
    twin.run()
    return twin


def strikes(mode: str, owner: str, verb: str, *, most: int | None) -> Sequence[Strike]:
    """All there are of a verb, or `most` calls of it in every way."""
    boundaries = reference(mode).boundaries[owner]
    indexes = range(boundaries.calls[verb])
    if most is not None:
        indexes = random.Random(f"{owner} {verb}").sample(indexes, min(most, len(indexes)))  # type: ignore[assignment]
    ways: list[Fault | Death] = [Death.BEFORE]
    if verb in boundaries.writes:
        ways.append(Death.AFTER)
    if verb in (*COORDINATOR_VERBS, *PARTICIPANT_VERBS):
        ways += list(Fault) if verb in boundaries.writes else [Fault.FAILED_NOT_PERSISTED]
    return [Strike(verb, index, how) for index in indexes for how in ways]


def require_twin(mode: str, owner: str, strike: Strike) -> None:
    """Live the history with this strike, and compare how it ended."""
    twin = Twin(masked=mode == "masked", owner=owner, strike=strike)
    twin.run()
    known, ended, lost = reference(mode), twin.ended(), twin.lost()
    if not lost:
        assert ended == known.ended(), (mode, owner, strike)
        assert twin.models == known.models, (mode, owner, strike)
        return
    assert owner != COORDINATOR
    again = [one for one in ended if one.outcome != AbortReason.UNOPENABLE]
    assert [_kind(one) for one in again] == [_kind(one) for one in known.ended()], (mode, owner, strike)
    for one, other in zip(again, known.ended(), strict=True):
        missing = set(other.survivors) - set(one.survivors)
        assert missing <= ({owner} if one.number in lost else set()), (mode, owner, strike, one)


def _kind(ended: Ended) -> tuple[str, str]:
    return ended.purpose, ended.outcome


OWNED = [
    *((COORDINATOR, verb) for verb in (*COORDINATOR_VERBS, *OTHER_COORDINATOR_BOUNDARIES)),
    *((owner, verb) for owner in (FIRST, LAST) for verb in (*PARTICIPANT_VERBS, *OTHER_PARTICIPANT_BOUNDARIES)),
]


ALL = [(mode, owner, verb) for mode in MODES for owner, verb in OWNED]


@pytest.mark.parametrize(("mode", "owner", "verb"), [one for one in ALL if one[1] in STRUCK[one[0]]])
def test_a_call_that_goes_wrong_changes_nothing_of_the_job(mode: str, owner: str, verb: str) -> None:
    for strike in strikes(mode, owner, verb, most=STRUCK_OF_A_VERB):
        require_twin(mode, owner, strike)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("mode", "owner", "verb"), ALL)
def test_every_single_call_may_go_wrong(mode: str, owner: str, verb: str) -> None:
    for strike in strikes(mode, owner, verb, most=None):
        require_twin(mode, owner, strike)


def test_the_history_is_what_it_is_said_to_be() -> None:
    for mode in MODES:
        outcomes = [(one.number, *_kind(one), len(one.survivors)) for one in reference(mode).ended()]
        assert outcomes == [
            (1, "train", "committed", 4),
            (2, "train", "below_quorum", 0),
            (3, "train", "committed", 3),
            (4, "evaluate", "committed", 4),
        ]
        assert reference(mode).attempts() == [2, 0, 1, 1]


def test_every_verb_of_storage_has_its_twins() -> None:
    """A verb that was added and is never struck is found here."""
    called: set[str] = set()
    for mode in MODES:
        for boundaries in reference(mode).boundaries.values():
            called |= set(boundaries.calls)
    everything = {*COORDINATOR_VERBS, *PARTICIPANT_VERBS}
    assert everything - called == set(ELSEWHERE), "each verb is called in this history, or it is said where it fails"
    for verb, file in ELSEWHERE.items():
        assert verb in (REPOSITORY / file).read_text(), f"{verb} is not in {file}"
    others = {*OTHER_COORDINATOR_BOUNDARIES, *OTHER_PARTICIPANT_BOUNDARIES}
    assert called <= everything | others
