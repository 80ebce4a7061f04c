from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.hashing import length_prefixed, signing_input, tagged_hash

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "hashing.json").read_text("utf-8"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector['label']}-{len(vector['parts'])}")
def test_frozen_vectors(vector: dict[str, object]) -> None:
    label, parts = vector["label"], vector["parts"]
    assert isinstance(label, str)
    assert isinstance(parts, list)
    assert str(tagged_hash(label, *map(bytes.fromhex, parts))) == vector["digest"]


def test_the_vector_of_the_specification() -> None:
    expected = "ff6f5cda7027f4d36fdfde77a0b92e0c4b9f65db4201c6dbc03b292b1e225633"
    assert str(tagged_hash("t1", b"a", b"b")) == expected


def test_a_length_is_four_bytes_big_endian() -> None:
    assert length_prefixed(b"abc") == b"\x00\x00\x00\x03abc"


parts_lists = st.lists(st.binary(max_size=6), max_size=4)


@given(first=parts_lists, second=parts_lists)
def test_other_parts_have_another_hash(first: list[bytes], second: list[bytes]) -> None:
    assume(first != second)
    assert tagged_hash("t1", *first) != tagged_hash("t1", *second)


@given(label=st.text(max_size=5), other=st.text(max_size=5), payload=st.binary(max_size=20))
def test_other_labels_have_another_hash_and_signing_input(label: str, other: str, payload: bytes) -> None:
    assume(label != other)
    assert tagged_hash(label, payload) != tagged_hash(other, payload)
    assert signing_input(label, payload) != signing_input(other, payload)


@given(payload=st.binary(max_size=20))
def test_a_signature_never_covers_what_is_hashed(payload: bytes) -> None:
    """The tag of a signature begins with `sig/`; no hash label does."""
    assert signing_input("header", payload) != length_prefixed(b"fedsecagg/v1/header") + length_prefixed(payload)
