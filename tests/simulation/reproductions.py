"""Histories that once broke an invariant, as literal lists; each says what was wrong. They are played in every run."""

from __future__ import annotations

from tests.simulation.settings import Shape
from tests.simulation.world import Operation

FOUND: dict[str, tuple[Shape, list[Operation]]] = {
    # A silo was Ready before the plan was repeated on its new session; its Ready was taken for a breach of the rules.
    "ready before the plan is repeated after a restart of the coordinator": (
        Shape(members=4, rounds=2, quorum=2, floor=2, attempts=1),
        [("go", 236, 9), ("crash", 191, 31)],
    ),
    "ready before the plan is repeated after a restart of the silo": (
        Shape(members=3, rounds=2, quorum=3, floor=1, attempts=2),
        [("upload_other", 153, 18), ("go", 62, 7), ("decline", 209, 24)],
    ),
    # After a restart of the coordinator an upload's commitment came before the session, and the silo gave up its round.
    "an upload that is back before its session": (
        Shape(members=3, rounds=3, quorum=2, floor=1, attempts=2),
        [("go", 137, 15), ("go", 39, 16), ("crash", 145, 8), ("revoke", 164, 14)],
    ),
    # A withdrawal that was lost was repeated as a decline, which the coordinator did not accept any more.
    "a withdrawal that was not heard": (
        Shape(members=3, rounds=1, quorum=4, floor=1, attempts=1),
        [
            ("upload_fails", 207, 23), ("fault", 133, 29), ("commit_twice", 145, 38), ("go", 6, 32),
            ("restart_silo", 240, 5), ("upload_fails", 192, 24), ("go", 51, 9), ("wait", 17, 12),
        ],
    ),
    "a withdrawal that was not heard, after the task failed": (
        Shape(members=3, rounds=1, quorum=4, floor=1, attempts=2),
        [
            ("go", 64, 2), ("drop", 53, 10), ("go", 39, 22), ("fail_task", 31, 13), ("fault", 200, 21),
            ("drop", 153, 27), ("go", 238, 29), ("crash", 132, 12), ("go", 51, 3), ("go", 83, 17),
            ("commit_twice", 175, 5), ("decline", 102, 7),
        ],
    ),
    # The updates of a finished round stayed on the coordinator's disk when it died between the two.
    "a crash between the end of a round and the end of its updates": (
        Shape(members=3, rounds=2, quorum=3, floor=1, attempts=1),
        [
            ("go", 8, 18), ("fail_task", 13, 5), ("upload_fails", 241, 8), ("wait", 124, 20), ("drop", 129, 27),
            ("reconnect", 90, 7), ("crash", 65, 5), ("go", 55, 5), ("fault", 41, 4), ("upload_fails", 39, 16),
            ("drop", 10, 38), ("go", 101, 24), ("go", 124, 1), ("go", 1, 10), ("hostile", 4, 38),
            ("hostile", 241, 2), ("go", 225, 28), ("go", 22, 34), ("go", 24, 35),
        ],
    ),
    # A fold of a round that an operator aborted meanwhile made empty spools, which nobody removed.
    "an operator's abort while the fold runs": (
        Shape(members=4, rounds=2, quorum=4, floor=2, attempts=2),
        [
            ("go", 68, 39), ("crash", 120, 10), ("fault", 185, 28), ("go", 156, 11), ("go", 169, 13),
            ("fault", 243, 8), ("abort", 84, 37), ("revoke", 201, 37), ("reconnect", 175, 37),
            ("restart_silo", 251, 34), ("fault", 86, 15), ("drop", 161, 31), ("go", 32, 22), ("wait", 128, 16),
            ("wait", 67, 32), ("restart_silo", 226, 11),
        ],
    ),
    # A stream that was closed with its round was synced all the same, which ended in a bug's error.
    "a stream that outlives its round": (
        Shape(members=4, rounds=2, quorum=4, floor=2, attempts=2),
        [
            ("go", 154, 37), ("drop", 130, 24), ("decline", 226, 9), ("restart_silo", 108, 10), ("hostile", 48, 26),
            ("go", 26, 7), ("wait", 40, 14), ("go", 213, 18), ("fail_task", 170, 30), ("crash", 5, 11),
            ("go", 251, 11), ("wait", 209, 31), ("upload", 186, 34), ("go", 61, 4),
        ],
    ),
}  # fmt: skip
