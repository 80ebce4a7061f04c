"""Durable before said, asked of every word at the moment at which it leaves: what it depends on is on record.

* `durable-before-sent`: the coordinator's words stand in its records, to the byte where they are signed;
* `durable-before-said`: a silo's words stand in its journal.

A crash that comes right after the word shows the same only when it comes there, and only by what it leads to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, assert_never

from coordinator.round.effects import AttemptBegun, BundleMade, Record, RosterFixed, SharesFixed, SurvivorsFixed
from coordinator.round.journal import decode_plan, decode_record
from coordinator.storage.interface import JournalEntry, RoundRecord
from shared.ids import AttemptKey, RoundKey
from shared.protocol.messages import (
    AnswerKind,
    AttemptAnswer,
    AttemptStart,
    ConsistencyBundle,
    KeyRoster,
    Ready,
    RoundAborted,
    RoundBroadcast,
    RoundPlan,
    RoundReply,
    RoundResult,
    ShareDelivery,
    SurvivorList,
    plan_digest,
)
from shared.protocol.messages import Consent as ConsentWord
from shared.wire.sealed import decode_envelope
from tests.simulation.settings import hold
from tests.support.participant_journal import MemoryJournal


class Records(Protocol):
    """What a coordinator has on record."""

    @property
    def rounds(self) -> dict[RoundKey, RoundRecord]: ...

    @property
    def journals(self) -> dict[RoundKey, list[JournalEntry]]: ...


def durable_before_sent(records: Records, message: RoundBroadcast) -> None:
    hold(_sent_is_on_record(records, message), "durable-before-sent", f"{type(message).__name__} is not on record")


def _sent_is_on_record(records: Records, message: RoundBroadcast) -> bool:
    match message:
        case KeyRoster(key, adverts):
            return any(
                isinstance(record, RosterFixed) and {kept.envelope for kept in record.adverts.values()} == set(adverts)
                for record in _of_attempt(records, key)
            )
        case ShareDelivery(key, dealers, _):
            return any(
                isinstance(record, SharesFixed)
                and {dealt.word.envelope for dealt in record.dealt.values()} == set(dealers)
                for record in _of_attempt(records, key)
            )
        case SurvivorList(key, commits):
            fixed = [record for record in _of_attempt(records, key) if isinstance(record, SurvivorsFixed)]
            return len(fixed) == 1 and len(fixed[0].survivors) == len(commits)
        case ConsistencyBundle(key, signatures):
            return any(
                isinstance(record, BundleMade) and set(record.signatures.values()) == set(signatures)
                for record in _of_attempt(records, key)
            )
        case _:
            pass
    envelope = message.envelope
    match message.value:
        case RoundPlan(key=planned):
            return planned in records.journals and decode_plan(records.journals[planned][0]).envelope == envelope
        case AttemptStart(key=attempt):
            return any(
                isinstance(record, AttemptBegun) and record.start.envelope == envelope
                for record in _of_attempt(records, attempt)
            )
        case RoundResult(key=ended) | RoundAborted(key=ended):
            result = records.rounds[ended].result
            return bool(result) and decode_envelope(result) == envelope
        case _ as forgotten:
            assert_never(forgotten)


def _of_attempt(records: Records, attempt: AttemptKey) -> Iterator[Record]:
    """The journal of this attempt, from its beginning to the next one's."""
    inside = False
    for record in map(decode_record, records.journals[attempt.round][1:]):
        if isinstance(record, AttemptBegun):
            inside = record.start.value.key == attempt
        if inside:
            yield record


def durable_before_said(journal: MemoryJournal, message: RoundReply) -> None:
    hold(_said_is_on_record(journal, message), "durable-before-said", f"{message} is not in the journal")


def _said_is_on_record(journal: MemoryJournal, message: RoundReply) -> bool:
    kept = journal._kept.rounds.get(message.key)
    match message:
        case ConsentWord(_, plan):
            return kept is not None and plan_digest(kept.plan) == plan
        case Ready():
            return kept is not None and kept.update is not None
        case AttemptAnswer(kind=AnswerKind.ADVERTISE_KEYS | AnswerKind.SHARE_KEYS, attempt=attempt):
            return kept is not None and kept.attempt is not None and kept.attempt.value.key == attempt
        case AttemptAnswer(kind=AnswerKind.UNMASK_SHARES, envelope=envelope):
            return kept is not None and kept.opening is not None and kept.opening.reply == envelope
        case _:
            return True
