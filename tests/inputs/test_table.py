"""Every row of the table: the message, the exit code, nothing lost and nothing left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inputs.asked import Asked, running_coordinator
from tests.inputs.place import Place, Row
from tests.inputs.running import changes, matches, run_row, tree
from tests.inputs.table import ROWS


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with running_coordinator(tmp_path_factory.mktemp("asked")) as found:
        yield found


@pytest.fixture
def place(asked: Asked, tmp_path: Path) -> Place:
    return asked.copy(tmp_path / "consilo")


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.name, marks=[pytest.mark.long] if row.long else []) for row in ROWS]
)
def test_a_mistake_gets_a_clear_answer(row: Row, place: Place, asked: Asked) -> None:
    row.spoil(place)
    before = tree(place.folder)
    outcome = run_row(row, place, asked.known)
    assert outcome.code == row.code, outcome.output
    assert any(matches(said, row.says) for said in outcome.said), outcome.said or outcome.output
    assert "Traceback" not in outcome.output
    assert changes(before, tree(place.folder), allowed=row.leaves) == []


def test_no_two_rows_have_one_name() -> None:
    assert [name for name, times in Counter(row.name for row in ROWS).items() if times > 1] == []
