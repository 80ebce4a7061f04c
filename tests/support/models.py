"""Small models for tests, drawn by hypothesis or made from a seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import strategies as st

from shared.tensors import encode_header
from shared.update import DType, ModelManifest, TensorSpec

Tensors = Mapping[str, bytes]

FLOATS = (DType.F64, DType.F32, DType.F16, DType.BF16)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda name: name != "__metadata__")
texts = st.text(st.characters(codec="utf-8"), max_size=8)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@st.composite
def manifests(draw: st.DrawFn) -> ModelManifest:
    """A manifest with at least one number to train."""
    drawn = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    tensors = [TensorSpec(name, draw(st.sampled_from(DType)), draw(shapes)) for name in drawn[1:]]
    trained = TensorSpec(drawn[0], draw(st.sampled_from(FLOATS)), draw(st.sampled_from([(), (1,), (3, 2), (7,)])))
    return ModelManifest.of([trained, *tensors])


metadata = st.dictionaries(texts, texts, max_size=3)


def stored_values(dtype: DType, values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bytes:
    """Plain, inexact storing of numbers that need no care."""
    match dtype:
        case DType.F64:
            return values.astype("<f8").tobytes()
        case DType.F32:
            return values.astype("<f4").tobytes()
        case DType.F16:
            return values.astype("<f2").tobytes()
        case DType.BF16:
            return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        case DType.BOOL:
            return (values > 0).astype(np.uint8).tobytes()
        case _:
            return (np.arange(values.size * dtype.item_bytes) % 256).astype(np.uint8).tobytes()


def random_tensors(manifest: ModelManifest, seed: int) -> dict[str, bytes]:
    """Moderate random numbers for every tensor."""
    generator = np.random.default_rng(seed)
    return {
        tensor.name: stored_values(tensor.dtype, generator.normal(size=tensor.elements)) for tensor in manifest.tensors
    }


def model_bytes(manifest: ModelManifest, tensors: Tensors, extra: Mapping[str, str] | None = None) -> bytes:
    """A whole file in the canonical layout."""
    header, index = encode_header(manifest, extra or {})
    return header + b"".join(tensors[tensor.name] for tensor in index.in_file_order())
