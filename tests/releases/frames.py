"""One frame of a recorded session, and the files that hold them: a line of JSON for each, in the order that they had.

`frame` is the bytes as they were, packed (zlib, then base64): models are mostly zeros here. `value` is what they meant
to the code that recorded them, so that a reader sees what stands there and a test that it still means the same.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Recorded:
    """A frame of one call. `peer` is who dialled: a role and a name."""

    call: int
    peer: str
    method: str
    from_coordinator: bool
    frame: bytes
    value: Any

    def line(self) -> str:
        """The same as a line of a file."""
        fields = {
            "call": self.call,
            "peer": self.peer,
            "method": self.method,
            "from": "coordinator" if self.from_coordinator else "peer",
            "value": self.value,
            "frame": base64.b64encode(zlib.compress(self.frame, 9)).decode(),
        }
        return json.dumps(fields, separators=(",", ":"), allow_nan=False)

    @classmethod
    def parse(cls, line: str) -> Recorded:
        fields = json.loads(line)
        return cls(
            call=fields["call"],
            peer=fields["peer"],
            method=fields["method"],
            from_coordinator=fields["from"] == "coordinator",
            frame=zlib.decompress(base64.b64decode(fields["frame"])),
            value=fields["value"],
        )


def write_frames(path: Path, frames: Iterable[Recorded]) -> None:
    path.write_text("".join(f"{frame.line()}\n" for frame in frames), encoding="utf-8")


def read_frames(folder: Path) -> Sequence[Recorded]:
    """All files of a folder, one after the other: their names are numbered."""
    return [
        Recorded.parse(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
