"""The journal's records as bytes: canonical JSON, in which floats survive to the last bit."""

from __future__ import annotations

import json
from typing import Any

from participant.round.phases import Measured, SpooledUpdate
from shared.ids import Digest, ParticipantId
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
    body = json.loads(data)
    return SpooledUpdate(
        train=None if body["train"] is None else _decode_measured(body["train"]),
        evaluate=_decode_measured(body["evaluate"]),
        parameters=body["parameters"],
        cells=tuple(body["cells"]),
        fits=body["fits"],
        root=None if body["root"] is None else Digest.parse(body["root"]),
    )


def encode_names(names: tuple[ParticipantId, ...]) -> str:
    """Members in a total."""
    return canonical_json(names).decode()


def decode_names(text: str) -> tuple[ParticipantId, ...]:
    return tuple(json.loads(text))


def _encode_measured(measured: Measured) -> dict[str, Any]:
    return {"weight": measured.weight, "means": measured.means}


def _decode_measured(body: dict[str, Any]) -> Measured:
    return Measured(weight=body["weight"], means=tuple(body["means"]))
