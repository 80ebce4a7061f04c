"""Folds on a thread of their own: seconds of arithmetic must not keep a message waiting.

An order waits for its turn, and its round may be aborted meanwhile; its updates are removed then. `drop` says so: an
order that was not begun is forgotten, and one that was is reported as ever, but what it stumbles over is no trouble.

A disk that refuses, mostly a full one, is waited for: the updates are here and whole, and giving up throws away a round
of everybody's training. The order goes back to the end of the queue, so that folds whose files can be read pass it. A
disk that refuses for `PATIENCE_S` is not one that somebody is clearing, and the round ends with a reason.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import structlog

from coordinator.folding import run_fold
from coordinator.round.effects import Folded, FoldFailed
from coordinator.round.surroundings import FoldOrder
from coordinator.storage.interface import Blobs
from shared.busy import BusyTime
from shared.errors import DurabilityUnknown, FederationError, StorageError
from shared.ids import RoundKey
from shared.reasons import AbortReason

PATIENCE_S = 3600.0  # somebody has to be called, come, and find out what to delete
RETRY_S = 5.0
SAID_EVERY = 12  # tries: once a minute

_log = structlog.get_logger(__name__)


class FoldThread:
    """The `Folds` of the driver: one at a time, in the order in which they were asked for."""

    def __init__(
        self,
        *,
        blobs: Blobs,
        report: Callable[[RoundKey, Folded | FoldFailed], None],
        on_unknown: Callable[[DurabilityUnknown], None],
        retry_s: float = RETRY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`report` is called on this thread."""
        self._blobs = blobs
        self._report = report
        self._on_unknown = on_unknown
        self._retry_s = retry_s
        self._patience_s = patience_s
        self._orders: queue.SimpleQueue[FoldOrder | None] = queue.SimpleQueue()
        self._wanted: dict[RoundKey, FoldOrder] = {}  # the newest order of each round that was not dropped
        self._busy = BusyTime()
        self._lock = threading.Lock()  # held for `_wanted` only
        self._tries: dict[RoundKey, int] = {}  # of orders that wait for the disk; the thread's alone
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="fold", daemon=True)
        self._thread.start()

    def start(self, order: FoldOrder) -> None:
        with self._lock:
            self._wanted[order.attempt.round] = order
        self._orders.put(order)

    def drop(self, key: RoundKey) -> None:
        """See `Folds`. From any thread; does not wait for a fold that was begun."""
        with self._lock:
            self._wanted.pop(key, None)

    @property
    def busy_s(self) -> float:
        """How long this thread folded until now."""
        return self._busy.seconds

    def close(self, *, wait_s: float) -> bool:
        """Stop after the fold at hand, or leave it: the next start folds again. Whether it ended in time."""
        self._closing.set()
        self._orders.put(None)
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while (order := self._orders.get()) is not None and not self._closing.is_set():
            if not self._is_wanted(order):
                self._tries.pop(order.attempt.round, None)
                continue
            try:
                outcome = self._outcome(order)
            except StorageError as error:
                if self._may_wait(order, error):
                    self._orders.put(order)
                    self._closing.wait(self._retry_s)
                    continue
                outcome = FoldFailed(AbortReason.FOLD_FAILED)
            self._done(order)
            if outcome is not None:
                self._report(order.attempt.round, outcome)

    def _may_wait(self, order: FoldOrder, error: StorageError) -> bool:
        """Whether a fold that the disk refused is tried again."""
        if not self._is_wanted(order):
            return False
        tries = self._tries[order.attempt.round] = self._tries.get(order.attempt.round, 0) + 1
        left_s = self._patience_s - tries * self._retry_s
        if tries % SAID_EVERY == 1 or left_s <= 0:
            _log.warning(
                "fold_storage_failed", attempt=str(order.attempt), reason=str(error), seconds_left=max(0, round(left_s))
            )
        return left_s > 0

    def _is_wanted(self, order: FoldOrder) -> bool:
        with self._lock:
            return self._wanted.get(order.attempt.round) is order

    def _done(self, order: FoldOrder) -> None:
        self._tries.pop(order.attempt.round, None)
        with self._lock:
            if self._wanted.get(order.attempt.round) is order:
                del self._wanted[order.attempt.round]

    def _outcome(self, order: FoldOrder) -> Folded | FoldFailed | None:
        """None where nobody may be told. Raises StorageError: nothing changed."""
        self._busy.begin()
        try:
            return self._told(order, run_fold(order, self._blobs))
        except DurabilityUnknown as error:
            self._on_unknown(error)
            return None
        except StorageError:
            raise
        except FederationError as error:
            if self._is_wanted(order):
                _log.error("fold_failed", attempt=str(order.attempt), error=type(error).__name__, reason=str(error))
        except Exception:  # noqa: BLE001 - a bug must end this round with a reason, and not leave it open for good
            if self._is_wanted(order):
                _log.exception("internal_error", doing="fold", attempt=str(order.attempt))
        finally:
            self._busy.end()
        return FoldFailed(AbortReason.FOLD_FAILED)

    def _told(self, order: FoldOrder, outcome: Folded | FoldFailed) -> Folded | FoldFailed:
        if isinstance(outcome, FoldFailed) and self._is_wanted(order):
            say = _log.error if outcome.reason is AbortReason.DAMAGED else _log.warning
            say("fold_refused", attempt=str(order.attempt), reason=outcome.reason, detail=outcome.detail)
        return outcome
