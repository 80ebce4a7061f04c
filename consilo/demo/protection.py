"""How the demo's updates are protected: what its job and its hospitals say, and what that means in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from shared.job import DEFAULT_MIN_SURVIVORS, TWO_PARTY
from shared.secagg.threshold import default_max_colluding, threshold

Mode: TypeAlias = Literal["masked", "plain"]

ENCODING = "u32"
_ONE_PERSON = "  One person runs authority, pins and coordinator here: against that person nothing is guaranteed."
_TWO_PARTIES = (
    "  Of two, each learns the other's update: the total less its own. The job and both hospitals had to say",
    "  allow_two_party for that, and accept totals over 2; without such a word it takes 3.",
)


@dataclass(frozen=True, slots=True)
class Protection:
    """The mode, and what follows from the number of hospitals."""

    mode: Mode
    members: int

    @property
    def masked(self) -> bool:
        return self.mode == "masked"

    @property
    def max_colluding(self) -> int:
        return default_max_colluding(self.members) if self.masked else 0

    @property
    def threshold(self) -> int:
        """How many hospitals must help to open a total."""
        return threshold(self.members, self.max_colluding)

    @property
    def spare(self) -> int:
        """How many hospitals a round can lose once its keys are shared, and still be completed."""
        return self.members - max(self.threshold, min(DEFAULT_MIN_SURVIVORS, self.members))

    def in_words(self) -> tuple[str, ...]:
        """What somebody who watches should know, line by line."""
        if not self.masked:
            return ("plain: the coordinator sees each hospital's update",)
        return (*self._terms(), _ONE_PERSON)

    def _terms(self) -> tuple[str, ...]:
        if self.members == TWO_PARTY:
            return ("masked: 2 members, both must help to open a total", *_TWO_PARTIES)
        terms = f"{self.members} members, {self.threshold} must help to open a total"
        return (f"masked: {terms}, {self.max_colluding} may collude with the coordinator",)

    # --- what is written ----------------------------------------------------------------------------------------------

    def job_table(self) -> str:
        """[masking] of the job file."""
        if not self.masked:
            return '[masking]\nmode = "plain"\n'
        two = "allow_two_party = true\n" if self.members == TWO_PARTY else ""
        return f'[masking]\nmode = "masked"\nencoding = "{ENCODING}"\n{two}'

    def policy_table(self) -> str:
        """[policy] of a hospital."""
        least = min(DEFAULT_MIN_SURVIVORS, self.members)
        lines = ["[policy]", f"minimum_members = {least}"]
        if self.masked:
            lines.append(f"minimum_survivors = {least}")
            if self.members == TWO_PARTY:
                lines += ["# Of two members each learns the other's update from the total.", "allow_two_party = true"]
        else:
            lines += [
                "# The coordinator of this demo sees each update; a silo that does not want that leaves this false.",
                "allow_plain = true",
            ]
        return "\n".join(lines) + "\n"
