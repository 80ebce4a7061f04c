"""What masked rounds compute in real processes: the plain model up to rounding, and the same bytes each time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coordinator.storage.listing import DATABASE_FILE
from participant.tasks.state_dict import write_model
from shared.protocol.messages import RoundResult
from shared.secagg.fixed_point import range_exponents, scale_exponent
from shared.update import Encoding
from shared.wire.operations import JobDetail
from shared.wire.sealed import decode_envelope, open_sealed
from tests.cluster.tasks.models_task import build
from tests.support.federation import Federation, job_spec, rounds_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROWS = {"hospital-a": 24, "hospital-b": 40, "hospital-c": 16}
TOTAL_ROWS = float(sum(ROWS.values()))
PARTS = ("mlp", "cnn", "scales")
Model = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def initial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("initial") / "initial.safetensors"
    write_model(build(), path)
    return path


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    options = {member: {"silo": silo, "rows": rows} for silo, (member, rows) in enumerate(ROWS.items())}
    folder = tmp_path_factory.mktemp("federation")
    # One initial model, and totals over it that are counted differently: silos allow that by name only.
    policy = {"allowed_repeats": ["u64-1", "u64-2", "u16-equal", "u64-equal"]}
    with Federation(folder, entry="models_task:ThreeModelsTask", options=options, policy=policy) as started:
        started.start()
        yield started


def run(federation: Federation, job: str, initial: Path, *, rounds: int, **changes: Any) -> JobDetail:
    return federation.finish(
        federation.submit(job, job_spec(federation.members, initial, rounds=rounds, **changes), initial)
    )


def versions(detail: JobDetail) -> list[str]:
    return [summary["next_model"] for summary in rounds_of(detail)]


def result_of(federation: Federation, job: str, number: int) -> RoundResult:
    """As it is on record at the coordinator, which is still running: it may be read beside it."""
    path = federation.folder / "coordinator-data" / DATABASE_FILE
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        (stored,) = database.execute("SELECT result FROM rounds WHERE job = ? AND number = ?", (job, number)).fetchone()
    database.close()
    key = federation.consortium.coordinator().signing_key.verifying_key
    return open_sealed(RoundResult, decode_envelope(stored), verifier=key, index=0).value


def rounding_bound(model: Model, tops: tuple[int, ...] | None, encoding: Encoding) -> dict[str, float]:
    """How far a mean of masked updates may be from the real one, for each tensor: n / (2 S sum w)."""
    names = sorted(name for name, value in model.items() if value.is_floating_point())
    exponents = range_exponents(encoding=encoding, top_cells=tops, tensors=len(names))
    scales = [scale_exponent(encoding=encoding, members=len(ROWS), range_exponent=exponent) for exponent in exponents]
    return {name: len(ROWS) / (2 * 2.0**scale * TOTAL_ROWS) for name, scale in zip(names, scales, strict=True)}


def require_near(masked: Model, plain: Model, bounds: dict[str, float]) -> None:
    assert {name.partition(".")[0] for name in masked} == set(PARTS)
    for name, value in masked.items():
        if not value.is_floating_point():
            assert torch.equal(value, plain[name])
            continue
        # Both were rounded to float32 at the end: half a unit in the last place each.
        last_place = torch.finfo(torch.float32).eps * plain[name].abs().double()
        distance = (value.double() - plain[name].double()).abs()
        assert bool((distance <= bounds[name] + last_place).all()), f"{name}: {distance.max()} above {bounds[name]}"


def test_a_masked_model_is_the_plain_one_up_to_rounding(federation: Federation, initial: Path) -> None:
    """Each round of a masked job against a plain round from the same version."""
    masked = run(federation, "masked-1", initial, rounds=3)
    assert [summary["encoding"] for summary in rounds_of(masked)] == ["u64", "u32", "u32"]
    starts: list[str | None] = [None, *versions(masked)[:-1]]
    moved = dict.fromkeys(("scales.coarse", "scales.fine"), 0.0)
    tops = None
    for number, (start, version) in enumerate(zip(starts, versions(masked), strict=True), start=1):
        there = {"start": start} if start is not None else {}
        plain = run(federation, f"plain-{number}", initial, rounds=1, masking={"mode": "plain"}, **there)
        after, expected = (load_file(federation.model(digest)) for digest in (version, versions(plain)[0]))
        before = load_file(federation.model(start) if start is not None else initial)
        encoding = Encoding.U64 if tops is None else Encoding.U32
        require_near(after, expected, rounding_bound(after, tops, encoding))
        tops = result_of(federation, "masked-1", number).top_cells
        for name in moved:
            moved[name] = max(moved[name], float((after[name] - before[name]).abs().max()))
    assert moved["scales.coarse"] / moved["scales.fine"] == pytest.approx(1e6, rel=0.5), "the scales do differ"


@pytest.mark.parametrize("encoding", ["u32", "u64"])
def test_masked_reruns_are_byte_identical(federation: Federation, initial: Path, encoding: str) -> None:
    masking = {"encoding": encoding}
    reruns = [
        versions(run(federation, f"{encoding}-{number}", initial, rounds=2, masking=masking)) for number in (1, 2)
    ]
    assert reruns[0] == reruns[1]


def test_half_the_bytes_and_equal_weights(federation: Federation, initial: Path) -> None:
    rules = {"encoding": "u16", "weights": "equal"}
    done = run(federation, "u16-equal", initial, rounds=3, masking=rules)
    summaries = rounds_of(done)
    assert [summary["encoding"] for summary in summaries] == ["u64", "u16", "u16"]
    assert [summary["weight_total"] for summary in summaries] == [3.0, 3.0, 3.0]
    finer = run(federation, "u64-equal", initial, rounds=3, masking={"encoding": "u64", "weights": "equal"})
    last, exact = (load_file(federation.model(versions(detail)[-1])) for detail in (done, finer))
    for name, value in last.items():
        if value.is_floating_point():
            coarse = COARSE_STEPS * float(exact[name].abs().max())
            torch.testing.assert_close(value, exact[name], rtol=0, atol=coarse)


COARSE_STEPS = 0.01  # of a tensor's largest value: what two rounds of 16 bits may move it
