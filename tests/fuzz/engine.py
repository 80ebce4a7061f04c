"""What holds for every input of every decoder, and how a run looks for one for which it does not.

A decoder ends in a value or in the error that it documents, soon, and without holding more than a decoder may. Where a
value can be written again, what is written reads as the same value; where one form is promised, it is the same bytes.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutate import mutated

CORPUS = Path(__file__).parent / "corpus"
SLOW_S = 2.0  # for at most 64 KiB: so slow is a loop, and not a busy machine
LARGE_BYTES = 64 * 1024 * 1024  # for at most 64 KiB: so large is a length that was believed


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder, what it may raise, and which functions it stands for."""

    decode: Callable[[bytes], Any]
    errors: tuple[type[BaseException], ...]
    covers: tuple[str, ...]
    """`module.function` of everything that reads the outside and that this target runs through."""
    encode: Callable[[Any], bytes] | None = None
    """Writes a value again. What it writes must be read as the same value."""
    canonical: bool = False
    """Whether there is one form: what was read is what is written."""
    heavy: bool = False
    """Loads PyTorch: left to the long run."""


@dataclass(eq=False)
class Finding(Exception):  # noqa: N818 - what a run looks for
    """An input for which a decoder did what it must not."""

    target: str
    data: bytes
    what: str

    def __str__(self) -> str:
        return f"{self.target}: {self.what}; the input, to be kept in corpus/{self.target}.found: {self.data.hex()}"


def corpus_of(name: str) -> list[bytes]:
    """Valid inputs, and those that were found and stay found."""
    kept = [path for path in (CORPUS / f"{name}.valid", CORPUS / f"{name}.found") if path.exists()]
    return [data for path in kept for data in read_corpus(path)]


def read_corpus(path: Path) -> list[bytes]:
    """One input a line in hexadecimal, `-` for the empty one; `#` begins a remark."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [bytes.fromhex(line.replace("-", "")) for line in lines if line]


def inputs(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """The corpus, then its mutations without end. The n-th input of a seed is always the same."""
    yield from corpus
    random = Random(seed)
    while True:
        yield mutated(corpus, random)


def check(name: str, target: Target, data: bytes, *, slow_s: float = SLOW_S) -> bool:
    """Whether the input is one that the decoder takes. Raises Finding."""
    began = time.process_time()
    try:
        value = target.decode(data)
    except target.errors:
        return False
    except Exception as error:
        raise Finding(name, data, f"{type(error).__name__}: {error!s:.300}") from error
    finally:
        spent = time.process_time() - began
        if spent > slow_s:
            raise Finding(name, data, f"took {spent:.1f} s")
    if target.encode is not None:
        _check_round_trip(name, target, data, value)
    return True


def check_memory(name: str, target: Target, data: bytes) -> None:
    """The same while Python's allocations are counted, which makes it several times slower. Raises Finding."""
    tracemalloc.start()
    try:
        check(name, target, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    if peak > LARGE_BYTES:
        raise Finding(name, data, f"held {peak} bytes")


def _check_round_trip(name: str, target: Target, data: bytes, value: Any) -> None:
    assert target.encode is not None
    try:
        written = target.encode(value)
        again = target.decode(written)
    except Exception as error:
        raise Finding(name, data, f"its value cannot be written and read: {type(error).__name__}: {error}") from error
    if again != value and repr(again) != repr(value):  # NaN is what it is, and equals nothing
        raise Finding(name, data, f"read as {value!r:.200}, written and read again as {again!r:.200}")
    if target.canonical and written != data:
        raise Finding(name, data, "was taken, and is not the one form of its value")
