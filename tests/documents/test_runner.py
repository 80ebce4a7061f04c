"""The runner of documents: what it reads out of a script, and what it notices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.documents.compare import DiffersError, events_of, require_shown, shown_to_fail
from tests.documents.scripts import Hidden, Replace, ScriptError, Show, Write, parsed
from tests.documents.shell import FailedError, Shell


def test_a_script_is_bash_between_steps() -> None:
    text = (
        "# a comment\nmkdir a\ncd a\n\n@ first\n@ second 2-\n~ a b => $c\n< third a.toml\n"
        "@ second 1 without-output fails answer=y\n\n"
    )
    assert list(parsed(text)) == [
        Hidden(1, "# a comment\nmkdir a\ncd a\n\n"),
        Show(5, "first"),
        Show(6, "second", first=2),
        Replace(7, "a b", "$c"),
        Write(8, "third", "a.toml"),
        Show(9, "second", first=1, last=1, compared=False, fails=True, answer="y\n"),
    ]


@pytest.mark.parametrize("line", ["@ Label", "@ label first", "~ from to", "< label"])
def test_a_line_that_means_nothing_is_an_error(line: str) -> None:
    with pytest.raises(ScriptError, match="line 2"):
        list(parsed(f"mkdir a\n{line}\n"))


TABLE = """\
┏━━━━━━━┳━━━━━━┓
┃ model ┃ kept ┃
┡━━━━━━━╇━━━━━━┩
│ 4fe3  │ yes  │
└───────┴──────┘
"""


@pytest.mark.parametrize(
    ("shown", "output"),
    [
        ([], "whatever\n"),
        (TABLE.splitlines(), TABLE.replace("4fe3", "77aa77").replace("━", "━━").replace("yes ", "no")),
        (["round 3 committed, 0.83 s", "[...]", "done"], "round 7 committed, 12.0 s\nround 8\ndone\n"),
        (['{"job": "a", [...] "event": "ready", [...]}'], '{"x": 1, "event": "ready", "level": "info"}\n'),
        (["Sure? [y/N]: y", "yes"], "Sure? [y/N]: yes\nyes\n"),
        (["error: expected 64 digits, got [...]"], "error: expected 64 digits, got 'some of them'\n"),
    ],
)
def test_what_differs_from_run_to_run_may_differ(shown: list[str], output: str) -> None:
    require_shown(shown, output)


@pytest.mark.parametrize(
    ("shown", "output"),
    [
        (["done"], ""),
        (["first", "second"], "second\nfirst\n"),
        (TABLE.splitlines(), TABLE.replace("model", "digest")),
        (['{"job": "a", "event": "ready", [...]}'], '{"event": "ready_soon"}\n'),
        (["error: expected 64 digits"], "error: wanted 64 digits\n"),
    ],
)
def test_what_says_something_else_is_noticed(shown: list[str], output: str) -> None:
    with pytest.raises(DiffersError, match="the document shows"):
        require_shown(shown, output)


def test_what_is_shown_says_how_a_command_ends() -> None:
    assert shown_to_fail(["error: no"])
    assert shown_to_fail(["│ pin │ FAILED │ why │"])
    assert not shown_to_fail(['{"event": "error"}', "│ pin │ ok │ FAILED before │"])
    assert events_of(['{"a": 1, "event": "begun", "level": "info"}', "begun"]) == ["begun"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "folder").mkdir()
    return Shell(tmp_path / "folder", {"PATH": os.environ["PATH"]})


def test_a_command_may_fail_and_the_shell_goes_on(shell: Shell) -> None:
    with shell:
        assert shell.run_one("cd .. && name=$(ls -d folder) && false") == (1, "")
        assert shell.run_one("read word; echo $name $word; test -t 1 || echo no terminal", "typed\n") == (
            0,
            "folder typed\nno terminal\n",
        )
        with pytest.raises(FailedError, match="before"):
            shell.run("echo before\nfalse\necho after\n")


def test_what_the_shell_started_ends_with_it(shell: Shell) -> None:
    with shell:
        _, pid = shell.run_one("sleep 1000 > /dev/null & echo $!")
        os.kill(int(pid), 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
