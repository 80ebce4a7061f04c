from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import (
    COUNTER_MAX,
    LABEL_MAX_CHARS,
    AttemptKey,
    AttemptNumber,
    Digest,
    JobId,
    RoundKey,
    RoundNumber,
    parse_attempt_number,
    parse_job_id,
    parse_participant_id,
    parse_round_number,
    parse_task_name,
)

LABEL_PARSERS: list[Callable[[str], Any]] = [parse_participant_id, parse_job_id, parse_task_name]
COUNTER_PARSERS: list[Callable[[int], Any]] = [parse_round_number, parse_attempt_number]


@pytest.mark.parametrize("parse", LABEL_PARSERS)
@pytest.mark.parametrize("text", ["a", "0", "hospital-a", "a--b", "a" * LABEL_MAX_CHARS, "9-9"])
def test_labels(parse: Callable[[str], Any], text: str) -> None:
    assert parse(text) == text


HOSTILE = ["", "-", "-a", "a-", "A", "ä", "a b", "a_b", "a.b", "a/b", "../a", "a\n", "\na", "a\x00", "٣", "a" * 64]


@pytest.mark.parametrize("parse", LABEL_PARSERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_label(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match="has 1 to 63 characters"):
        parse(text)


@given(text=st.text(max_size=100))
def test_a_label_is_safe_in_a_path_and_a_uri(text: str) -> None:
    try:
        label = parse_participant_id(text)
    except ValueError:
        return
    assert label.isascii()
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not label.startswith("-")


def test_long_hostile_text_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="\\.\\.\\.'") as caught:
        parse_job_id("A" * 1_000_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("parse", COUNTER_PARSERS)
def test_counters(parse: Callable[[int], Any]) -> None:
    assert parse(1) == 1
    assert parse(COUNTER_MAX) == COUNTER_MAX
    for value in (0, -1, COUNTER_MAX + 1, 2**64):
        with pytest.raises(ValueError, match="is from 1 to"):
            parse(value)


@given(data=st.binary(max_size=100))
def test_a_digest_reads_what_it_prints(data: bytes) -> None:
    digest = Digest.of(data)
    assert digest.raw == hashlib.sha256(data).digest()
    assert Digest.parse(str(digest)) == digest
    assert Digest.of(memoryview(data)) == digest


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "0x" + "0" * 62])
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case hexadecimal digits"):
        Digest.parse(text)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_digest_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Digest(bytes(size))


def test_keys_print_and_sort_as_people_read_them() -> None:
    key = RoundKey(JobId("heart"), RoundNumber(2))
    attempt = AttemptKey(key, AttemptNumber(3))
    assert (str(key), str(attempt)) == ("heart/2", "heart/2/3")
    assert key < RoundKey(JobId("heart"), RoundNumber(10))
    assert attempt < AttemptKey(key, AttemptNumber(10))
