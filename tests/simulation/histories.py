"""How histories are drawn: a shape, and a list of operations with small numbers."""

from __future__ import annotations

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
NAMES = [name for name, weight in WEIGHTS.items() for _ in range(weight)]
OPERATIONS_MAX = 24

operations: st.SearchStrategy[list[Operation]] = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(0, 255), st.integers(0, 40)), max_size=OPERATIONS_MAX
)
shapes: st.SearchStrategy[Shape] = st.builds(
    Shape,
    members=st.integers(3, 4),
    rounds=st.integers(1, 3),
    quorum=st.integers(2, 4),
    floor=st.integers(1, 2),
    attempts=st.integers(1, 2),
)
