"""What a campaign met: a table for each mode and side, phases down and faults across. A dash: the cell makes no sense
(`cells.NOT_DRAWN`); a zero is an empty cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.faults.campaign import Done
from tests.faults.cells import NOT_DRAWN, PHASES, Cell, Fault, Mode, Side, all_cells

Row = tuple[str, ...]


def tables(done: Sequence[Done]) -> dict[tuple[Mode, Side], list[Row]]:
    met, sensible = Counter(kept.draw.cell for kept in done if not kept.failure), set(all_cells())

    def entry(cell: Cell) -> str:
        return str(met[cell]) if cell in sensible else "-"

    return {
        (mode, side): [
            ("phase", *Fault),
            *((phase, *(entry(Cell(mode, side, phase, fault)) for fault in Fault)) for phase in phases),
        ]
        for (mode, side), phases in PHASES.items()
    }


def empty_cells(done: Sequence[Done]) -> list[Cell]:
    return sorted(set(all_cells()) - {kept.draw.cell for kept in done})


def text(done: Sequence[Done]) -> str:
    parts = []
    for (mode, side), rows in tables(done).items():
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in rows]
        parts.append("\n".join([f"\n{side}, {mode} rounds", *lines]))
    return "\n".join(parts) + "\n"


def markdown(done: Sequence[Done], *, seed: int, disks: str) -> str:
    failed = sum(bool(kept.failure) for kept in done)
    parts = [
        f"{len(done)} faults, seed {seed}, {failed} failures, {len(empty_cells(done))} empty cells; {disks}.",
    ]
    for (mode, side), (head, *rows) in tables(done).items():
        lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * len(Fault)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        parts.append("\n".join([f"At the {side}, in {mode} rounds:", "", *lines]))
    return "\n\n".join([*parts, f"Where a dash stands:\n\n{NOT_DRAWN}"])
