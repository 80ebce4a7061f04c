"""One member of a masked job as a driver over a journal, among machines of the other members."""

from __future__ import annotations

from participant.consent import Policy
from participant.round.driver import Driver
from participant.round.effects import UploadAcknowledged, WorkDone
from participant.round.phases import (
    Masked,
    Offer,
    Protection,
    RoundState,
    SpooledUpdate,
)
from participant.round.surroundings import Surroundings
from shared.consortium import Consortium
from shared.entropy import SeededEntropy
from shared.ids import JobId, RoundKey
from shared.protocol.messages import (
    AttemptAnswer,
    AttemptStart,
    RoundBroadcast,
    RoundReply,
    Sealed,
    attempt_digest,
)
from shared.protocol.phases import Phase
from tests.support.masked_cohort import ALL, ME, Cohort
from tests.support.participant_journal import MemoryJournal
from tests.support.rounds import (
    COORDINATOR_KEY,
    MANIFEST,
    TASK,
    A,
    commit_of,
    key_of,
)

VERIFIER = COORDINATOR_KEY.verifying_key


class RecordingWork:
    """Notes how uploads are protected."""

    def __init__(self) -> None:
        self.protections: list[Protection] = []
        self.erased: list[RoundKey] = []

    def start_work(self, offer: Offer) -> None: ...

    def start_upload(
        self, offer: Offer, update: SpooledUpdate, attempt: Sealed[AttemptStart], protection: Protection
    ) -> None:
        self.protections.append(protection)

    def stop(self, offer: Offer) -> None: ...

    def keep_state(self, offer: Offer) -> bool:
        return True

    def erase(self, offer: Offer) -> None:
        self.erased.append(offer.key)


class Observed:
    def __init__(self) -> None:
        self.alarms: list[str] = []

    def moved(self, state: RoundState) -> None: ...

    def alarmed(self, what: str) -> None:
        self.alarms.append(what)


class Daemon:
    """Member A as a driver, among machines of the other members."""

    def __init__(
        self,
        cohort: Cohort,
        journal: MemoryJournal | None = None,
        *,
        life: int = 1,
        consortium: Consortium = MANIFEST,
        allowed_repeats: tuple[JobId, ...] = (),
        allowed_jobs: tuple[str, ...] = ("*",),
    ) -> None:
        self.cohort = cohort
        self.life = life
        self.journal = journal or MemoryJournal()
        self.work = RecordingWork()
        self.observer = Observed()
        self.said: list[RoundReply] = []
        policy = Policy(
            participant=A,
            tasks=frozenset({TASK}),
            minimum_members=3,
            allow_plain=False,
            allowed_jobs=allowed_jobs,
            max_deadline_s=3600.0,
            minimum_survivors=3,
            journal_doubtful=False,
            consortium=consortium,
            allowed_repeats=allowed_repeats,
        )
        around = Surroundings(
            policy=policy,
            journal=self.journal,
            work=self.work,
            observer=self.observer,
            own_key=key_of(A).verifying_key,
            signer=key_of(A),
            entropy=SeededEntropy(b"life %d" % life),
        )
        self.driver = Driver(around=around)
        self.driver.start()
        self.driver.connected(self._said)

    @property
    def state(self) -> RoundState:
        return self.driver._rounds[self.cohort.plan.value.key]

    def _said(self, message: RoundReply) -> None:
        self.said.append(message)
        if isinstance(message, AttemptAnswer):
            self.cohort.me.answers[message.kind] = message

    def hears(self, message: RoundBroadcast) -> list[str]:
        self.said.clear()
        self.driver.received(message, VERIFIER)
        return [
            message.kind.name.lower() if isinstance(message, AttemptAnswer) else type(message).__name__
            for message in self.said
        ]

    def restarted(self, consortium: Consortium = MANIFEST, *, allowed_jobs: tuple[str, ...] = ("*",)) -> Daemon:
        return Daemon(
            self.cohort,
            self.journal.crash(),
            life=self.life + 1,
            consortium=consortium,
            allowed_jobs=allowed_jobs,
        )

    def to(self, phase: Phase, number: int = 1) -> Daemon:
        """With everybody else, as far as this phase."""
        cohort, key = self.cohort, self.cohort.plan.value.key
        others = [index for index in ALL if index != ME]
        if number == 1:
            cohort.to(Phase.READY)
            self.hears(cohort.plan)
            self.driver.report(key, WorkDone(cohort.update))
        cohort.all_announced(number)
        self.hears(cohort.start(number))
        if phase is Phase.ADVERTISING:
            return self
        roster = cohort.roster(number=number)
        for index in others:
            cohort.silos[index].hear(roster)
        self.hears(roster.roster)
        if phase is Phase.SHARING:
            return self
        for index in others:
            cohort.silos[index].hear(cohort.delivery(to=index, number=number))
            cohort.commit(index, number)
        self.hears(cohort.delivery(number=number).delivery)
        masked = self.work.protections[-1]
        assert isinstance(masked, Masked)
        start = cohort.start(number)
        cohort.commits[ME] = commit_of(A, start, transcript=masked.transcript)[0]
        if phase is Phase.UPLOADING:
            return self
        self.driver.report(key, UploadAcknowledged(attempt_digest(start), cohort.commits[ME]))
        if phase is Phase.COMMITTED:
            return self
        listing = cohort.listing(number=number)
        for index in others:
            cohort.silos[index].hear(listing)
        self.hears(listing.survivors)
        if phase is not Phase.FIXED:
            self.hears(cohort.bundle(number=number).bundle)
        return self
