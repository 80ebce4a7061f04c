"""Write docs/bad-inputs.md."""

from __future__ import annotations

from tests.inputs.page import PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
