"""The Wisconsin breast-cancer data, dealt out to hospitals that differ as hospitals do.

Nothing is made up: every row is a real one, and goes to one hospital or to the common test set. What is skewed is who
sees which patients. *Labels*: the share of malignant tumours runs from a few in a hundred (screening) to most of them
(a referral centre). *Features*: within each label, rows are sorted by texture and cut in order, so that a hospital
knows one part of the range. A model of one hospital alone is therefore worse than one of all of them.

Everything is drawn from the seed: the same seed deals the same rows.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

HOSPITALS_MIN = 2
HOSPITALS_MAX = 8  # of 569 rows, more would leave some hospital with a handful of one kind
TEST_SHARE = 0.4  # of all rows: with fewer of them, a single row more or less is a visible difference
HELD_OUT_SHARE = 0.2  # of a hospital's rows, for its own evaluation in each round
LABEL_SPREAD = 0.42  # a hospital's share of the malignant rows is 0.5 give or take this
SORTED_BY = "mean texture"
SORTING_NOISE = 0.3  # in standard deviations: the parts of the range overlap
HELD_OUT_COLUMN = "held_out"
LABEL_COLUMN = "malignant"
CONSTANT_DIGITS = 4

Floats: TypeAlias = npt.NDArray[np.float64]
Rows: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Tumours:
    """All rows, as scikit-learn has them; the label is 1 for malignant."""

    columns: tuple[str, ...]
    features: Floats
    labels: Rows


@dataclass(frozen=True, slots=True)
class HospitalRows:
    """Which rows one hospital has: to train on, and held out for its own evaluation."""

    name: str
    train: Rows
    held_out: Rows


@dataclass(frozen=True, slots=True)
class Dealt:
    """Where each row went, and the constants that the hospitals agreed on before they started."""

    hospitals: tuple[HospitalRows, ...]
    test: Rows
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_tumours() -> Tumours:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return Tumours(
        columns=tuple(map(str, bunch.feature_names)),
        features=np.asarray(bunch.data, dtype=np.float64),
        labels=1 - np.asarray(bunch.target, dtype=np.int64),  # scikit-learn's 0 is malignant
    )


def hospital_names(count: int) -> tuple[str, ...]:
    return tuple(f"hospital-{chr(ord('a') + number)}" for number in range(count))


def deal(tumours: Tumours, *, hospitals: int, seed: int) -> Dealt:
    """Deal the rows out."""
    random = np.random.default_rng(seed)
    malignant_shares = np.linspace(0.5 - LABEL_SPREAD, 0.5 + LABEL_SPREAD, hospitals)
    random.shuffle(malignant_shares)
    test: list[Rows] = []
    hands: list[list[Rows]] = [[] for _ in range(hospitals)]
    for label in (0, 1):
        rows = random.permutation(np.flatnonzero(tumours.labels == label))
        cut = round(TEST_SHARE * len(rows))
        test.append(rows[:cut])
        shares = malignant_shares if label else 1 - malignant_shares
        for hand, part in zip(hands, _cut_in_order(tumours, rows[cut:], shares, random), strict=True):
            hand.append(part)
    dealt = tuple(
        _held_out(name, random.permutation(np.concatenate(hand)))
        for name, hand in zip(hospital_names(hospitals), hands, strict=True)
    )
    trained_on = tumours.features[np.concatenate([hospital.train for hospital in dealt])]
    return Dealt(
        hospitals=dealt,
        test=np.sort(np.concatenate(test)),
        mean=_constants(trained_on.mean(axis=0)),
        std=_constants(trained_on.std(axis=0)),
    )


def write_rows(path: Path, tumours: Tumours, *, train: Rows, held_out: Rows) -> None:
    """A CSV with a header: whether the row is held out, features, then the label."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow([HELD_OUT_COLUMN, *(name.replace(" ", "_") for name in tumours.columns), LABEL_COLUMN])
        for mark, rows in enumerate((train, held_out)):
            for row in rows:
                lines.writerow([mark, *map(repr, tumours.features[row].tolist()), int(tumours.labels[row])])


def _cut_in_order(tumours: Tumours, rows: Rows, shares: Floats, random: np.random.Generator) -> list[Rows]:
    """Cut rows of one label into parts of these relative sizes along one feature; which part is whose is drawn."""
    feature = tumours.features[rows, tumours.columns.index(SORTED_BY)]
    in_order = rows[np.argsort(feature / feature.std() + SORTING_NOISE * random.normal(size=len(rows)), kind="stable")]
    owners = random.permutation(len(shares))
    ends = np.round(np.cumsum(shares[owners]) / shares.sum() * len(rows)).astype(np.int64)
    parts: list[Rows] = [in_order[:0]] * len(shares)
    for owner, start, end in zip(owners, [0, *ends[:-1]], ends, strict=True):
        parts[owner] = in_order[start:end]
    return parts


def _held_out(name: str, rows: Rows) -> HospitalRows:
    cut = max(1, round(HELD_OUT_SHARE * len(rows)))
    return HospitalRows(name, np.sort(rows[cut:]), np.sort(rows[:cut]))


def _constants(values: Sequence[float] | Floats) -> tuple[float, ...]:
    """As people would write them down: a few digits."""
    return tuple(float(f"{value:.{CONSTANT_DIGITS}g}") for value in values)
