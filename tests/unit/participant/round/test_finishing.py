"""A daemon that is told to end: what it still answers, and when it has nothing left that others wait for."""

from __future__ import annotations

import pytest

from participant.round.phases import RoundState, phase_of
from shared.protocol.phases import Phase
from tests.support.masked_cohort import Cohort
from tests.support.masked_daemon import Daemon


class Told:
    """Tells a daemon to end as soon as its round is in a phase, and counts how often it says that it may."""

    def __init__(self, daemon: Daemon, phase: Phase) -> None:
        self.finished_in: list[Phase] = []
        self.told = False
        self._daemon = daemon
        self._phase = phase
        self._now = phase
        daemon.observer.moved = self._moved  # type: ignore[method-assign] # the tests' own observer

    def _moved(self, state: RoundState) -> None:
        self._now = phase_of(state)
        if self._now is self._phase and not self.told:
            self.told = True
            self._daemon.driver.finish(lambda: self.finished_in.append(self._now))


def test_no_plan_is_begun() -> None:
    daemon = Daemon(Cohort())
    finished: list[bool] = []
    daemon.driver.finish(lambda: finished.append(True))
    assert finished == [True]
    assert daemon.hears(daemon.cohort.plan) == []
    assert daemon.driver.open_rounds == ()
    assert not daemon.journal.open_rounds()


@pytest.mark.parametrize("phase", [Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED, Phase.FIXED])
def test_an_attempt_with_dealt_shares_goes_on_to_its_opening(phase: Phase) -> None:
    daemon = Daemon(Cohort())
    told = Told(daemon, phase)
    daemon.to(Phase.OPENING)
    assert told.told
    assert set(told.finished_in) == {Phase.OPENING}


@pytest.mark.parametrize("phase", [Phase.TRAINING, Phase.READY, Phase.ADVERTISING, Phase.OPENING])
def test_what_nobody_counts_on_is_not_waited_for(phase: Phase) -> None:
    daemon = Daemon(Cohort())
    told = Told(daemon, phase)
    daemon.to(Phase.OPENING if phase is Phase.OPENING else Phase.ADVERTISING)
    assert told.finished_in[0] is phase


def test_no_shares_are_dealt_any_more() -> None:
    daemon = Daemon(Cohort())
    Told(daemon, Phase.ADVERTISING)
    daemon.to(Phase.ADVERTISING)
    assert daemon.hears(daemon.cohort.roster().roster) == []


def test_no_other_attempt_is_entered() -> None:
    daemon = Daemon(Cohort())
    told = Told(daemon, Phase.SHARING)
    daemon.to(Phase.SHARING)
    daemon.cohort.all_announced(2)
    assert daemon.hears(daemon.cohort.start(2)) == []
    assert told.finished_in == []
