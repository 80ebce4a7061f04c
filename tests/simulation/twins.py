"""One history of a job in which enough happens, to be lived again with one call gone wrong.

The job has an attempt that fails, a silo that is dropped, a round that aborts and the closing round of purpose
`evaluate`, in which the coordinator dies while updates come in. Nothing of it is chance: what happens hangs on where
the round is, and not on how many steps it took, so that a twin of the history meets the same things although a machine
of it died in between.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from coordinator.desk import Desk
from coordinator.storage.interface import COMMITTED
from participant.fitting import NoUpdate
from participant.round.phases import Offer, Shared, Uploading
from shared.control import ControlChange
from shared.errors import UnreachableError
from shared.ids import Digest, ParticipantId, RoundNumber
from shared.reasons import DropReason, JobState
from tests.simulation.boundaries import Boundaries, Strike
from tests.simulation.coordinator_process import OPERATOR
from tests.simulation.settings import JOB, Parts, Shape, hold
from tests.simulation.silo import Silo
from tests.simulation.steps import Federation, Step
from tests.simulation.work import one_hot

STEPS_MAX = 6000
CHECKED_EACH = 8
ASKED_MOST = 2  # one call is struck, and the next one is answered
LONGER_S = 900.0
FAILING_ATTEMPT, ABORTED, DROPPING = 1, 2, 3  # the rounds in which these happen
TORN_BYTES = 3  # of a chunk, left on the coordinator's disk by a crash in the last round
CRASHING = (1, 2)  # the silos whose task crashes in the aborted round


@dataclass(frozen=True, slots=True)
class Ended:
    """How a round ended."""

    number: int
    purpose: str
    outcome: str
    survivors: tuple[str, ...]
    model: str
    """The version that it made, or kept."""


class Twin(Federation):
    """The history, with at most one call struck."""

    def __init__(self, *, masked: bool, owner: str = "", strike: Strike | None = None) -> None:
        self._owner, self._strike = owner, strike
        self.boundaries: dict[str, Boundaries] = {}
        self._happened: set[str] = set()
        self._away: set[ParticipantId] = set()
        shape = Shape(members=4, rounds=2, quorum=3, floor=3, attempts=3, masked=masked)
        super().__init__(shape, Parts(boundaries=self._boundaries_of))
        for silo in self.silos:
            silo.trained = self._training_of(silo)

    def _boundaries_of(self, owner: str) -> Boundaries:
        made = Boundaries(self._strike if owner == self._owner else None)
        self.boundaries[owner] = made
        return made

    def _training_of(self, silo: Silo) -> Callable[[Offer], bytes]:
        place = self.silos.index(silo)

        def trained(offer: Offer) -> bytes:
            if offer.key.number == ABORTED and place in CRASHING:
                raise NoUpdate(DropReason.TASK_CRASHED, "as it is written")
            return one_hot(self.host.shape, offer.index, offer.key.number, silo.value)

        return trained

    # --- the history --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until the job is over and everything is at rest. Raises Convicted."""
        for taken in range(STEPS_MAX):
            if self._over():
                break
            self._happen()
            steps = self.steps()
            if steps:
                self._take(steps[taken % len(steps)])
            else:
                process = self.host.up()
                due = process.conductor.next_deadline - self.clock.monotonic()
                self.clock.advance(1.0 if process.later else max(due, 0.0))
                self.host.breathe(retry=True)
            if taken % CHECKED_EACH == 0:
                self.check()
        self._look()
        self.rest()
        hold(self.host.store._records.jobs[JOB].state is JobState.COMPLETED, "ends", "the job is not completed")

    def _steps_of(self, silo: Silo) -> list[Step]:
        return [] if silo.name in self._away else super()._steps_of(silo)

    def _happen(self) -> None:
        """What goes wrong in this history whatever else does, each once."""
        last = self.silos[-1]
        states = {state.offer.key.number: state for state in last.states}
        first = states.get(RoundNumber(FAILING_ATTEMPT))
        if isinstance(first, Shared | Uploading) and self._once("attempt"):
            if isinstance(first, Shared):  # its keys are known, and its shares are not: the attempt fails
                last.restart()
            else:  # of a plain attempt: nobody's update comes in time
                for silo in self.silos:
                    self._leave(silo)
                    silo.restart()
                self.clock.advance(self.host.spec.round.upload_deadline_s + 1.0)
                self.host.breathe(retry=True)
        self._steer()
        if self._is_half_sent(self.silos[0]) and self._once("crash"):
            self.host.crash(keep_bytes=TORN_BYTES)
        if isinstance(states.get(RoundNumber(DROPPING)), Uploading) and self._once("drop"):
            self._leave(last)
            last.restart()
            self._away.add(last.name)
        if self._away and self._number_of_round() > DROPPING:
            self._away.clear()
            self._look()

    def _steer(self) -> None:
        """An operator gives rounds more time in the first, has the job paused in the one that aborts, and resumed once
        it is paused. One that is not answered asks again.
        """
        job = self.host.store._records.jobs[JOB]
        number, open_ = self._number_of_round(), self._round_is_open()
        if number == FAILING_ATTEMPT and not job.control.revision:
            self._ask(lambda desk: desk.control_job(JOB, ControlChange(deadline_s=LONGER_S), OPERATOR))
        elif number == ABORTED and open_ and job.pause is None:
            self._ask(lambda desk: desk.pause_job(JOB, "as it is written", OPERATOR))
        elif job.state is JobState.PAUSED:
            self._ask(lambda desk: desk.resume_job(JOB, OPERATOR))

    def _ask(self, ask: Callable[[Desk], object]) -> None:
        for _ in range(ASKED_MOST):
            try:
                self.host.call(ask, self.host.up().conductor.desk)
            except UnreachableError:
                continue
            return

    def _round_is_open(self) -> bool:
        return any(not record.outcome for record in self.host.store._records.rounds.values())

    def _is_half_sent(self, silo: Silo) -> bool:
        """Whether a chunk of its update of the last round is at the coordinator, and not on disk yet."""
        return any(key.number > DROPPING and upload.sent for key, upload in silo.work.uploads.items())

    def _leave(self, silo: Silo) -> None:
        link = silo.link
        silo.notice()
        if link is not None and self.host.process is not None:
            self.host.close_session(link)

    def _once(self, name: str) -> bool:
        if name in self._happened:
            return False
        self._happened.add(name)
        return True

    def _number_of_round(self) -> int:
        return max((key.number for key in self.host.store._records.rounds), default=0)

    def _look(self) -> None:
        """What operators ask; one that is not answered asks again another day."""
        asked: tuple[Callable[[Desk], object], ...] = (
            Desk.jobs,
            lambda desk: desk.job_view(JOB),
            lambda desk: desk.has_model(self.host.spec.initial_model),
        )
        for ask in asked:
            self._ask(ask)

    @property
    def struck(self) -> bool:
        """Whether the call to be struck ever came."""
        return self.boundaries[self._owner].struck

    def lost(self) -> set[int]:
        """The rounds in which the struck silo lost the secrets of an attempt, though the history does not say so."""
        silo = next((silo for silo in self.silos if silo.name == self._owner), None)
        if silo is None:
            return set()
        written = Counter({FAILING_ATTEMPT: 1, DROPPING: 1} if silo is self.silos[-1] else {})
        return set(Counter({int(key.number): times for key, times in silo.bereaved.items()}) - written)

    # --- how it ended -------------------------------------------------------------------------------------------------

    def ended(self) -> list[Ended]:
        records = self.host.store._records
        found, model = [], str(self.host.spec.initial_model)
        for key in sorted(records.rounds):
            record = records.rounds[key]
            summary = json.loads(record.summary)
            model = summary.get("next_model") or model
            survivors = tuple(summary["survivors"]) if record.outcome == COMMITTED else ()
            found.append(Ended(key.number, record.purpose, record.outcome, survivors, model))
        return found

    def attempts(self) -> list[int]:
        """How many each round began."""
        journals = self.host.store._records.journals
        return [sum(entry.kind == "attempt_begun" for entry in journals[key]) for key in sorted(journals)]

    @property
    def models(self) -> dict[Digest, bytes]:
        return self.host.blobs._models
