"""The Merkle tree of RFC 9162 (section 2.1): roots, inclusion paths and their verification.

Leaves are byte strings; what they mean is their users' affair. A leaf and an inner node are hashed under different
prefixes, so that neither passes for the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from shared.ids import Digest

_LEAF = b"\x00"
_NODE = b"\x01"


def leaf_hash(leaf: bytes) -> bytes:
    """`SHA256(0x00 || leaf)`."""
    return hashlib.sha256(_LEAF + leaf).digest()


def root(leaves: Sequence[bytes]) -> Digest:
    """The tree's head; of no leaves the hash of nothing."""
    if not leaves:
        return Digest(hashlib.sha256().digest())
    head, _ = _tree([leaf_hash(leaf) for leaf in leaves])
    return Digest(head)


def path(leaves: Sequence[bytes], position: int) -> tuple[bytes, ...]:
    """The inclusion path of the leaf at `position` (from 0): the sibling hashes, from the leaf up."""
    if not 0 <= position < len(leaves):
        raise RuntimeError(f"a tree of {len(leaves)} leaves has none at {position}")
    return paths(leaves)[position]


def paths(leaves: Sequence[bytes]) -> tuple[tuple[bytes, ...], ...]:
    """The inclusion paths of all leaves, each inner node hashed once."""
    if not leaves:
        return ()
    _, found = _tree([leaf_hash(leaf) for leaf in leaves])
    return tuple(tuple(siblings) for siblings in found)


def verify_path(leaf: bytes, position: int, count: int, path: Sequence[bytes], root: Digest) -> bool:
    """Whether `leaf` stands at `position` of the tree of `count` leaves with this root (RFC 9162, section 2.1.3.2)."""
    if not 0 <= position < count:
        return False
    node, last, reached = position, count - 1, leaf_hash(leaf)
    for sibling in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            reached = _node_hash(sibling, reached)
            while node and not node & 1:  # levels at which this subtree is alone at the right edge
                node, last = node >> 1, last >> 1
        else:
            reached = _node_hash(reached, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and reached == root.raw


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def _tree(hashes: list[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """The head over leaf hashes, and the path of each. The left half has the largest power of two below the count."""
    if len(hashes) == 1:
        return hashes[0], [[]]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    (left, left_paths), (right, right_paths) = _tree(hashes[:half]), _tree(hashes[half:])
    for siblings in left_paths:
        siblings.append(right)
    for siblings in right_paths:
        siblings.append(left)
    return _node_hash(left, right), left_paths + right_paths
