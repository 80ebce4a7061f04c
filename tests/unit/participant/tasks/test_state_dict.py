from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from participant.tasks.state_dict import (
    NonFinite,
    UpdateWritten,
    describe,
    load_global,
    write_model,
    write_update,
)
from shared.errors import ModelError, StorageError
from shared.update import CHUNK_BYTES, DType


class WithBuffer(nn.Module):
    def __init__(self, buffer: torch.Tensor, name: str = "odd") -> None:
        super().__init__()
        self.fine = nn.Parameter(torch.zeros(2))
        self.register_buffer(name, buffer)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


class WithExtraState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1)

    def get_extra_state(self) -> int:
        return 1

    def set_extra_state(self, state: int) -> None: ...


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            self.register_parameter("p_" + str(dtype).split(".")[1], nn.Parameter(torch.randn(3, 2).to(dtype)))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("small", torch.tensor([1, 2], dtype=torch.uint16))
        self.register_buffer("empty", torch.zeros(0, 4))


def shift_(model: nn.Module, by: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


def delta_of(path: Path) -> list[float]:
    return [float(value) for value in np.fromfile(path, "<f4")]


def test_the_manifest_is_in_utf8_order_with_plain_types_and_shapes() -> None:
    found = describe(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert [(spec.name, spec.dtype, spec.shape) for spec in found.manifest.tensors] == [
        ("0.bias", DType.F32, (3,)),
        ("0.weight", DType.F32, (3, 2)),
        ("1.bias", DType.F32, (3,)),
        ("1.num_batches_tracked", DType.I64, ()),
        ("1.running_mean", DType.F32, (3,)),
        ("1.running_var", DType.F32, (3,)),
        ("1.weight", DType.F32, (3,)),
    ]
    assert found.manifest.parameters == 21


def test_a_batchnorm_cnn_goes_out_and_comes_back(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))

    torch.manual_seed(1)
    model = build()
    model(torch.randn(2, 1, 5, 5))
    digest = write_model(model, tmp_path / "a")
    torch.manual_seed(2)
    other = build()
    other(torch.randn(2, 1, 5, 5))
    load_global(other, tmp_path / "a")
    for (name, left), right in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right), name
    assert write_model(other, tmp_path / "b") == digest
    other(torch.randn(2, 1, 5, 5))  # moves the running statistics
    assert write_update(other, tmp_path / "a", tmp_path / "u") == UpdateWritten(describe(other).manifest.parameters)
    # And plain PyTorch reads it.
    safetensors.torch.load_model(other, tmp_path / "a")
    assert other.get_buffer("1.num_batches_tracked") == 1


def test_the_update_is_the_float32_difference_in_manifest_order(tmp_path: Path) -> None:
    model = Mixed()
    write_model(model, tmp_path / "global")
    before = {name: tensor.to(torch.float64, copy=True) for name, tensor in model.state_dict().items()}
    shift_(model, 0.3)
    model.get_buffer("count").add_(1)
    assert write_update(model, tmp_path / "global", tmp_path / "u") == UpdateWritten(24)
    expected: list[float] = []
    for name in ("empty", "p_bfloat16", "p_float16", "p_float32", "p_float64"):
        expected += (model.state_dict()[name].double() - before[name]).float().flatten().tolist()
    assert delta_of(tmp_path / "u") == expected


def test_an_update_of_several_chunks_is_written_whole(tmp_path: Path) -> None:
    class Big(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Transposed: not contiguous, and its elements still go out in the order of its shape.
            self.wide = nn.Parameter(torch.zeros(3, CHUNK_BYTES // 8).t())
            self.zoo = nn.Parameter(torch.zeros(5))

    model = Big()
    write_model(model, tmp_path / "global")
    moved = torch.arange(model.wide.numel(), dtype=torch.float32).reshape(model.wide.shape)
    with torch.no_grad():
        model.wide.copy_(moved)
        model.zoo.add_(2)
    write_update(model, tmp_path / "global", tmp_path / "u")
    assert np.array_equal(
        np.fromfile(tmp_path / "u", "<f4"), np.append(np.arange(moved.numel(), dtype="<f4"), [np.float32(2)] * 5)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3.5e38])
def test_the_first_tensor_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    model = nn.Sequential(nn.Linear(2, 2).double(), nn.Linear(2, 2).double())
    write_model(model, tmp_path / "global")
    with torch.no_grad():
        model.get_parameter("1.weight")[1, 1] = value
        model.get_parameter("1.bias")[0] = value
    assert write_update(model, tmp_path / "global", tmp_path / "u") == NonFinite("1.bias")


def test_tied_weights_are_stored_once_under_their_first_name(tmp_path: Path) -> None:
    model = Tied()
    found = describe(model)
    assert [spec.name for spec in found.manifest.tensors] == ["embed.weight"]
    assert found.aliases == {"head.weight": "embed.weight"}
    write_model(model, tmp_path / "global")
    with safe_open(tmp_path / "global", framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "head.weight": "embed.weight"}
    other = Tied()
    load_global(other, tmp_path / "global")
    assert torch.equal(other.head.weight, model.embed.weight)
    assert other.head.weight is other.embed.weight
    shift_(other, 0.5)
    assert write_update(other, tmp_path / "global", tmp_path / "u") == UpdateWritten(15)
    assert (tmp_path / "u").stat().st_size == 60
    safetensors.torch.load_model(Tied(), tmp_path / "global")


def test_a_checkpoint_without_the_ties_in_its_metadata_still_loads(tmp_path: Path) -> None:
    model = Tied()
    safetensors.torch.save_file({"embed.weight": torch.ones(5, 3)}, tmp_path / "global")
    load_global(model, tmp_path / "global")
    assert torch.equal(model.head.weight, torch.ones(5, 3))


def test_ties_that_differ_are_refused(tmp_path: Path) -> None:
    model = Tied()
    write_model(model, tmp_path / "global")
    safetensors.torch.save_file({"embed.weight": torch.ones(5, 3)}, tmp_path / "odd", metadata={"tail": "embed.weight"})
    with pytest.raises(ModelError, match=r"'head.weight': in the file it is not tied, in the model tied to 'embed"):
        load_global(model, tmp_path / "odd")
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    with pytest.raises(ModelError, match=r"'head.weight': expected no such tensor, got F32 of shape \[5, 3\]"):
        write_update(model, tmp_path / "global", tmp_path / "u")


def test_wrappers_do_not_show_in_names(tmp_path: Path) -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    torch.manual_seed(0)
    plain = build()
    write_model(plain, tmp_path / "global")
    inside: Any = build()
    inside[0] = torch.compile(inside[0], backend="eager")
    inside[1] = nn.DataParallel(inside[1])
    compiled: Any = torch.compile(build(), backend="eager")
    for model in (nn.DataParallel(build()), compiled, nn.DataParallel(inside)):
        assert describe(model).manifest == describe(plain).manifest
        load_global(model, tmp_path / "global")
        assert write_update(model, tmp_path / "global", tmp_path / "u") == UpdateWritten(12)
        assert not any(delta_of(tmp_path / "u"))


def test_modules_that_are_called_like_a_wrapper_keep_their_names() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(1, 1)
            self._orig_mod = nn.Linear(1, 1)

    assert [spec.name for spec in describe(nn.DataParallel(Odd())).manifest.tensors] == [
        "_orig_mod.bias",
        "_orig_mod.weight",
        "module.bias",
        "module.weight",
    ]


def test_views_side_by_side_in_one_storage_are_fine(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            flat = torch.zeros(6)
            self.a, self.b = nn.Parameter(flat[:2]), nn.Parameter(flat[2:])

    model = Flat()
    assert not describe(model).aliases
    write_model(model, tmp_path / "global")
    shift_(model, 1)
    write_update(model, tmp_path / "global", tmp_path / "u")
    assert delta_of(tmp_path / "u") == [1] * 6


def overlapping() -> nn.Module:
    base = torch.zeros(4)
    model = WithBuffer(base[1:])
    model.fine = nn.Parameter(base[:2])
    return model


def transposed() -> nn.Module:
    model = WithBuffer(torch.zeros(2, 3))
    model.fine = nn.Parameter(model.get_buffer("odd").t())
    return model


def with_text() -> nn.Module:
    model = nn.Linear(1, 1)
    model.register_state_dict_post_hook(lambda _m, state, _p, _l: state.update(note="hello"))  # type: ignore[no-untyped-call]
    return model


class Labelled(torch.Tensor):
    pass


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), "tensor '0.bias': it is lazy"),
    "sparse": (lambda: WithBuffer(torch.zeros(2).to_sparse()), r"tensor 'odd': it is sparse \(torch.sparse_coo\)"),
    "complex": (lambda: WithBuffer(torch.zeros(2, dtype=torch.complex64)), "tensor 'odd': it is complex"),
    "meta": (lambda: WithBuffer(torch.zeros(2, device="meta")), "tensor 'odd': it is on the meta device"),
    "float8": (lambda: WithBuffer(torch.zeros(2, dtype=torch.float8_e4m3fn)), "tensor 'odd': its element type torch.f"),
    "extra state": (WithExtraState, "entry '_extra_state': extra state of a module"),
    "no tensor": (with_text, "entry 'note': a model is made of tensors, got str"),
    "overlap": (overlapping, "tensor 'odd': it shares a part of its memory with 'fine'"),
    "transposed": (transposed, "tensor 'odd': it shares a part of its memory with 'fine'"),
    "expanded": (lambda: WithBuffer(torch.zeros(1).expand(3)), "tensor 'odd': it is expanded"),
    "subclass": (lambda: WithBuffer(torch.zeros(2).as_subclass(Labelled)), "tensor 'odd': it is a Labelled"),
    "reserved name": (lambda: WithBuffer(torch.zeros(2), "__metadata__"), "'__metadata__': a model file uses"),
    "nothing to train": (nn.ReLU, "no floating-point tensor"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_update_can_carry_is_refused_by_name(kind: str) -> None:
    build, message = REFUSED[kind]
    with pytest.raises(ModelError, match=message):
        describe(build())


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning")
def test_quantised_tensors_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match="tensor 'odd': it is quantised"):
        describe(WithBuffer(torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, r"'bias': expected F32 of shape \[3\], got no such tensor"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)},
            r"'weight': expected F32 of shape \[3, 2\], got F32 of",
        ),
        ({"weight": torch.zeros(3, 2).half(), "bias": torch.zeros(3)}, r"'weight': expected F32 .* got F16 of shape"),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "more": torch.zeros(1)},
            r"'more': expected no such tensor, got F32 of shape \[1\]",
        ),
    ],
)
def test_a_file_for_another_model_is_refused_and_changes_nothing(
    tmp_path: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    model = nn.Linear(2, 3)
    before = model.weight.detach().clone()
    safetensors.torch.save_file(tensors, tmp_path / "global")
    with pytest.raises(ModelError, match=message):
        load_global(model, tmp_path / "global")
    assert torch.equal(model.weight, before)


def test_a_model_that_was_changed_while_training_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    write_model(model, tmp_path / "global")
    with pytest.raises(ModelError, match=r"'bias': expected F32 of shape \[3\], got BF16 of shape \[3\]"):
        write_update(model.bfloat16(), tmp_path / "global", tmp_path / "u")


def test_a_file_that_is_no_model_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open"):
        load_global(nn.Linear(1, 1), tmp_path / "absent")
    (tmp_path / "text").write_text(json.dumps({"weight": [1, 2]}))
    with pytest.raises(ModelError, match="safetensors"):
        load_global(nn.Linear(1, 1), tmp_path / "text")
