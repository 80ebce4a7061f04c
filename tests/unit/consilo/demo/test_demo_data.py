from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from consilo.demo.data import (
    HOSPITALS_MAX,
    HOSPITALS_MIN,
    LABEL_COLUMN,
    SORTED_BY,
    Dealt,
    Tumours,
    deal,
    hospital_names,
    load_tumours,
    write_rows,
)

SEEDS = (0, 1, 7, 42)


@pytest.fixture(scope="module")
def tumours() -> Tumours:
    return load_tumours()


def everything(dealt: Dealt) -> list[int]:
    hands = [rows for hospital in dealt.hospitals for rows in (hospital.train, hospital.held_out)]
    return [int(row) for rows in (dealt.test, *hands) for row in rows]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("hospitals", range(HOSPITALS_MIN, HOSPITALS_MAX + 1))
def test_each_row_goes_to_one_place(tumours: Tumours, hospitals: int, seed: int) -> None:
    rows = everything(deal(tumours, hospitals=hospitals, seed=seed))
    assert sorted(rows) == list(range(len(tumours.labels)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("hospitals", range(HOSPITALS_MIN, HOSPITALS_MAX + 1))
def test_each_hospital_has_rows_of_both_kinds_and_some_held_out(tumours: Tumours, hospitals: int, seed: int) -> None:
    for hospital in deal(tumours, hospitals=hospitals, seed=seed).hospitals:
        labels = tumours.labels[np.concatenate([hospital.train, hospital.held_out])]
        assert set(labels) == {0, 1}
        assert len(hospital.train) >= 20
        assert len(hospital.held_out) >= 1


def test_the_seed_decides(tumours: Tumours) -> None:
    first, again, other = (deal(tumours, hospitals=4, seed=seed) for seed in (3, 3, 4))
    assert everything(first) == everything(again)
    assert (first.mean, first.std) == (again.mean, again.std)
    assert everything(first) != everything(other)


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_are_skewed(tumours: Tumours, seed: int) -> None:
    dealt = deal(tumours, hospitals=4, seed=seed)
    shares = sorted(float(tumours.labels[hospital.train].mean()) for hospital in dealt.hospitals)
    assert shares[0] < 0.15
    assert shares[-1] > 0.75


@pytest.mark.parametrize("seed", SEEDS)
def test_features_are_skewed_within_each_label(tumours: Tumours, seed: int) -> None:
    dealt = deal(tumours, hospitals=4, seed=seed)
    column = tumours.columns.index(SORTED_BY)
    for label in (0, 1):
        of_label = tumours.features[tumours.labels == label, column]
        means = [
            tumours.features[hospital.train[tumours.labels[hospital.train] == label], column].mean()
            for hospital in dealt.hospitals
        ]
        assert max(means) - min(means) > of_label.std()


def test_test_rows_are_as_mixed_as_all_rows(tumours: Tumours) -> None:
    dealt = deal(tumours, hospitals=4, seed=7)
    assert tumours.labels[dealt.test].mean() == pytest.approx(tumours.labels.mean(), abs=0.01)


def test_a_file_holds_the_rows_exactly(tumours: Tumours, tmp_path: Path) -> None:
    hospital = deal(tumours, hospitals=2, seed=1).hospitals[0]
    write_rows(tmp_path / "rows.csv", tumours, train=hospital.train, held_out=hospital.held_out)
    rows = np.concatenate([hospital.train, hospital.held_out])
    with (tmp_path / "rows.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert header[-1] == LABEL_COLUMN
    assert len(header) == 32
    assert [line[0] for line in lines] == ["0"] * len(hospital.train) + ["1"] * len(hospital.held_out)
    assert np.array_equal(np.array([line[1:-1] for line in lines], dtype=np.float64), tumours.features[rows])
    assert [int(line[-1]) for line in lines] == tumours.labels[rows].tolist()


def test_hospitals_have_names() -> None:
    assert hospital_names(3) == ("hospital-a", "hospital-b", "hospital-c")
