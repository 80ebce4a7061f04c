"""Federations of which a silo dials through a link that fails on demand, with updates of a chosen size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from participant.tasks.state_dict import write_model
from tests.cluster.tasks.constant_task import Flat
from tests.support.federation import Federation
from tests.support.proxy import FaultProxy

MEMBERS = ("hospital-a", "hospital-b", "hospital-c")
VICTIM = MEMBERS[-1]


def constant_federation(
    folder: Path, *, parameters: int, seconds: float = 0.0, members: tuple[str, ...] = MEMBERS, status: bool = False
) -> tuple[Federation, Path]:
    """Silos whose task adds a constant, and the model that it starts from. `seconds`: of the victim's training."""
    initial = folder / "initial.safetensors"
    write_model(Flat(parameters), initial)
    options = {
        member: {"parameters": parameters, "seconds": seconds if member == VICTIM else 0.0} for member in members
    }
    return Federation(folder, entry="constant_task:ConstantTask", options=options, status=status), initial


@contextmanager
def linked(federation: Federation, member: str = VICTIM) -> Iterator[FaultProxy]:
    """The link through which this member dials from its next start on."""
    with FaultProxy(("127.0.0.1", int(federation.address.rpartition(":")[2]))) as link:
        config = federation.folder / member / "participant.toml"
        text = config.read_text()
        direct = f"coordinators = {json.dumps([federation.address])}"
        assert direct in text
        config.write_text(text.replace(direct, f"coordinators = {json.dumps([f'localhost:{link.port}'])}"))
        yield link


def assert_no_traceback(folder: Path) -> None:
    """No daemon of a federation said one: a link that breaks, or a peer that ends, is nothing to trace."""
    said = [log.name for log in folder.glob("*.log") if "Traceback" in log.read_text()]
    assert said == []
