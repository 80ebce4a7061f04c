"""The journal's records as bytes: canonical JSON, in which floats survive to the last bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from participant.round.phases import Measured, SpooledUpdate
from shared.errors import StorageError
from shared.ids import Digest, ParticipantId, parse_participant_id
from shared.job import canonical_json


def encode_spooled(update: SpooledUpdate) -> bytes:
    """A finished update, without its section 0, which is a file of the spool."""
    return canonical_json(
        {
            "train": None if update.train is None else _encode_measured(update.train),
            "evaluate": _encode_measured(update.evaluate),
            "parameters": update.parameters,
            "cells": update.cells,
            "fits": update.fits,
            "root": None if update.root is None else str(update.root),
        }
    )


def decode_spooled(data: bytes) -> SpooledUpdate:
    """Raises StorageError for bytes that this silo did not write: a disk changed them."""
    with _own_record():
        body = json.loads(data)
        return SpooledUpdate(
            train=None if body["train"] is None else _decode_measured(body["train"]),
            evaluate=_decode_measured(body["evaluate"]),
            parameters=_integer(body["parameters"]),
            cells=tuple(map(_integer, body["cells"])),
            fits=bool(body["fits"]),
            root=None if body["root"] is None else Digest.parse(body["root"]),
        )


def encode_names(names: tuple[ParticipantId, ...]) -> str:
    """Members in a total."""
    return canonical_json(names).decode()


def decode_names(text: str) -> tuple[ParticipantId, ...]:
    """Raises StorageError for a text that this silo did not write."""
    with _own_record():
        return tuple(map(parse_participant_id, json.loads(text)))


@contextmanager
def _own_record() -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StorageError(f"the journal has a record that nobody wrote: was it changed? ({error!s:.200})") from None


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"expected an integer, got {type(value).__name__}")
    return value


def _number(value: object) -> float:
    if type(value) not in {int, float}:
        raise TypeError(f"expected a number, got {type(value).__name__}")
    return float(value)  # type: ignore[arg-type] # it is one


def _encode_measured(measured: Measured) -> dict[str, Any]:
    return {"weight": measured.weight, "means": measured.means}


def _decode_measured(body: dict[str, Any]) -> Measured:
    return Measured(weight=_number(body["weight"]), means=tuple(map(_number, body["means"])))
