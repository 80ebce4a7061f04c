"""What a task keeps from one round to the next, as a file without pickle.

The file is safetensors: its tensors are called `0`, `1`, .. and its metadata hold, under `state`, JSON that says where
each belongs. None, booleans, numbers and text stand for themselves; everything else is a list that starts with its
kind: `["dict", [[key, value], ..]]`, `["list", [..]]`, `["tuple", [..]]`, `["float", "nan"]`, `["tensor", "0"]`. So the
state of any optimizer of PyTorch comes back as it was, integer keys and tuples included.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from participant.tasks.state_dict import refusal_of
from shared.errors import StorageError, TaskError

DEPTH_MAX = 32
_KEY = "state"
_HEADER_BYTES = 200  # more than one tensor takes in the header, and more than the header takes without any


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write a task's state. Raises TaskError naming what cannot be kept; StorageError when the disk refuses."""
    if not isinstance(state, Mapping):
        raise TaskError(f"state_dict returns a dictionary or None, got {type(state).__name__}")
    tensors, tree = encode_state(state, "state")
    try:
        write_tensors(tensors, {_KEY: tree}, path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"cannot write the task's state to {path}: {error}") from error


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; tensors on the CPU. Raises StorageError when it is not that."""
    try:
        tensors, metadata = read_tensors(path)
        return decode_state(metadata[_KEY], tensors)
    except (OSError, SafetensorError, KeyError, StorageError) as error:
        raise StorageError(f"{path} does not hold a task's state: {error}") from None


def encode_state(state: Mapping[str, Any], place: str) -> tuple[dict[str, Tensor], str]:
    """The tensors, copies on the CPU, and the tree as text. Raises TaskError naming what cannot be kept."""
    tensors: dict[str, Tensor] = {}
    tree = _encode(state, place, tensors, 0)
    return tensors, json.dumps(tree, allow_nan=False)


def decode_state(tree: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `encode_state` was given. Raises StorageError."""
    try:
        state = _decode(json.loads(tree), tensors)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise StorageError(f"not a task's state: {error}") from None
    if not isinstance(state, dict):
        raise StorageError("not a task's state: expected a dictionary")
    return state


def write_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """A safetensors file for this user alone. Raises OSError or SafetensorError.

    The room is asked for first: only so a full disk is an OSError that says that it is one.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    size += sum(len(text) for text in metadata.values()) + _HEADER_BYTES * (1 + len(tensors))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)
    safetensors.torch.save_file(dict(tensors), path, metadata=dict(metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of such a file, on the CPU, and its metadata. Raises OSError or SafetensorError."""
    with safe_open(path, framework="pt") as file:
        # A clone: what is mapped must not change under the task when the file is replaced.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
        return tensors, dict(file.metadata() or {})


def _encode(value: object, place: str, tensors: dict[str, Tensor], depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise TaskError(f"{place[:200]}: a task's state is nested at most {DEPTH_MAX} deep")
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else ["float", repr(float(value))]
    if isinstance(value, Tensor):
        return ["tensor", _keep(value, place, tensors)]
    if isinstance(value, Mapping):
        return ["dict", [_encode_item(key, item, place, tensors, depth) for key, item in value.items()]]
    if isinstance(value, list | tuple):
        items = [_encode(item, f"{place}[{at}]", tensors, depth + 1) for at, item in enumerate(value)]
        return ["tuple" if isinstance(value, tuple) else "list", items]
    raise TaskError(
        f"{place}: a task's state is made of dictionaries, lists, tuples, tensors, numbers, text, booleans and None, "
        f"got {type(value).__module__}.{type(value).__qualname__}"
    )


def _encode_item(key: object, item: object, place: str, tensors: dict[str, Tensor], depth: int) -> list[Any]:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TaskError(f"{place}: a key of a task's state is text or an integer, got {type(key).__qualname__}")
    return [key, _encode(item, f"{place}[{key!r}]", tensors, depth + 1)]


def _keep(tensor: Tensor, place: str, tensors: dict[str, Tensor]) -> str:
    if refused := refusal_of(tensor):
        raise TaskError(f"{place}: {refused}")
    name = str(len(tensors))
    # A copy of its own: safetensors refuses tensors that share memory.
    tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return name


def _decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, content = tree
    match kind:
        case "dict":
            return {key: _decode(item, tensors) for key, item in content}
        case "list":
            return [_decode(item, tensors) for item in content]
        case "tuple":
            return tuple(_decode(item, tensors) for item in content)
        case "float":
            return float(content)
        case "tensor":
            return tensors[content]
        case _:
            raise ValueError(f"unknown kind {kind!r}")
