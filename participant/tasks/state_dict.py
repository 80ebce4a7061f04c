"""Where torch meets the wire's layout: a model's tensors as a manifest, a file and a flat vector.

`describe` looks at `model.state_dict()` and says what is in it under *plain* names: those that the model has without
DataParallel, DistributedDataParallel and torch.compile, wherever these were put. Tensors that are one and the same
memory (tied weights) are one tensor of the manifest, under the first of their names in UTF-8 order; the other names
are *aliases* and stand in the metadata of the model file. What cannot be averaged, or not written down without loss,
is refused by name.

Global values come in through `load_global`, a silo's update goes out through `write_update`: float32 differences,
taken in float64, of the floating-point tensors in manifest order. Integer and boolean buffers never go out. Both work
on pieces: neither makes a second copy of the model.

A model that does not suit is a `ModelError`. Numbers that are not finite are an outcome, `NonFinite`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from shared.errors import ModelError
from shared.ids import Digest
from shared.tensors import METADATA_KEY, ByteReader, FileReader, ModelIndex, read_index, write_model_file
from shared.update import CHUNK_BYTES, DType, ModelManifest, TensorSpec

DTYPES = {
    torch.float64: DType.F64, torch.float32: DType.F32, torch.float16: DType.F16, torch.bfloat16: DType.BF16,
    torch.int64: DType.I64, torch.int32: DType.I32, torch.int16: DType.I16, torch.int8: DType.I8,
    torch.uint64: DType.U64, torch.uint32: DType.U32, torch.uint16: DType.U16, torch.uint8: DType.U8,
    torch.bool: DType.BOOL,
}  # fmt: skip

FORMAT_KEY = "format"  # what PyTorch's readers of safetensors look for
_EXTRA_STATE = "_extra_state"  # what nn.Module calls the value of get_extra_state: pickled, as a rule
_CHUNK_ELEMENTS = CHUNK_BYTES // 4  # float32 cells


@dataclass(frozen=True, slots=True)
class ModelTensors:
    """A model's tensors under their plain names. They share memory with the model."""

    manifest: ModelManifest
    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    """Other names of a tied tensor -> its name in the manifest."""
    own_names: Mapping[str, str]
    """Plain name -> the name in the model's own `state_dict()`, for tensors and aliases."""


@dataclass(frozen=True, slots=True)
class UpdateWritten:
    """The update is in its file."""

    parameters: int


@dataclass(frozen=True, slots=True)
class NonFinite:
    """The first tensor, in manifest order, whose update holds a NaN or an infinity."""

    tensor: str


def describe(model: nn.Module) -> ModelTensors:
    """The tensors that a job on this model is about. Raises ModelError, naming what no update can carry."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    own_names: dict[str, str] = {}
    places: dict[tuple[object, ...], str] = {}
    for plain, own, value in sorted(_entries(model), key=lambda entry: entry[0].encode("utf-8", "surrogatepass")):
        if plain in own_names:
            raise ModelError(f"tensor {plain!r}: the model has two of that name once wrappers are left out")
        tensor = _checked(plain, value)
        own_names[plain] = own
        first = places.setdefault(_place(tensor, plain), plain)
        if first == plain:
            kept[plain] = tensor
        else:
            aliases[plain] = first
    _refuse_overlaps(kept)
    manifest = ModelManifest.of(
        TensorSpec(name, DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in kept.items()
    )
    return ModelTensors(manifest, kept, aliases, own_names)


def write_model(model: nn.Module, path: Path) -> Digest:
    """Write the model as a safetensors file in canonical form, and return its digest. Raises ModelError."""
    found = describe(model)
    arrays = {
        name: tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        for name, tensor in found.tensors.items()
    }
    return write_model_file(path, found.manifest, {FORMAT_KEY: "pt", **found.aliases}, arrays)


def load_global(model: nn.Module, path: Path) -> ModelManifest:
    """Load a model file, strictly: every tensor, nothing else, and the same ties.

    Raises ModelError naming the tensor, what was expected and what came, before anything is changed. Raises
    StorageError when the file cannot be read.
    """
    found = describe(model)
    with FileReader(path) as reader:
        index = read_index(reader)
    check_manifest(expected=found.manifest, got=index.manifest)
    _check_aliases(found, index)
    with safe_open(path, framework="pt") as file:
        # The tensors are views of the mapped file: this holds no second model in memory.
        values = {own: file.get_tensor(found.aliases.get(plain, plain)) for plain, own in found.own_names.items()}
        try:
            model.load_state_dict(values, strict=True)
        except RuntimeError as error:
            raise ModelError(f"the model does not take its own state_dict: {error}") from None
    return index.manifest


def write_update(model: nn.Module, global_path: Path, out_path: Path) -> UpdateWritten | NonFinite:
    """Write section 0 of an update: float32(float64(local) - float64(global)), little-endian, in manifest order.

    A file that is there is written over in place: the room that was reserved for it stays its own. Raises ModelError
    when the model's tensors are not those of the global file. The caller makes the file durable.
    """
    found = describe(model)
    out_path.touch(mode=0o600)
    with FileReader(global_path) as reader, out_path.open("r+b") as out:
        index = read_index(reader)
        check_manifest(expected=index.manifest, got=found.manifest)
        _check_aliases(found, index)
        for tensor in index.manifest.aggregated():
            if not _append_delta(found.tensors[tensor.name], tensor, reader, index.offset_of(tensor.name), out):
                return NonFinite(tensor.name)
        out.truncate()
    return UpdateWritten(index.manifest.parameters)


def check_manifest(*, expected: ModelManifest, got: ModelManifest) -> None:
    """Raises ModelError naming the first tensor that differs, what was expected and what came."""
    ours = {tensor.name: tensor for tensor in expected.tensors}
    theirs = {tensor.name: tensor for tensor in got.tensors}
    for name in sorted(ours.keys() | theirs.keys(), key=lambda name: name.encode("utf-8", "surrogatepass")):
        if ours.get(name) != theirs.get(name):
            raise ModelError(f"tensor {name!r}: expected {_shape(ours.get(name))}, got {_shape(theirs.get(name))}")


def _entries(model: nn.Module) -> Iterator[tuple[str, str, object]]:
    """(plain name, own name, value) of everything in `model.state_dict()`."""
    for own, value in model.state_dict().items():
        yield _plain_name(model, own), own, value


def _plain_name(model: nn.Module, own: str) -> str:
    """`own` without the steps that lead through a wrapper, found by walking from the model to the tensor."""
    kept: list[str] = []
    module: nn.Module | None = model
    for step in own.split("."):
        if module is None or step != _wrapped_child(module):
            kept.append(step)
        module = None if module is None else module._modules.get(step)  # noqa: SLF001 - get_submodule raises, or returns "" for itself
    return ".".join(kept)


def _wrapped_child(module: nn.Module) -> str | None:
    """The name under which a wrapper keeps the module that it wraps."""
    if isinstance(module, DataParallel | DistributedDataParallel):
        return "module"
    # Importing torch._dynamo takes seconds. While nobody has, no compiled module exists.
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return "_orig_mod" if dynamo is not None and isinstance(module, dynamo.OptimizedModule) else None


def _checked(name: str, value: object) -> Tensor:
    """`value` as a tensor that can be carried. Raises ModelError."""
    if name.rpartition(".")[2] == _EXTRA_STATE:
        raise ModelError(f"entry {name!r}: extra state of a module is refused; keep it in Task.state_dict instead")
    if not isinstance(value, Tensor):
        raise ModelError(f"entry {name!r}: a model is made of tensors, got {type(value).__name__}")
    if name in {METADATA_KEY, FORMAT_KEY}:
        raise ModelError(f"tensor {name!r}: a model file uses that name for itself; choose another")
    if refused := refusal_of(value):
        raise ModelError(f"tensor {name!r}: {refused}")
    return value


def refusal_of(tensor: Tensor) -> str | None:
    """Why a tensor cannot be written to a model file; None if it can."""
    if is_lazy(tensor):
        return "it is lazy and has no shape yet; run one batch through the model in build_model"
    if tensor.is_quantized:
        return "it is quantised; federate the floating-point model and quantise what is exported"
    if tensor.is_complex():
        return "it is complex; keep its real and imaginary parts as two tensors"
    if tensor.layout is not torch.strided:
        return f"it is sparse ({tensor.layout}); use a dense tensor"
    if tensor.is_meta:
        return "it is on the meta device and has no values; materialise it in build_model"
    if tensor.dtype not in DTYPES:
        return f"its element type {tensor.dtype} is not carried; use one of {', '.join(map(str, DTYPES))}"
    if type(tensor.detach()) is not Tensor:
        return f"it is a {type(tensor).__name__}, a kind of tensor with a layout of its own; use a plain tensor"
    if any(extent > 1 and stride == 0 for extent, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        return "it is expanded: several elements are one place in memory; use a copy (.clone())"
    return None


def _place(tensor: Tensor, name: str) -> tuple[object, ...]:
    """Equal for two tensors that are one memory seen in one way."""
    if tensor.numel() == 0:
        return (name,)  # no memory, so never tied
    storage = tensor.untyped_storage().data_ptr()
    return (tensor.device, storage, tensor.storage_offset(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _refuse_overlaps(tensors: Mapping[str, Tensor]) -> None:
    """Views of one storage side by side are fine (recurrent layers have them); views that overlap are not.

    The range from the first to the last byte decides, so that interleaved views are refused as well.
    """
    ranges = sorted(
        (str(tensor.device), start, end, name)
        for name, tensor in tensors.items()
        if tensor.numel()
        for start, end in [_byte_range(tensor)]
    )
    for (device, _, end, name), (next_device, next_start, _, next_name) in pairwise(ranges):
        if device == next_device and next_start < end:
            raise ModelError(
                f"tensor {next_name!r}: it shares a part of its memory with {name!r}, without being the same tensor; "
                "tie whole tensors, or make one of them a copy (.clone())"
            )


def _byte_range(tensor: Tensor) -> tuple[int, int]:
    start = tensor.data_ptr()
    reach = sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (reach + 1) * tensor.element_size()


def _check_aliases(found: ModelTensors, index: ModelIndex) -> None:
    """The file's ties, where it says any, must be the model's."""
    said = {alias: name for alias, name in index.metadata.items() if alias != FORMAT_KEY}
    if not said:
        return
    for alias in sorted(said.keys() | found.aliases.keys()):
        in_file, in_model = said.get(alias), found.aliases.get(alias)
        if in_file != in_model:
            raise ModelError(f"tensor {alias!r}: in the file it is {_tie(in_file)}, in the model {_tie(in_model)}")


def _tie(name: str | None) -> str:
    return "not tied" if name is None else f"tied to {name!r}"


def _shape(tensor: TensorSpec | None) -> str:
    return "no such tensor" if tensor is None else f"{tensor.dtype} of shape {list(tensor.shape)}"


def _append_delta(local: Tensor, spec: TensorSpec, reader: ByteReader, offset: int, out: BinaryIO) -> bool:
    """Append one tensor's differences, piece by piece; False at the first that is not finite."""
    flat = local.detach().reshape(-1)
    for start in range(0, spec.elements, _CHUNK_ELEMENTS):
        here = flat[start : start + _CHUNK_ELEMENTS].cpu()
        size = spec.dtype.item_bytes
        there = torch.frombuffer(reader.read_at(offset + start * size, here.numel() * size), dtype=here.dtype)
        delta = (here.double() - there.double()).float()
        if not bool(torch.isfinite(delta).all()):
            return False
        out.write(delta.numpy().astype("<f4", copy=False).data)
    return True
