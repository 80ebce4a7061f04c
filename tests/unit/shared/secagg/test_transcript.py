from __future__ import annotations

import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.ids import Digest
from shared.secagg import transcript
from shared.secagg.transcript import ShareKind

VECTORS: dict[str, str] = json.loads((Path(__file__).parents[3] / "vectors" / "secagg.json").read_text("utf-8"))[
    "transcript"
]
H0, T1, T2, SOME = (Digest.of(name) for name in (b"h0", b"t1", b"t2", b"some"))
SECRET, SHARE = bytes(range(32)), bytes(range(66))
PAYLOADS = [(1, b"advert of a"), (3, b"advert of c"), (4, b"")]


def core(*, consortium: Digest | None = T1, number: int = 7, statistics: int = 134) -> bytes:
    return transcript.core_digest(
        job="heart-1",
        number=number,
        purpose="train",
        jobspec=SOME,
        consortium=consortium,
        model=H0,
        previous_result=T2,
        members=["bank-a", "hospital-b", "x"],
        max_colluding=1,
        parameters=300_000,
        statistics=statistics,
    ).raw


MADE: dict[str, bytes] = {
    "t1": transcript.roster_digest(H0, reversed(PAYLOADS)).raw,
    "t2": transcript.delivery_digest(T1, PAYLOADS).raw,
    "t3": transcript.survivors_digest(T2, iter(PAYLOADS)).raw,
    "core": core(),
    "core_plain": core(consortium=None),
    "self_seed_commitment": transcript.self_seed_commitment(T1, 3, SECRET).raw,
    "share_commitment_self": transcript.share_commitment(T1, 3, 1, ShareKind.SELF, SHARE).raw,
    "share_commitment_mask": transcript.share_commitment(T1, 3, 1, ShareKind.MASK, SHARE).raw,
    "share_leaf": transcript.share_leaf(4, SHARE, H0, SOME),
    "share_key": transcript.share_key(SECRET, T1, 3, 1),
    "share_context": transcript.share_context(T1, 3, 1),
    "mask_private": transcript.mask_private(SECRET, H0),
    "pair_root": transcript.pair_root(SECRET, T2, 3, 1),
    "self_root": transcript.self_root(SECRET, T2, 3),
    "stream_key_0": transcript.stream_key(SECRET, 0),
    "stream_key_1": transcript.stream_key(SECRET, 1),
    "encoding_key_0": transcript.encoding_key(SECRET, H0, 0),
    "encoding_key_1": transcript.encoding_key(SECRET, H0, 1),
}


def test_frozen_vectors() -> None:
    assert {name: value.hex() for name, value in MADE.items()} == VECTORS


def test_no_two_derivations_agree() -> None:
    assert len(set(MADE.values())) == len(MADE)


def test_the_core_tells_rounds_and_shapes_apart() -> None:
    assert len({core(), core(number=8), core(statistics=135)}) == 3


@pytest.mark.parametrize(
    "chain", [transcript.roster_digest, transcript.delivery_digest, transcript.survivors_digest], ids=["t1", "t2", "t3"]
)
def test_the_chain_is_over_a_set_of_payloads_by_index(chain: Callable[..., Digest]) -> None:
    assert chain(H0, PAYLOADS) == chain(H0, PAYLOADS[::-1])
    others = [PAYLOADS[:2], [(1, b"advert of c"), (3, b"advert of a"), (4, b"")], [*PAYLOADS, (5, b"")], []]
    digests = [chain(H0, PAYLOADS), chain(H0.of(b"x"), PAYLOADS), *(chain(H0, other) for other in others)]
    assert len(set(digests)) == len(digests)
    with pytest.raises(RuntimeError, match="one payload for each index"):
        chain(H0, [(1, b"a"), (1, b"b")])


indexes = st.integers(1, 2**32 - 1)


@given(one=indexes, other=indexes)
def test_a_pair_has_one_root_and_two_share_keys(one: int, other: int) -> None:
    assert transcript.pair_root(SECRET, T2, one, other) == transcript.pair_root(SECRET, T2, other, one)
    keys = {transcript.share_key(SECRET, T1, one, other), transcript.share_key(SECRET, T1, other, one)}
    assert len(keys) == (1 if one == other else 2)


def test_each_argument_counts() -> None:
    """Another salt, index, section or secret gives another key: no attempt, pair or section shares one."""
    other = bytes(32)
    keys = [
        *(transcript.stream_key(root, section) for root in (SECRET, other) for section in (0, 1, 255)),
        *(transcript.self_root(seed, t2, i) for seed in (SECRET, other) for t2 in (T1, T2) for i in (1, 2)),
        *(transcript.pair_root(SECRET, t2, *pair) for t2 in (T1, T2) for pair in combinations((1, 2, 3, 4), 2)),
        *(transcript.share_key(SECRET, t1, i, j) for t1 in (T1, T2) for i in (1, 2) for j in (3, 4)),
        *(transcript.encoding_key(seed, h0, s) for seed in (SECRET, other) for h0 in (H0, T1) for s in (0, 1)),
        *(transcript.mask_private(seed, h0) for seed in (SECRET, other) for h0 in (H0, T1)),
        *(
            transcript.share_commitment(t1, i, j, kind, SHARE).raw
            for t1 in (T1, T2)
            for i, j in ((1, 2), (2, 1), (2, 2))
            for kind in ShareKind
        ),
    ]
    assert len(set(keys)) == len(keys)
