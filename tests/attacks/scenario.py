"""An attempt with silos of the product, good up to the word that a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from shared.ids import Digest
from shared.protocol.messages import Envelope, attempt_digest
from tests.attacks.attacker import Scene
from tests.attacks.world import VICTIM, federation, product


class Scenario:
    """Ten members of the product at a point of an attempt."""

    def __init__(self, folder: Path, *, number: int = 1) -> None:
        self.world = federation(product(folder))
        self.plan = self.world.plan()
        self.why = ""
        self.begin(number)

    def begin(self, number: int) -> None:
        self.start = self.world.announce(self.plan, number=number)
        self.h0 = attempt_digest(self.start)

    @property
    def adverts(self) -> dict[int, Envelope]:
        return dict(self.world.adverts[self.h0])

    def dealt(self) -> Digest:
        return self.world.show_roster(self.start)

    def masked(self) -> Scene:
        return self.world.deliver(self.start, self.dealt())

    def tell_victim(self, message: Any) -> list[str]:
        """How it refused; `why` then says by which check."""
        self.world.answers.clear()
        self.world.details.clear()
        with capture_logs() as logs:
            self.world.tell([VICTIM], message)
        self.why = " ".join([*self.world.details, *(line["detail"] for line in logs if line["event"] == "alarm")])
        return [str(answer) for answer in self.world.answers[VICTIM]]
