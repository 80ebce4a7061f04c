"""What is wrong with a document of ours, in its writer's words: the key, what was expected, what came.

pydantic finds it. Its own sentences are about Python ("Input should be a valid tuple"), and whoever reads ours wrote
TOML, or reads the log of somebody who did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

SHOWN_CHARS = 80  # of what came: a log line is no place for a whole file

_PLAIN_KEY = re.compile(rf"[A-Za-z0-9_.-]{{1,{SHOWN_CHARS}}}")

_EXPECTED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda _: "a whole number",
    "int_parsing_size": lambda _: "a smaller whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "text",
    "path_type": lambda _: "a path, as text",
    "tuple_type": lambda _: "a list",
    "list_type": lambda _: "a list",
    "dict_type": lambda _: "a table",
    "model_type": lambda _: "a table",
    "finite_number": lambda _: "a finite number",
    "literal_error": lambda said: str(said["expected"]),
    "enum": lambda said: str(said["expected"]),
    "greater_than_equal": lambda said: f"at least {said['ge']:g}",
    "greater_than": lambda said: f"more than {said['gt']:g}",
    "less_than_equal": lambda said: f"at most {said['le']:g}",
    "less_than": lambda said: f"less than {said['lt']:g}",
    "too_short": lambda said: f"at least {said['min_length']} in the list",
    "too_long": lambda said: f"at most {said['max_length']} in the list",
    "string_too_short": lambda said: f"text of at least {said['min_length']} characters",
    "string_pattern_mismatch": lambda said: f"text that matches {said['pattern']}",
}


def first_complaint(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """The first thing wrong, as `key.path: expected ..., got ...`, and how many more there are; without a key where it
    is about several.

    Unknown keys come first: a misspelt key is the cause of the one that is missing. With `model` they are answered with
    the keys that are known there.
    """
    complaints = _causes(error.errors(include_url=False))
    first = min(complaints, key=lambda complaint: complaint["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"] if part != "[key]"]
    more = f"; and {len(complaints) - 1} more" if len(complaints) > 1 else ""
    said = _said(first, _known(model, place))
    return f"{'.'.join(map(_shown_key, place))}: {said}{more}" if place else said + more


def place_of(error: ValidationError) -> tuple[str, ...]:
    """The key that `first_complaint` speaks of."""
    first = min(_causes(error.errors(include_url=False)), key=lambda complaint: complaint["type"] != "extra_forbidden")
    return tuple(str(part) for part in first["loc"])


def known_keys(kind: Any) -> Sequence[str]:
    """The keys of a table that is a model, or may be left out (`Table | None`); none of anything else."""
    table = _table(kind)
    return sorted(table.model_fields) if table is not None else ()


def _said(complaint: Any, known: Sequence[str]) -> str:
    match complaint["type"]:
        case "extra_forbidden":
            return "unknown key" + (f"; expected one of {', '.join(known)}" if known else "")
        case "missing":
            return "it is missing, and has no default"
        case "value_error":
            return str(complaint["msg"]).removeprefix("Value error, ")
        case "json_invalid":
            return str(complaint["msg"])
        case kind if kind in _EXPECTED:
            return f"expected {_EXPECTED[kind](complaint.get('ctx', {}))}, got {shown(complaint['input'])}"
        case _:
            return f"{complaint['msg']}, got {shown(complaint['input'])}"


def _causes(complaints: Sequence[Any]) -> Sequence[Any]:
    """Without lists that are too short only because what is in them is wrong."""
    places = [complaint["loc"] for complaint in complaints]
    return [
        complaint
        for complaint in complaints
        if complaint["type"] != "too_short"
        or not any(len(place) > len(complaint["loc"]) == _shared(place, complaint["loc"]) for place in places)
    ]


def _shared(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many parts two places begin with together."""
    return next((at for at, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), len(right))


def _known(model: type[BaseModel] | None, place: Sequence[str]) -> Sequence[str]:
    """The keys of the table in which the last part of `place` stands."""
    kind: Any = model
    for part in place[:-1]:
        table = _table(kind)
        if table is None:
            kind = get_args(kind)[-1] if get_args(kind) else None  # what a table of tables holds
        else:
            found = table.model_fields.get(part)
            kind = found.annotation if found else None
    return known_keys(kind)


def _table(kind: Any) -> type[BaseModel] | None:
    kinds = (kind, *get_args(kind)) if not _is_mapping(kind) else (kind,)
    return next((each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _is_mapping(kind: Any) -> bool:
    return getattr(kind, "__origin__", None) is dict


def _shown_key(key: str) -> str:
    """A key that its writer made up may be anything: escaped and cut, unless it looks like one of ours."""
    return key if _PLAIN_KEY.fullmatch(key) else shown(key)


def shown(value: object) -> str:
    """What came, as its writer wrote it, cut to what a line can carry."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a table"
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
