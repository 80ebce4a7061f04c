"""How histories are drawn: a shape, and a list of operations with small numbers."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.simulation.settings import Shape
from tests.simulation.world import Operation

# How often each operation is drawn. `go` is what moves a round on; without much of it nothing happens that could go
# wrong.
WEIGHTS = {
    "go": 12,
    "next": 2,
    "drop": 2,
    "reconnect": 1,
    "restart_silo": 2,
    "crash": 3,
    "die": 3,
    "die_silo": 2,
    "fault": 3,
    "wait": 3,
    "decline": 1,
    "fail_task": 1,
    "upload": 2,
    "commit_twice": 2,
    "upload_other": 1,
    "upload_fails": 1,
    "abort": 1,
    "revoke": 1,
    "hostile": 3,
}
MASKED_WEIGHTS = {
    **WEIGHTS,
    "until": 16,
    "lose_secrets": 4,
    "late": 2,
    "outage": 6,
    "value": 6,
    "journal_fault": 3,
    "twice": 2,
    "lose": 2,
    "delay": 2,
    "hostile": 6,
}
STEERING = {"pause": 4, "resume": 4, "control": 6}
"""What an operator changes of a job; in histories of their own, so that those above stay what they are."""
OPERATIONS_MAX = 24


def _drawn(weights: Mapping[str, int]) -> st.SearchStrategy[list[Operation]]:
    names = [name for name, weight in weights.items() for _ in range(weight)]
    operation = st.tuples(st.sampled_from(names), st.integers(0, 255), st.integers(0, 40))
    return st.lists(operation, max_size=OPERATIONS_MAX)


operations = _drawn(WEIGHTS)
masked_operations = _drawn(MASKED_WEIGHTS)
steered_operations = _drawn({**WEIGHTS, **STEERING})
masked_steered_operations = _drawn({**MASKED_WEIGHTS, **STEERING})
shapes: st.SearchStrategy[Shape] = st.builds(
    Shape,
    members=st.integers(3, 4),
    rounds=st.integers(1, 3),
    quorum=st.integers(2, 4),
    floor=st.integers(1, 2),
    attempts=st.integers(1, 2),
)
masked_shapes: st.SearchStrategy[Shape] = st.builds(
    Shape,
    members=st.integers(2, 5),
    rounds=st.sampled_from((1, 1, 2, 2, 3, 5)),
    quorum=st.integers(2, 5),
    floor=st.integers(2, 3),
    attempts=st.integers(1, 3),
    masked=st.just(True),
    encoding=st.sampled_from(("u32", "u16", "u64")),
    colluding=st.integers(0, 2),
    exchange_deadline_s=st.sampled_from((4.0, 30.0)),
)

SEED = 20261122  # one number for every machine: the histories of a run are the histories of every run
SHARES = 8  # the even ones are masked
MASKED_HISTORIES = 120  # in a share, as plain ones below: together 480 and 800
PLAIN_HISTORIES = 200


def histories_of(share: int) -> int:
    return PLAIN_HISTORIES if share % 2 else MASKED_HISTORIES


def drawn_in(share: int) -> tuple[st.SearchStrategy[Shape], st.SearchStrategy[list[Operation]]]:
    return (shapes, operations) if share % 2 else (masked_shapes, masked_operations)


def steered_in(*, masked: bool) -> tuple[st.SearchStrategy[Shape], st.SearchStrategy[list[Operation]]]:
    """As `drawn_in`, with an operator who pauses, resumes and controls the job."""
    return (masked_shapes, masked_steered_operations) if masked else (shapes, steered_operations)


def quick(examples: int) -> settings:
    """Settings under which a run of this many histories is the same everywhere."""
    return settings(
        max_examples=examples,
        derandomize=False,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
    )
