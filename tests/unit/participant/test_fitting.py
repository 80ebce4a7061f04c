"""How large an update is, tensor by tensor: what is found, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from participant import fitting
from participant.consent import VerifiedResult
from participant.fitting import Fit, NoUpdate, fit_of, largest_of
from participant.round.phases import Measured, Offer
from shared.protocol.messages import RoundResult, Sealed, result_digest
from shared.reasons import DropReason
from shared.tensors import encode_header
from shared.update import RANGE_NONE, DType, Encoding, ModelManifest, TensorSpec
from shared.wire.sealed import encode_envelope
from tests.support.rounds import make_masked_spec, make_plan, offer_of, result_of, start_of

SPEC = make_masked_spec()
ONE = Measured(1.0, (0.5,))


def previous(top_cells: tuple[int, ...]) -> Sealed[RoundResult]:
    return result_of(start_of(make_plan(SPEC), SPEC), (1, 2, 3), top_cells=top_cells)


def offer(*, top_cells: tuple[int, ...] | None = None, verified: bool = True, **changes: Any) -> Offer:
    """After a round with these top cells, in which this silo was, if it `verified` that itself."""
    if top_cells is None:
        return replace(offer_of(SPEC), **changes)
    carried = previous(top_cells)
    envelope = encode_envelope(carried.envelope)
    return offer_of(
        SPEC,
        plan=make_plan(SPEC, number=2, previous_result=envelope),
        previous=carried.value,
        verified=VerifiedResult(1, result_digest(envelope)) if verified else None,
    )


def look(folder: Path, tensors: list[list[float]], of: Offer, weight: float = 1.0) -> Fit:
    manifest = ModelManifest.of([TensorSpec(f"t{place}", DType.F32, (len(t),)) for place, t in enumerate(tensors)])
    header, _ = encode_header(manifest, {})
    (folder / "model").write_bytes(header + bytes(4 * manifest.parameters))
    (folder / "deltas").write_bytes(np.concatenate([np.array(t, "<f4") for t in tensors]).tobytes())
    return fit_of(
        of,
        Measured(weight, (0.5,)),
        deltas=folder / "deltas",
        parameters=manifest.parameters,
        model=folder / "model",
    )


def test_each_tensor_has_the_cell_of_its_largest_product(tmp_path: Path) -> None:
    found = look(tmp_path, [[0.5, -3.0], [0.0, 0.0], [], [2.0**-40], [1.0]], offer(), weight=2.0)
    assert found == Fit((3, RANGE_NONE, RANGE_NONE, -31, 1), fits=True)


@pytest.mark.parametrize(
    ("largest", "top_cells", "fits"),
    [
        ([8.0], (1,), True),
        ([8.1], (1,), False),
        ([-8.1], (1,), False),
        ([1.0, 100.0], (0, 5), True),
        ([1.0, 100.0], (5, 0), False),
        ([0.0, 2.0**-29], (RANGE_NONE, RANGE_NONE), True),
        ([0.0, 2.0**-28], (RANGE_NONE, RANGE_NONE), False),
        ([1.0, 2.0**-18], (0, RANGE_NONE), True),  # the noise of a tensor is measured by the largest one
        ([1.0, 2.0**-17], (0, RANGE_NONE), False),
    ],
)
def test_an_update_fits_within_four_times_the_last_range(
    tmp_path: Path, largest: list[float], top_cells: tuple[int, ...], *, fits: bool
) -> None:
    assert look(tmp_path, [[value] for value in largest], offer(top_cells=top_cells)).fits is fits


def test_before_the_first_result_everything_fits_that_can_be_masked(tmp_path: Path) -> None:
    assert offer().encoding is Encoding.U64
    assert look(tmp_path, [[2.0**32]], offer()) == Fit((32,), fits=True)
    with pytest.raises(NoUpdate, match="at most 2\\^32 can be masked") as refused:
        look(tmp_path, [[1.0], [2.0**32 * 1.01]], offer())
    assert refused.value.reason is DropReason.OUT_OF_RANGE


def test_the_weight_counts_as_it_will_be_encoded(tmp_path: Path) -> None:
    cut = make_masked_spec(masking={"max_weight": 4.0})
    equal = make_masked_spec(masking={"weights": "equal"})
    assert look(tmp_path, [[1.0]], offer_of(cut), weight=1e6).cells == (2,)
    assert look(tmp_path, [[1.0]], offer_of(equal), weight=1e6).cells == (0,)


def test_a_range_that_is_not_this_silos_own_knowledge_is_not_looked_at(tmp_path: Path) -> None:
    assert look(tmp_path, [[8.1]], offer(top_cells=(1,), verified=False)).fits


def test_a_result_of_another_model_says_nothing_about_this_one(tmp_path: Path) -> None:
    assert not look(tmp_path, [[0.0]], offer(top_cells=(1, 1))).fits


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, 4, 7])
def test_a_number_that_is_not_finite_is_no_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: float, place: int
) -> None:
    monkeypatch.setattr(fitting, "_PIECE_CELLS", 2)
    values = [1.0] * 8
    values[place] = poison
    with pytest.raises(NoUpdate, match="NaN or an infinity") as refused:
        look(tmp_path, [values[:5], values[5:]], offer())
    assert refused.value.reason is DropReason.NON_FINITE


def test_pieces_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).standard_normal(1000).astype("<f4")
    (tmp_path / "deltas").write_bytes(values.tobytes())
    sizes = (1, 0, 499, 300, 200)
    whole = largest_of(tmp_path / "deltas", sizes, 512)
    monkeypatch.setattr(fitting, "_PIECE_CELLS", 7)
    assert largest_of(tmp_path / "deltas", sizes, 512) == whole
    assert whole[2] == 2.0 * np.abs(values[1:500].astype("<f8")).max()


@pytest.mark.parametrize(
    ("parameters", "missing", "reason"),
    [
        (9, None, DropReason.MANIFEST_MISMATCH),
        (3, "deltas", DropReason.DISK),
        (3, "model", DropReason.DISK),
    ],
)
def test_a_spool_that_does_not_hold_the_update_is_a_reason(
    tmp_path: Path, parameters: int, missing: str | None, reason: DropReason
) -> None:
    look(tmp_path, [[1.0, 2.0, 3.0]], offer())
    if missing is not None:
        (tmp_path / missing).unlink()
    with pytest.raises(NoUpdate) as refused:
        fit_of(offer(), ONE, deltas=tmp_path / "deltas", parameters=parameters, model=tmp_path / "model")
    assert refused.value.reason is reason
