from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import merkle
from shared.ids import Digest

# The leaves of Certificate Transparency's reference tests (RFC 6962), and the heads of their first n.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOT_OF_8 = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def dumb_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 9162, section 2.1.1, read aloud."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = max(2**power for power in range(20) if 2**power < len(leaves))
    return hashlib.sha256(b"\1" + dumb_root(leaves[:k]) + dumb_root(leaves[k:])).digest()


def numbered(count: int) -> list[bytes]:
    return [f"leaf {number}".encode() for number in range(count)]


def test_the_reference_tree() -> None:
    assert str(merkle.root(LEAVES)) == ROOT_OF_8
    assert merkle.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert str(merkle.root([])) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_heads_follow_the_definition() -> None:
    for count in range(65):
        assert merkle.root(numbered(count)).raw == dumb_root(numbered(count))


def test_every_path_to_64_leaves_verifies_at_its_place_only() -> None:
    for count in range(1, 65):
        leaves = numbered(count)
        root, paths = merkle.root(leaves), merkle.paths(leaves)
        assert len(paths) == count
        for position, leaf in enumerate(leaves):
            path = paths[position]
            assert merkle.verify_path(leaf, position, count, path, root)
            assert not merkle.verify_path(leaf + b"!", position, count, path, root)
            assert not merkle.verify_path(leaf, position, count, (*path, bytes(32)), root)
            assert not merkle.verify_path(leaf, position, count, path, Digest(bytes(32)))
            for other in (position - 1, position + 1, count):
                assert not merkle.verify_path(leaf, other, count, path, root)
            if path:
                assert not merkle.verify_path(leaf, position, count, path[:-1], root)
                assert not merkle.verify_path(leaf, position, count, (*path[:-1], bytes(32)), root)


def test_one_path() -> None:
    leaves = numbered(5)
    assert merkle.path(leaves, 3) == merkle.paths(leaves)[3]
    assert merkle.paths([]) == ()
    for position in (-1, 5):
        with pytest.raises(RuntimeError, match="a tree of 5 leaves has none"):
            merkle.path(leaves, position)


def test_an_inner_node_is_no_leaf() -> None:
    node = merkle.leaf_hash(b"a") + merkle.leaf_hash(b"b")
    assert merkle.root([b"a", b"b"]) != merkle.root([node])
    assert not merkle.verify_path(node, 0, 1, (), merkle.root([b"a", b"b"]))


@given(
    count=st.integers(0, 12),
    position=st.integers(-2, 12),
    path=st.lists(st.binary(min_size=32, max_size=32), max_size=5),
)
def test_hostile_paths_are_refused(count: int, position: int, path: list[bytes]) -> None:
    assert not merkle.verify_path(b"leaf", position, count, path, Digest(bytes(32)))
