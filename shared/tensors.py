"""Models as files: the safetensors format, read and written in pieces.

A safetensors file is eight bytes of little-endian header length, a JSON header, and the tensors' bytes. The header maps
each name to element type, shape and the range of its bytes; `__metadata__` maps text to text. Nothing here loads a
model: `read_index` reads the header only, and whoever wants numbers reads ranges through a `ByteReader`.

*Reading* is strict. A file is accepted only when its tensors tile the data exactly, so that two readers cannot see two
models in one digest, and so that no bytes travel that nobody named. Everything accepted here is accepted by the
safetensors library too; the reverse does not hold.

*Writing* has one result per content (the canonical layout): the order of the safetensors library, which is by element
type from wide to narrow and then by name, metadata keys sorted, the header padded with spaces to a multiple of eight.
So every tensor is aligned in a mapped file, and equal models have equal digests.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shared.errors import DurabilityUnknown, ModelError, StorageError
from shared.ids import Digest
from shared.update import CHUNK_BYTES, DType, ModelManifest, TensorSpec

LENGTH_BYTES = 8
HEADER_MAX_BYTES = 16 << 20  # TENSORS_MAX tensors with names of 80 bytes; the header is the one part held in memory
TENSOR_MAX_BYTES = 1 << 48  # beyond any disk; keeps every size far from the 64-bit overflows of other readers
METADATA_KEY = "__metadata__"

_ALIGNMENT = 8
# How a zip, and a pickle of protocol 2 and later, begin. What follows makes a header length of it that is never read; a
# length of 640 begins as a pickle does, too, and is one.
_FORMATS_OF_PICKLE = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_NUMBER_MAX_DIGITS = len(str(TENSOR_MAX_BYTES))  # Python refuses to convert very long ones with an error of its own
_SHOWN_CHARS = 80

# The order in which the safetensors library lays out element types.
_LAYOUT_RANK = {
    dtype: rank
    for rank, dtype in enumerate(
        (
            DType.U64, DType.I64, DType.F64, DType.F32, DType.U32, DType.I32, DType.BF16, DType.F16, DType.U16,
            DType.I16, DType.I8, DType.U8, DType.BOOL,
        )
    )
}  # fmt: skip

TensorData: TypeAlias = bytes | bytearray | memoryview | NDArray[np.generic]


class ByteReader(Protocol):
    """Random access to bytes that do not change. The coordinator's storage readers are such."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes, valid until the next call. Beyond the end or unreadable: StorageError."""
        ...


@dataclass(frozen=True, slots=True)
class ModelIndex:
    """What a model file holds, and where."""

    manifest: ModelManifest
    metadata: Mapping[str, str]
    offsets: Mapping[str, int]
    """Absolute byte offset of each tensor's data."""
    file_size: int

    def offset_of(self, name: str) -> int:
        """Absolute byte offset of a tensor's data."""
        return self.offsets[name]

    def in_file_order(self) -> list[TensorSpec]:
        """The tensors as their data follow each other in the file; empty ones before what starts where they do."""
        return sorted(self.manifest.tensors, key=lambda tensor: (self.offsets[tensor.name], tensor.data_bytes))


# Reading


def read_index(reader: ByteReader) -> ModelIndex:
    """Read and check a file's header. Raises ModelError, naming the tensor and what was expected."""
    if reader.size < LENGTH_BYTES:
        raise ModelError(f"a model file starts with {LENGTH_BYTES} bytes of header length; it has {reader.size} bytes")
    head = bytes(reader.read_at(0, LENGTH_BYTES))
    header_bytes = int.from_bytes(head, "little")
    if header_bytes > HEADER_MAX_BYTES:
        if head.startswith(_FORMATS_OF_PICKLE):
            raise ModelError(
                "expected a safetensors file, got a pickle as torch.save writes it, which could run code where it is "
                "loaded: write it with safetensors.torch.save_file, or `consilo task init-model`"
            )
        raise ModelError(
            f"a model file's header has at most {HEADER_MAX_BYTES} bytes, this one says {header_bytes}: "
            "is it a safetensors file?"
        )
    if LENGTH_BYTES + header_bytes > reader.size:
        raise ModelError(f"the file ends inside its header: {header_bytes} bytes announced, {reader.size} in the file")
    return parse_index(bytes(reader.read_at(LENGTH_BYTES, header_bytes)), file_size=reader.size)


def read_index_file(path: Path) -> ModelIndex:
    """`read_index` of a file. Raises ModelError, or StorageError when it cannot be read."""
    with FileReader(path) as reader:
        return read_index(reader)


def parse_index(header: bytes, *, file_size: int) -> ModelIndex:
    """Check a header (without its length) against the size of the whole file. Raises ModelError."""
    entries = _parse_json(header)
    metadata = _parse_metadata(entries.pop(METADATA_KEY, {}))
    data_start = LENGTH_BYTES + len(header)
    tensors: list[TensorSpec] = []
    ranges: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        tensor, start, end = _parse_entry(name, entry)
        tensors.append(tensor)
        ranges.append((start, end, name))
    _check_tiling(ranges, file_size - data_start)
    offsets = {name: data_start + start for start, _, name in ranges}
    return ModelIndex(ModelManifest.of(tensors), metadata, offsets, file_size)


def _parse_json(header: bytes) -> dict[str, object]:
    if not header.startswith(b"{"):
        raise ModelError("the header is a JSON object that starts with '{': is it a safetensors file?")
    try:
        entries = json.loads(
            header.rstrip(b" ").decode(),
            object_pairs_hook=_distinct,
            parse_int=_parse_natural,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except RecursionError:
        raise ModelError("the header's JSON is nested too deeply") from None
    except ValueError as error:
        raise ModelError(f"the header is not JSON: {error}") from None
    if not isinstance(entries, dict):
        raise ModelError("the header is a JSON object")
    return entries


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ModelError(f"the header names {_shown(key)} twice")
        found[_checked_text(key)] = value
    return found


def _parse_natural(text: str) -> int:
    # `-0` is 0 to Python and no integer to the safetensors library
    if text.startswith("-") or len(text) > _NUMBER_MAX_DIGITS or int(text) > TENSOR_MAX_BYTES:
        return _refuse_number(text)
    return int(text)


def _refuse_number(text: str) -> int:
    raise ModelError(f"numbers in the header are integers from 0 to {TENSOR_MAX_BYTES}, got {_shown(text)}")


def _checked_text(text: str) -> str:
    """JSON can spell half a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ModelError(f"text in the header is valid Unicode, got {_shown(text)}") from None
    return text


def _parse_metadata(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ModelError(f"{METADATA_KEY} is an object of text to text, got {_shown(value)}")
    metadata: dict[str, str] = {}
    for key, entry in sorted(value.items()):
        if not isinstance(entry, str):
            raise ModelError(f"{METADATA_KEY} {_shown(key)} is text, got {_shown(entry)}")
        metadata[key] = _checked_text(entry)
    return metadata


def _parse_entry(name: str, entry: object) -> tuple[TensorSpec, int, int]:
    """One tensor, and the range of its bytes within the data."""
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        raise ModelError(f"tensor {_shown(name)}: expected dtype, shape and data_offsets, got {_shown(entry)}")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in DType.__members__:
        raise ModelError(f"tensor {_shown(name)}: element type {_shown(dtype)}, expected one of {', '.join(DType)}")
    shape = _parse_naturals(name, "shape", entry["shape"])
    tensor = TensorSpec(name, DType[dtype], shape)
    if math.prod(max(extent, 1) for extent in shape) * tensor.dtype.item_bytes > TENSOR_MAX_BYTES:
        raise ModelError(f"tensor {_shown(name)}: shape {shape} is beyond {TENSOR_MAX_BYTES} bytes")
    offsets = _parse_naturals(name, "data_offsets", entry["data_offsets"])
    if len(offsets) != 2 or offsets[1] - offsets[0] != tensor.data_bytes:
        raise ModelError(
            f"tensor {_shown(name)}: {dtype} of shape {shape} has {tensor.data_bytes} bytes, "
            f"its data_offsets are {_shown(list(offsets))}"
        )
    return tensor, offsets[0], offsets[1]


def _parse_naturals(name: str, key: str, value: object) -> tuple[int, ...]:
    # bool is an int to isinstance, and `true` is not a number
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ModelError(f"tensor {_shown(name)}: {key} is a list of integers, got {_shown(value)}")
    return tuple(value)


def _check_tiling(ranges: list[tuple[int, int, str]], data_bytes: int) -> None:
    position = 0
    for start, end, name in sorted(ranges):
        if start != position:
            kind = "overlaps the one before" if start < position else "leaves a hole before it"
            raise ModelError(f"tensor {_shown(name)}: its data {kind}: expected to start at {position}, got {start}")
        position = end
    if position != data_bytes:
        raise ModelError(f"the tensors have {position} bytes together, the file has {data_bytes} bytes of data")


def _shown(value: object) -> str:
    """Hostile values, cut to a length that a log line can carry."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


# Writing


def encode_header(manifest: ModelManifest, metadata: Mapping[str, str]) -> tuple[bytes, ModelIndex]:
    """The canonical header, its length in front, and where the data go. Raises ModelError."""
    entries: dict[str, object] = {}
    if metadata:
        entries[METADATA_KEY] = dict(sorted(metadata.items()))
    starts: dict[str, int] = {}
    position = 0
    # A manifest is in name order and sorting is stable, so that names decide within one element type.
    for tensor in sorted(manifest.tensors, key=lambda tensor: _LAYOUT_RANK[tensor.dtype]):
        if tensor.name == METADATA_KEY:
            raise ModelError(f"no tensor can be called {METADATA_KEY}: the format uses that name")
        starts[tensor.name] = position
        end = position + tensor.data_bytes
        entries[tensor.name] = {"dtype": str(tensor.dtype), "shape": tensor.shape, "data_offsets": (position, end)}
        position = end
    try:
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ModelError(f"tensor names and metadata are valid Unicode: {error}") from None
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > HEADER_MAX_BYTES:
        raise ModelError(f"a model file's header has at most {HEADER_MAX_BYTES} bytes, this one needs {len(text)}")
    data_start = LENGTH_BYTES + len(text)
    offsets = {name: data_start + start for name, start in starts.items()}
    index = ModelIndex(manifest, dict(sorted(metadata.items())), offsets, data_start + position)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, index


def write_model_file(
    path: Path, manifest: ModelManifest, metadata: Mapping[str, str], arrays: Mapping[str, TensorData]
) -> Digest:
    """Write a model whole or not at all, and return its digest.

    `arrays` holds each tensor's little-endian bytes, or an array of them (BF16 as uint16). Raises ModelError when they
    do not fit the manifest, StorageError when nothing changed, DurabilityUnknown when the file may or may not be there
    after a power cut.
    """
    header, index = encode_header(manifest, metadata)
    pieces = _pieces(header, index, arrays)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    running = hashlib.sha256()
    try:
        with partial.open("wb", buffering=0) as file:
            for piece in pieces:
                running.update(piece)
                _write_all(file.fileno(), piece)
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StorageError(f"cannot write the model file {path}: {error}") from error
        raise
    _sync_folder(path.parent)
    return Digest(running.digest())


def _pieces(header: bytes, index: ModelIndex, arrays: Mapping[str, TensorData]) -> Iterator[memoryview]:
    views = {name: _as_bytes(array) for name, array in arrays.items()}
    for tensor in index.manifest.tensors:
        if tensor.name not in views:
            raise ModelError(f"tensor {_shown(tensor.name)}: it has no data")
        if len(views[tensor.name]) != tensor.data_bytes:
            raise ModelError(
                f"tensor {_shown(tensor.name)}: {tensor.dtype} of shape {tensor.shape} has {tensor.data_bytes} bytes, "
                f"got {len(views[tensor.name])}"
            )
    if len(views) > len(index.manifest.tensors):
        raise ModelError(f"tensor {_shown(min(views.keys() - index.offsets.keys()))} is not in the manifest")
    return iter([memoryview(header), *(views[tensor.name] for tensor in index.in_file_order())])


def _as_bytes(array: TensorData) -> memoryview:
    """A flat view of the bytes. An array with gaps is copied."""
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return np.frombuffer(array, np.uint8).data if len(array) else memoryview(b"")


def _write_all(descriptor: int, piece: memoryview) -> None:
    while piece:
        piece = piece[os.write(descriptor, piece) :]


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DurabilityUnknown(f"cannot make the folder {folder} durable: {error}") from error


# Files and digests


class FileReader:
    """A `ByteReader` over a file. Reads go into one buffer, which grows to the longest read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = bytearray()
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise StorageError(f"cannot open the model file {path}: {error}") from error
        self._size = os.fstat(self._file.fileno()).st_size

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, length: int) -> memoryview:
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        view = memoryview(self._buffer)[:length]
        done = 0
        while done < length:
            try:
                count = os.preadv(self._file.fileno(), [view[done:]], offset + done)
            except OSError as error:
                raise StorageError(f"cannot read {self._path}: {error}") from error
            if count == 0:
                raise StorageError(f"{self._path} ends at {offset + done}, expected {length} bytes at {offset}")
            done += count
        return view

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def file_digest(reader: ByteReader) -> Digest:
    """The SHA-256 of everything in `reader`: a model's digest, and what `sha256sum` prints."""
    running = hashlib.sha256()
    for offset in range(0, reader.size, CHUNK_BYTES):
        running.update(reader.read_at(offset, min(CHUNK_BYTES, reader.size - offset)))
    return Digest(running.digest())
