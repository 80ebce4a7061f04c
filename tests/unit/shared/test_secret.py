"""A Secret has one way out."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest

from shared.secret import Secret

RAW = b"not for any log"


def test_reveal_is_the_way_out() -> None:
    assert Secret(RAW).reveal() == RAW
    assert len(Secret(RAW)) == len(RAW)


def test_text_forms_hide_the_bytes() -> None:
    secret = Secret(RAW)
    shown = [repr(secret), str(secret), f"{secret!r}", "%s" % secret, repr([secret]), repr({"key": secret})]  # noqa: UP031 - the form under test
    assert all("not for" not in text for text in shown)


def test_formatting_is_refused() -> None:
    with pytest.raises(TypeError, match="formatted"):
        format(Secret(RAW))


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, bytes, hash, vars])
def test_other_ways_out_are_closed(leak: object) -> None:
    assert callable(leak)
    with pytest.raises(TypeError) as caught:
        leak(Secret(RAW))
    assert "not for" not in "".join(traceback.format_exception(caught.value))


def test_equality() -> None:
    assert Secret(RAW) == Secret(RAW)
    assert Secret(RAW) != Secret(RAW + b"!")
    assert Secret(RAW) != RAW


def test_a_caller_cannot_change_it_through_its_own_buffer() -> None:
    buffer = bytearray(RAW)
    secret = Secret(buffer)
    buffer[0] = 0
    assert secret.reveal() == RAW
