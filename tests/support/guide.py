"""The queries of docs/guide-dashboards.md."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guide-dashboards.md").read_text(encoding="utf-8")


def queries() -> list[str]:
    """One for each line of a block; a line that begins with blanks goes on with the one before."""
    blocks = re.findall(r"^```promql\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return [query for block in blocks for query in re.sub(r"\n +", " ", block).splitlines()]
