"""The page of messages is the table's."""

from __future__ import annotations

from tests.inputs.page import PAGE, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `python -m tests.inputs` and commit docs/bad-inputs.md"
