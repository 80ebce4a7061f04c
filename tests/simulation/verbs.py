"""Every verb of storage, read off the interfaces themselves: a new one is met by the crash twins without being told."""

from __future__ import annotations

from inspect import isfunction

from coordinator.storage.interface import Blobs, Reader, Spool, Staged, Store
from participant.journal import Journal

_NEVER_FAIL = {"reader", "close"}  # a handle that is made or dropped: nothing is written or read


def verbs_of(*interfaces: type) -> tuple[str, ...]:
    names = [name for interface in interfaces for name, value in vars(interface).items() if isfunction(value)]
    return tuple(name for name in dict.fromkeys(names) if not name.startswith("_") and name not in _NEVER_FAIL)


COORDINATOR_VERBS = verbs_of(Store, Blobs, Spool, Staged, Reader)
PARTICIPANT_VERBS = verbs_of(Journal)
OTHER_COORDINATOR_BOUNDARIES = ("send", "start_fold")
OTHER_PARTICIPANT_BOUNDARIES = (
    "say", "keep_update", "start_work", "start_upload", "stop", "keep_state", "erase",
)  # fmt: skip
