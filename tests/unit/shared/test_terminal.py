"""What a command prints is safe for a terminal and whole in a pipe."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import pytest
from click.testing import CliRunner
from rich.table import Table

from shared import terminal


@click.command()
@terminal.json_option
def show(*, as_json: bool) -> None:
    rows = [("hospital-a", 3), ("[red]b\x1b[2J", 4)]
    terminal.emit(
        [{"name": name, "count": count} for name, count in rows],
        as_json=as_json,
        render=lambda: terminal.table(["name", "count"], rows),
    )


def test_a_table_for_people() -> None:
    result = CliRunner().invoke(show, [])
    assert result.exit_code == 0
    assert "hospital-a" in result.stdout
    assert "[red]b?[2J" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("made", [terminal.table, terminal.facts])
def test_titles_and_heads_are_text_as_cells_are(made: Callable[..., Table], capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "see [/x] [red]b\x1b[2J"
    columns = ((hostile,),) if made is terminal.table else ()
    terminal.emit(None, as_json=False, render=lambda: made(*columns, [], title=hostile))
    shown = capsys.readouterr().out
    assert shown.count("see [/x] [red]b?[2J") == 1 + len(columns)
    assert "\x1b" not in shown


def test_json_for_machines() -> None:
    result = CliRunner().invoke(show, ["--json"])
    assert [row["count"] for row in json.loads(result.stdout)] == [3, 4]


def test_rows_stay_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    digest = "ab" * 32
    terminal.emit(None, as_json=False, render=lambda: terminal.table(["digest", "other"], [(digest, digest)]))
    assert capsys.readouterr().out.count(digest) == 2


def test_facts_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.emit(None, as_json=False, render=lambda: terminal.facts([("state", "running"), ("reason", None)]))
    terminal.emit_line({"round": 1}, as_json=True, text="round 1")
    terminal.emit_line({"round": 2}, as_json=False, text="round 2\r")
    terminal.warn("mind the gap")
    captured = capsys.readouterr()
    assert "running" in captured.out
    assert '{"round": 1}\nround 2?\n' in captured.out
    assert captured.err == "warning: mind the gap\n"
