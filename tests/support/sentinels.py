"""How a number may lie in a file, a log or a database: every form that somebody would recognise it by."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from shared.secagg.fixed_point import encode_metric, quantise_weight

TEXT_DIGITS = 8  # of a fraction: a rounded number is found as well
RECOGNISABLE_BYTES = 3
BASE64_LEAST_CHARS = 8


@dataclass(frozen=True, slots=True)
class Needle:
    what: str
    data: bytes


def needles_of(what: str, weight: float, losses: Iterable[float], *, max_weight: float, bound: float) -> list[Needle]:
    """A silo's weight and its mean losses: as they are, multiplied, and as the integers of masking."""
    weight_q = quantise_weight(weight, max_weight)
    found = [*_float(f"{what} weight", weight), *_integer(f"{what} w_q", weight_q)]
    found += _text(f"{what} weight", str(int(weight))) + _text(f"{what} w_q", str(weight_q))
    for loss in losses:
        encoded = encode_metric(loss, weight_q, bound)
        found += _float(f"{what} loss", loss) + _double(f"{what} weight * loss", weight * loss)
        found += _text(f"{what} loss", f"{loss:.{TEXT_DIGITS + 4}f}"[: TEXT_DIGITS + 2])
        found += _text(f"{what} weight * loss", repr(weight * loss)[: TEXT_DIGITS + 2])
        found += _integer(f"{what} masked loss", encoded) + _text(f"{what} masked loss", str(encoded))
    return found


def found_in(haystacks: Mapping[str, bytes], needles: Iterable[Needle]) -> list[str]:
    """Where something was found, and what."""
    return [f"{needle.what} in {name}" for needle in needles for name, data in haystacks.items() if needle.data in data]


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file of a folder that a process may be writing to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        try:
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
        except FileNotFoundError:  # a database's journal comes and goes
            continue
    return found


def _double(what: str, value: float) -> list[Needle]:
    """Of a product, which nobody has as a float32."""
    return [needle for order in "<>" for needle in _bytes(f"{what} as float64{order}", struct.pack(order + "d", value))]


def _float(what: str, value: float) -> list[Needle]:
    singles = [_bytes(f"{what} as float32{order}", struct.pack(order + "f", value)) for order in "<>"]
    return [*_double(what, value), *chain.from_iterable(singles)]


def _integer(what: str, value: int) -> list[Needle]:
    found = []
    for size in (4, 8):
        if value < 1 << 8 * size:
            found += _bytes(f"{what} as u{8 * size} little", value.to_bytes(size, "little"))
            found += _bytes(f"{what} as u{8 * size} big", value.to_bytes(size, "big"))
    return found


def _text(what: str, text: str) -> list[Needle]:
    return [Needle(f"{what} as text", text.encode()), *_encoded(f"{what} as text", text.encode())]


def _bytes(what: str, data: bytes) -> list[Needle]:
    if sum(byte != 0 for byte in data) < RECOGNISABLE_BYTES:
        raise ValueError(f"{what} is {data.hex()}: too many zeros to be recognised, take another sentinel")
    return [Needle(what, data), *_encoded(what, data)]


def _encoded(what: str, data: bytes) -> list[Needle]:
    hexadecimal = [Needle(f"{what}, hex", form) for form in (data.hex().encode(), data.hex().upper().encode())]
    return [*hexadecimal, *(Needle(f"{what}, base64", form) for form in _base64(data))]


def _base64(data: bytes) -> list[bytes]:
    """The characters that do not depend on the neighbours, at each of the three places that bytes may begin at."""
    forms = []
    for before in range(3):
        padded = bytes(before) + data
        whole = padded[: len(padded) // 3 * 3]
        text = base64.b64encode(whole)[4 if before else 0 :]
        if len(text) >= BASE64_LEAST_CHARS:  # fewer would be found in a signature by chance
            forms += [text, text.replace(b"+", b"-").replace(b"/", b"_")]
    return sorted(set(forms))
