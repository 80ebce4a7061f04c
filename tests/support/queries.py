"""The queries that documents show their readers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

_DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCUMENTS: Mapping[str, str] = {
    name: (_DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("guide-dashboards", "RUNBOOK")
}
"""Those that have some, by name."""


def queries(document: str) -> list[str]:
    """One for each line of a block; a line that begins with blanks goes on with the one before."""
    blocks = re.findall(r"^```promql\n(.*?)^```", DOCUMENTS[document], re.MULTILINE | re.DOTALL)
    return [query for block in blocks for query in re.sub(r"\n +", " ", block).splitlines()]


def all_queries() -> dict[str, str]:
    """Of all documents, by where they stand."""
    return {f"{document}: {query}": query for document in DOCUMENTS for query in queries(document)}
