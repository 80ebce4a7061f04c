"""Histories that once broke an invariant, as literal lists; each says what was wrong. They are played in every run.

Each was seen to fail on the code of its day. A change of what an operation means may take the meaning of a list away:
then find another one on the old code, as these were.
"""

from __future__ import annotations

from tests.simulation.settings import Shape
from tests.simulation.world import Operation

FOUND: dict[str, tuple[Shape, list[Operation]]] = {
    # honest-refused: work was done before the plan was repeated on the new session, and the coordinator, which had
    # never heard the Consent or had forgotten it, took the Ready for a breach of the rules.
    "ready after a consent that a restart of the coordinator forgot": (
        Shape(members=4, rounds=2, quorum=2, floor=2, attempts=1),
        [("go", 236, 9), ("crash", 191, 31)],
    ),
    "ready after a consent that was lost with a session": (
        Shape(members=3, rounds=3, quorum=2, floor=2, attempts=1),
        [("go", 195, 9), ("restart_silo", 28, 8), ("drop", 23, 3)],
    ),
    # honest-refused: after a restart of the coordinator a commitment came before its session, was told that it has
    # none, and the silo withdrew.
    "an upload that is back before its session": (
        Shape(members=4, rounds=3, quorum=2, floor=2, attempts=2),
        [("go", 198, 26), ("go", 209, 10), ("crash", 79, 25), ("go", 60, 3)],
    ),
    # honest-refused: a withdrawal that was not heard was repeated as a decline, which came too late to be allowed.
    "a withdrawal that was not heard": (
        Shape(members=4, rounds=1, quorum=2, floor=2, attempts=1),
        [("go", 185, 35), ("crash", 153, 9), ("upload_fails", 118, 18)],
    ),
    # RuntimeError: a stream that was closed with its round was synced all the same.
    "a stream that outlives its round": (
        Shape(members=3, rounds=2, quorum=2, floor=1, attempts=2),
        [("go", 196, 29), ("wait", 185, 21), ("go", 182, 24)],
    ),
    # ends: a fold of a round that an operator had aborted made empty spools, which nobody removed.
    "an operator's abort before the fold": (
        Shape(members=3, rounds=2, quorum=4, floor=2, attempts=2),
        [("go", 22, 33), ("abort", 60, 19)],
    ),
    # ends: the coordinator died between the end of a round and the end of its updates, and never looked again.
    "a crash between the end of a round and the end of its updates": (
        Shape(members=3, rounds=3, quorum=2, floor=1, attempts=1),
        [
            ("decline", 244, 34), ("go", 24, 35), ("go", 191, 15), ("fault", 26, 14), ("go", 167, 5), ("go", 189, 1),
            ("crash", 81, 10),
        ],
    ),
    # finished-stays: the spools of a finished round could not be removed, and when that was done again the round was
    # noted as finished twice: the next one got the number after the next.
    "a disk that fails when a round is closed": (
        Shape(members=4, rounds=3, quorum=3, floor=1, attempts=1),
        [("go", 17, 6), ("revoke", 234, 37), ("fault", 147, 12), ("go", 146, 34)],
    ),
    # ends: the write that starts a job failed, and the job was neither queued nor running any more.
    "a disk that fails when a job is started": (
        Shape(members=4, rounds=2, quorum=3, floor=2, attempts=2),
        [("fault", 4, 0), ("go", 1, 8)],
    ),
}  # fmt: skip
