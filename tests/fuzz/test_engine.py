"""That what looks for findings finds: decoders with one planted fault each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.fuzz.engine import LARGE_BYTES, Finding, Target, check, check_memory

SLOW_S = 0.5  # to refuse and to take a word is quicker, also where the machine is busy: it is processor time


def wrong_error(data: bytes) -> bytes:
    raise KeyError(data)


def slow(data: bytes) -> bytes:
    ends = time.process_time() + 1.1 * SLOW_S
    while time.process_time() < ends:
        pass
    return data


def slow_refusal(data: bytes) -> bytes:
    slow(data)
    raise ValueError


PLANTED: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None, str]] = {
    "another error": (wrong_error, None, "KeyError"),
    "slow": (slow, None, "took 0."),
    "slow to refuse": (slow_refusal, None, "took 0."),
    "not the same value again": (bytes, lambda value: value + b"x", "written and read again as"),
    "not one form": (bytes.lower, bytes, "not the one form"),
    "not written": (bytes, lambda value: value.decode("ascii").encode(), "cannot be written"),
}


@contextmanager
def block() -> Iterator[None]:
    """A finding goes through such blocks on its way: they write to an exception that passes."""
    yield


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str) -> None:
    decode, encode, what = PLANTED[fault]
    target = Target(decode, (ValueError,), (), encode=encode, canonical=True)
    with pytest.raises(Finding) as found, block():
        check("planted", target, b"\xffInput", slow_s=SLOW_S)
    assert what in found.value.what
    assert str(found.value).endswith(b"\xffInput".hex())


def test_what_holds_much_is_found() -> None:
    target = Target(lambda data: bytes(LARGE_BYTES + len(data)), (ValueError,), ())
    with pytest.raises(Finding, match="planted: held 6"), block():
        check_memory("planted", target, b"Input")


def test_nothing_is_found_where_nothing_is() -> None:
    whole = Target(bytes, (ValueError,), (), encode=bytes, canonical=True)
    assert check("whole", whole, b"Input")
    refusing = Target(lambda data: int(data.decode()), (ValueError,), ())
    assert not check("refusing", refusing, b"none")
