"""`consilo demo`: a whole federation on this machine, with one command."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live

from consilo.demo.daemons import Interrupts
from consilo.demo.data import HOSPITALS_MAX, HOSPITALS_MIN
from consilo.demo.dropping import require_droppable
from consilo.demo.federation import Watcher, run
from consilo.demo.folders import Federation, claim_folder, lay_out
from consilo.demo.outcome import Outcome
from consilo.demo.protection import Mode, Protection
from coordinator.client.views import progress_screen, round_line, spec_of
from shared.terminal import emit, facts, json_option, stderr_console, stdout_console, table
from shared.wire.operations import JobDetail

DEFAULT_HOSPITALS = 4
DEFAULT_ROUNDS = 15
DEFAULT_SEED = 7
ROUNDS_ON_SCREEN = 16
SEED_MAX = 2**32 - 1


@click.command()
@click.option(
    "--participants",
    default=DEFAULT_HOSPITALS,
    show_default=True,
    type=click.IntRange(HOSPITALS_MIN, HOSPITALS_MAX),
    help="How many hospitals.",
)
@click.option(
    "--rounds", default=DEFAULT_ROUNDS, show_default=True, type=click.IntRange(1, 1000), help="How many rounds."
)
@click.option(
    "--seed",
    default=DEFAULT_SEED,
    show_default=True,
    type=click.IntRange(0, SEED_MAX),
    help="Decides who has which rows, and everything random in the training.",
)
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Make the federation in DIR, to start it by hand later; DIR/README.txt says how.",
)
@click.option("--drop", is_flag=True, help="Kill a hospital in the middle of a masked round, and have it back later.")
@click.option("--plain", is_flag=True, help="Without masking: the coordinator sees each hospital's update.")
@json_option
def demo(
    *, participants: int, rounds: int, seed: int, keep: Path | None, drop: bool, plain: bool, as_json: bool
) -> None:
    """Run a whole federation on this machine: a coordinator, four hospitals, one model.

    The data are real (569 tumours, from scikit-learn), and so are the daemons: one process each, with certificates and
    rows of their own, over mutual TLS on loopback. Updates are masked: the coordinator sees totals only. Takes about a
    minute.
    """
    _require_extra()
    mode: Mode = "plain" if plain else "masked"
    if drop:
        require_droppable(Protection(mode, participants), rounds=rounds)
    folder = Path(tempfile.mkdtemp(prefix="consilo-demo-")) if keep is None else keep.absolute()
    claim_folder(folder)
    console = stderr_console() if as_json else stdout_console()
    console.print(f"A federation of {participants} hospitals in {folder}", soft_wrap=True)
    with Interrupts() as interrupts:
        federation = lay_out(folder, hospitals=participants, rounds=rounds, seed=seed, now=datetime.now(UTC), mode=mode)
        for line in federation.protection.in_words():
            console.print(line, soft_wrap=True)
        with watching(console) as watcher:
            outcome = run(federation, watcher=watcher, say=console.print, interrupts=interrupts, drop=drop)
    emit(outcome.as_json(federation), as_json=as_json, render=lambda: report(federation, outcome))
    if not outcome.audit_verified:
        raise click.ClickException(f"the audit log of this run does not verify: {federation.audit_log}")
    if drop and not (outcome.dropped and outcome.back_in):
        raise click.ClickException(f"nobody was dropped and back: what the daemons said is in {federation.logs}")


def _require_extra() -> None:
    """What the demo imports only later, or in its daemons, is missed before a folder is made."""
    for module in ("sklearn", "sqlalchemy", "torch"):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


@contextmanager
def watching(console: Console) -> Iterator[Watcher]:
    """A live table on a terminal; elsewhere a line for each finished round."""
    if not console.is_terminal:
        yield line_writer(console.print)
        return
    live: Live | None = None

    def show(detail: JobDetail) -> None:
        nonlocal live
        if live is None:
            live = Live(console=console, refresh_per_second=8)
            live.start()
        live.update(progress_screen(detail, last=ROUNDS_ON_SCREEN))
        if detail.job.state.over:
            live.stop()

    try:
        yield show
    finally:
        if live is not None:
            live.stop()


def line_writer(write: Callable[[str], None]) -> Watcher:
    """Writes each finished round once."""
    told = 0

    def show(detail: JobDetail) -> None:
        nonlocal told
        for finished in detail.rounds[told:]:
            write(round_line(spec_of(detail.job), finished))
        told = len(detail.rounds)

    return show


def report(federation: Federation, outcome: Outcome) -> RenderableType:
    """The comparison, where things are, and what to try next."""
    alone = outcome.alone_accuracy
    rows: list[tuple[str, str]] = [(f"{name} alone", f"{value:.3f}") for name, value in alone.items()]
    rows += [
        ("mean of the hospitals alone", f"{sum(alone.values()) / len(alone):.3f}"),
        ("federated", f"{outcome.federated_accuracy:.3f}"),
        ("all rows in one place", f"{outcome.pooled_accuracy:.3f}"),
    ]
    accuracy = table(("model", "accuracy"), rows, title="Accuracy on common test rows")
    left_out = [f"{drop['participant']} in round {drop['round']}: {drop['reason']}" for drop in outcome.dropped]
    back = [f"{one['participant']} in round {one['round']}" for one in outcome.back_in]
    protection = federation.protection
    where = facts(
        [
            ("rounds committed", f"{outcome.rounds_committed} of {federation.rounds}"),
            ("protection", protection.in_words()[0]),
            *((("left out", "; ".join(left_out)),) if left_out else ()),
            *((("back", "; ".join(back)),) if back else ()),
            ("model", f"{outcome.model_path} ({str(outcome.model_digest)[:12]})"),
            ("audit log", f"{federation.audit_log} ({'verified' if outcome.audit_verified else 'DOES NOT VERIFY'})"),
            ("logs", federation.logs),
            ("metrics", f"{federation.root / 'metrics'} (as they were at the end)"),
            ("took", f"{outcome.seconds:.0f} s"),
        ]
    )
    return Group(accuracy, _WHOSE_ROWS, where, _next_steps(federation))


_WHOSE_ROWS = (
    "(evaluate.accuracy in the rounds is on the hospitals' own held-out rows, this table on test rows common to all.)\n"
)


def program() -> str:
    """What to type for `consilo` where this ran: the name if a shell finds it, else the path as it was called."""
    called = Path(sys.argv[0])
    found = shutil.which("consilo")
    if called.name != "consilo" or not called.exists() or (found is not None and called.samefile(found)):
        return "consilo"
    return shlex.quote(str(called))


def _next_steps(federation: Federation) -> str:
    return (
        "\nWhat to try next:\n"
        f"  less {federation.root}/README.txt     start these daemons by hand, end one, take one off the allow-list\n"
        f"  less {federation.hospital(federation.hospitals[0])}/participant.toml     what a hospital agrees to\n"
        f"  {program()} demo --drop     kill a hospital in the middle of a masked round, and have it back in the next\n"
        f"  {program()} demo --participants 6 --rounds 20 --seed 7 --keep my-federation\n"
        f"  rm -r {shlex.quote(str(federation.root))}     it stays until you remove it"
    )
