"""The line between a campaign and a process of it: JSON, one object a line, over a socket that the process inherits.

From the process: `moved` (a round came to a phase), `here` (who has a session, or whether this one has), `held` (it
stands still at its appointment until it is told to go on) and `struck` (it is about to send itself a signal). To it:
`meet` (an appointment), `go`, and `jump` (the wall clock).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Appointment:
    """The first time that a round of this job, not before this one, comes to this phase."""

    job: str
    round: int
    phase: str
    signal: int
    """What the process sends itself then; 0: nothing, it stands still until it is told to go on."""

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Self:
        return cls(**{name: message[name] for name in cls.__slots__})


def meet(appointment: Appointment) -> dict[str, Any]:
    return {"say": "meet", **asdict(appointment)}


def send(line: socket.socket, message: Mapping[str, Any]) -> None:
    line.sendall(json.dumps(message).encode() + b"\n")


def received(line: socket.socket) -> Iterator[dict[str, Any]]:
    """Until the other end is gone."""
    with line.makefile("rb") as lines:
        try:
            for text in lines:
                if text.endswith(b"\n"):
                    yield json.loads(text)
        except OSError:
            return
