"""Masks: key streams that are added to words, and taken off again.

A stream is AES-256-CTR. Its IV is `u64 chunk || u64 block`, the chunk being CHUNK_BYTES (2^20) of the section whatever
the transfer does, so that each chunk is reached directly and the same byte of a section always has the same mask. Each
(root, section) has a key of its own; no counter repeats under a key.

The mask of participant i is `self_i + sum over j > i of pair_ij - sum over j < i of pair_ij`. In a sum over some
participants the pairs among them cancel; what is left is their self masks, and their pairs with those who dropped.

A chunk is also what is worked on at a time: with pieces of 2^17 bytes a stream was added at 5.1 GB/s, with whole chunks
at 6.3. Buffers belong to a call, not to an object: a `Masks` may be used by several threads at once, and encryption
releases the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from shared.ids import Digest
from shared.secagg.keys import AttemptSecrets, agree
from shared.secagg.ring import Words, add_into, subtract_into
from shared.secagg.transcript import mask_private, pair_root, self_root, stream_key
from shared.secret import Secret
from shared.update import CHUNK_BYTES

Term: TypeAlias = tuple[Secret, int]
"""The root of a mask and its sign, +1 or -1."""

_BLOCK_BYTES = 16
_ZEROS = bytes(CHUNK_BYTES + _BLOCK_BYTES)


class KeyStream:
    """The bytes of AES-256-CTR under one key, by position."""

    def __init__(self, key: Secret) -> None:
        self._cipher = algorithms.AES256(key.reveal())

    def raw(self, first_byte: int, length: int) -> memoryview:
        """A fresh buffer with bytes `first_byte`.. of the stream."""
        out = np.empty(length, np.uint8)
        buffer = scratch()
        for start, end in pieces(first_byte, length):
            out[start - first_byte : end - first_byte] = self.piece(start, end, buffer)
        return out.data

    def piece(self, start: int, end: int, buffer: memoryview) -> memoryview:
        """Bytes `start` to `end`, which lie in one of `pieces`, within `buffer` (of `scratch`)."""
        chunk, offset = divmod(start, CHUNK_BYTES)
        block, lead = divmod(offset, _BLOCK_BYTES)
        counter = chunk.to_bytes(8, "big") + block.to_bytes(8, "big")
        encryptor = Cipher(self._cipher, modes.CTR(counter)).encryptor()
        length = lead + end - start
        encryptor.update_into(memoryview(_ZEROS)[:length], buffer)
        return buffer[lead:length]


class MaskStream:
    """One mask in one section."""

    def __init__(self, root: Secret, section: int) -> None:
        self._stream = KeyStream(Secret(stream_key(root.reveal(), section)))

    def raw(self, first_byte: int, length: int) -> memoryview:
        """Bytes `first_byte`.. of the mask."""
        return self._stream.raw(first_byte, length)

    def add(self, words: Words, *, first_byte: int) -> None:
        """Add the mask in place to contiguous words that begin at byte `first_byte` of the section."""
        _combine([(self._stream, add_into)], words, first_byte)

    def subtract(self, words: Words, *, first_byte: int) -> None:
        """Undo `add`."""
        _combine([(self._stream, subtract_into)], words, first_byte)


class Masks:
    """A signed list of masks: of a participant, or of what is to be taken off a sum."""

    def __init__(self, terms: Sequence[Term]) -> None:
        if any(sign not in {-1, 1} for _, sign in terms):
            raise RuntimeError("the sign of a mask is +1 or -1")
        self._terms = tuple(terms)
        self._streams: dict[int, tuple[KeyStream, ...]] = {}

    def apply(self, words: Words, *, section: int, first_byte: int) -> None:
        """Add all masks, each with its sign, in place to contiguous words that begin at byte `first_byte` of the
        section. Words may begin and end anywhere in it, at a multiple of their size.
        """
        self._combine(words, section, first_byte, {1: add_into, -1: subtract_into})

    def remove(self, words: Words, *, section: int, first_byte: int) -> None:
        """Undo `apply`."""
        self._combine(words, section, first_byte, {1: subtract_into, -1: add_into})

    def _combine(self, words: Words, section: int, first_byte: int, operations: Mapping[int, _Operation]) -> None:
        if section not in self._streams:
            keys = (Secret(stream_key(root.reveal(), section)) for root, _ in self._terms)
            self._streams[section] = tuple(KeyStream(key) for key in keys)
        streams = self._streams[section]
        steps = [(stream, operations[sign]) for stream, (_, sign) in zip(streams, self._terms, strict=True)]
        _combine(steps, words, first_byte)


def pair_sign(own: int, other: int) -> int:
    """The sign of the common mask of two participants in the upload of `own`: +1 when the other index is higher."""
    if own == other:
        raise RuntimeError(f"participant {own} has no common mask with itself")
    return 1 if other > own else -1


def participant_terms(
    *, secrets: AttemptSecrets, index: int, h0: Digest, t2: Digest, mask_publics: Mapping[int, bytes]
) -> tuple[Term, ...]:
    """The masks of participant `index`: its own one, and one for each other member of U2 (index -> mask public key; an
    entry of its own is passed over). Raises WireError for a public key that must not be used.
    """
    private = mask_private(secrets.mask_seed.reveal(), h0)
    pairs = (
        (Secret(pair_root(agree(private, public), t2, index, other)), pair_sign(index, other))
        for other, public in sorted(mask_publics.items())
        if other != index
    )
    return (Secret(self_root(secrets.self_seed.reveal(), t2, index)), 1), *pairs


def pieces(first_byte: int, length: int) -> Iterator[tuple[int, int]]:
    """(start, end) byte positions that cover the range, cut where chunks begin."""
    start, last = first_byte, first_byte + length
    while start < last:
        end = min(last, start - start % CHUNK_BYTES + CHUNK_BYTES)
        yield start, end
        start = end


def scratch() -> memoryview:
    """A buffer for `KeyStream.piece`; the cipher wants room for a block more than it writes."""
    return np.empty(CHUNK_BYTES + 2 * _BLOCK_BYTES, np.uint8).data


_Operation: TypeAlias = Callable[[Words, Words], None]


def _combine(steps: Sequence[tuple[KeyStream, _Operation]], words: Words, first_byte: int) -> None:
    size = words.itemsize
    if first_byte % size or not words.flags.c_contiguous:
        raise RuntimeError(f"expected contiguous words at a multiple of {size} bytes, got byte {first_byte}")
    buffer = scratch()
    for start, end in pieces(first_byte, words.nbytes):
        part = words[(start - first_byte) // size : (end - first_byte) // size]
        for stream, operation in steps:
            operation(part, np.frombuffer(stream.piece(start, end, buffer), words.dtype))
