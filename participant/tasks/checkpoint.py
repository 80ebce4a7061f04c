"""What a task saves in the middle of training (`Round.save`), as a file that is whole or is not there.

It is written aside, synced, renamed, and its folder synced: after any crash the file is the old one or the new one, and
on disk. It is bound to one call (job, round and plan): of another one nothing is ever restored. And it is sealed with a
digest over all that is in it: one that was cut or changed counts as none, is said so, and training starts over.

A save that the disk refuses is no failure of training. It is said, the last one stays, and training goes on.

Beside what the task gave, the file has where the generators of python, numpy and torch were: `restore` puts them back,
so that what is drawn from there on is what would have been drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, uint8

from participant.tasks.contract import CheckpointPlace, NoteKind
from participant.tasks.generators import generator_states, set_generator_states
from participant.tasks.task_state import decode_state, encode_state, read_tensors, write_tensors
from shared.durable import sync_path
from shared.errors import StorageError, TaskError

Note = Callable[[NoteKind, str], None]

_TREE, _BOUND, _SEAL = "state", "bound_to", "seal"


class TaskCheckpoint:
    """The checkpoint of one call of `train`."""

    def __init__(self, place: CheckpointPlace, note: Note) -> None:
        self._place = place
        self._note = note

    def save(self, state: Mapping[str, Any]) -> None:
        """Durable on return, unless the disk refuses. Raises TaskError for what cannot be kept."""
        if not isinstance(state, Mapping):
            raise TaskError(f"round.save takes a dictionary, got {type(state).__name__}")
        tensors, tree = encode_state({"state": state, "generators": generator_states()}, "state")
        metadata = {_TREE: tree, _BOUND: self._place.bound_to, _SEAL: _seal(self._place.bound_to, tree, tensors)}
        path = self._place.path
        aside = path.with_name(path.name + ".new")
        try:
            write_tensors(tensors, metadata, aside)
            sync_path(aside)
            aside.replace(path)
            sync_path(path.parent)
        except (OSError, SafetensorError) as error:
            _remove(aside)
            self._note(NoteKind.NOT_SAVED, f"{path}: {error}")
        else:
            self._note(NoteKind.SAVED, f"{path.stat().st_size} bytes")

    def restore(self) -> dict[str, Any] | None:
        """What was saved last in this call, before it was interrupted; None when there is none that can be used."""
        if not self._place.path.exists():
            return None
        try:
            content = self._read()
        except (OSError, SafetensorError, StorageError) as error:
            self._note(NoteKind.UNUSABLE, f"{self._place.path}: {error}")
            return None
        set_generator_states(content["generators"])
        self._note(NoteKind.RESTORED, f"{self._place.path.stat().st_size} bytes")
        state: dict[str, Any] = content["state"]
        return state

    def _read(self) -> dict[str, Any]:
        tensors, metadata = read_tensors(self._place.path)
        if any(key not in metadata for key in (_TREE, _BOUND, _SEAL)):
            raise StorageError("no task checkpoint")
        if metadata[_BOUND] != self._place.bound_to:
            raise StorageError(f"of another call: it is of {metadata[_BOUND]}, this is {self._place.bound_to}")
        if metadata[_SEAL] != _seal(metadata[_BOUND], metadata[_TREE], tensors):
            raise StorageError("was changed since it was written")
        content: dict[str, Any] = decode_state(metadata[_TREE], tensors)
        return content


def _seal(bound_to: str, tree: str, tensors: Mapping[str, Tensor]) -> str:
    seal = hashlib.sha256()
    layout = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in sorted(tensors.items())}
    for text in (bound_to, tree, json.dumps(layout)):
        part = text.encode()
        seal.update(len(part).to_bytes(8, "big") + part)
    for _, tensor in sorted(tensors.items()):
        seal.update(tensor.reshape(-1).view(uint8).numpy().data)
    return seal.hexdigest()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the next save writes over it, and the round's end removes it
