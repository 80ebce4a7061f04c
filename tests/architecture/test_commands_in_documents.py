"""Commands that the documents tell a reader to type: each is one that `consilo` has, with options that it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from consilo.cli import main as consilo

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    {ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")} - {ROOT / "docs/cli.md"}
)
PROGRAM = re.compile(r"(?:^|[\s(;!/])consilo (?=[a-z-])")
FENCE = re.compile(r"^```(console|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)
HERE_DOCUMENT = re.compile(r" <<'?(\w+)'?\n.*?^\1$", re.MULTILINE | re.DOTALL)
OPERATORS = set("|&;<>()")


def typed_in(kind: str, block: str) -> str:
    """What a reader types: of `console` the lines after a prompt, of `sh` all but the files that it writes."""
    if kind == "console":
        block = "\n".join(line[2:] for line in block.splitlines() if line.startswith("$ "))
    return HERE_DOCUMENT.sub("", block).replace("\\\n", " ")


def commands_in(text: str) -> Iterator[list[str]]:
    """The arguments of every call of `consilo`, up to the shell's next operator."""
    for line in text.splitlines():
        for called in PROGRAM.finditer(line):
            rest = re.sub(r"\$\([^()]*\)", "SUBSTITUTED", line[called.end() :])
            words = shlex.shlex(rest, posix=True, punctuation_chars=True)
            words.whitespace_split, words.commenters = True, ""
            arguments: list[str] = []
            for word in words:
                if set(word) <= OPERATORS:
                    # `2>` redirects standard error: the 2 is no argument.
                    arguments = arguments[:-1] if ">" in word and arguments[-1:] == ["2"] else arguments
                    break
                arguments.append(word)
            yield arguments


def require_known(arguments: list[str]) -> None:
    """Raises click.UsageError for a command, an option or a number of arguments that is not there."""
    command: click.Command = consilo
    context = click.Context(consilo, info_name="consilo")
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no such command: {name}")
        command, context = found, click.Context(found, parent=context, info_name=name)
    values, left_over, _ = command.make_parser(context).parse_args(args=list(arguments))
    if left_over:
        raise click.UsageError(f"unexpected arguments: {left_over}")
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if parameter.required and not isinstance(value, str | list | tuple):
            raise click.UsageError(f"{parameter.human_readable_name} is missing")
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)


def commands_of(document: Path) -> list[list[str]]:
    blocks = FENCE.findall(document.read_text(encoding="utf-8"))
    return [arguments for kind, block in blocks for arguments in commands_in(typed_in(kind, block))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_commands_are_as_the_program_has_them(document: Path) -> None:
    for arguments in commands_of(document):
        try:
            require_known(arguments)
        except click.UsageError as error:
            pytest.fail(f"{document.name}: consilo {shlex.join(arguments)}: {error.format_message()}")


def test_the_commands_were_found() -> None:
    found = {tuple(arguments[:2]) for document in DOCUMENTS for arguments in commands_of(document)}
    assert found >= {
        ("pki", "init"),
        ("coordinator", "run"),
        ("participant", "check"),
        ("task", "try"),
        ("job", "submit"),
        ("model", "export"),
        ("audit", "verify"),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        "job sumbit job.toml",
        "job submit",
        "job submit job.toml --identity digits-1",
        "job submit job.toml other.toml",
        "pki sign authority coordinater coordinator request.pem --sha256 00",
        "pki sign authority coordinator coordinator request.pem",
    ],
)
def test_a_command_that_is_not_there_is_found(wrong: str) -> None:
    (arguments,) = commands_in(f"consilo {wrong} 2> log.txt | cat")
    with pytest.raises(click.UsageError):
        require_known(arguments)
