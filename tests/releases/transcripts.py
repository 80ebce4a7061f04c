"""The hashes that a recorded session rests on, computed again from what was said: plans, attempts, rosters, deliveries,
survivors, updates and totals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shared.hashing import tagged_hash
from shared.ids import AttemptKey, Digest, RoundKey
from shared.job import jobspec_digest
from shared.protocol.messages import (
    AdvertiseKeys,
    AnswerKind,
    AttemptAbort,
    AttemptAnswer,
    AttemptStart,
    ConsistencySignature,
    KeyRoster,
    RoundPlan,
    RoundResult,
    Sealed,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UnmaskShares,
    UploadCommit,
    attempt_digest,
    plan_digest,
    result_digest,
)
from shared.secagg.sealing import shares_root
from shared.secagg.transcript import delivery_digest, roster_digest, survivors_digest
from shared.update import update_digest
from shared.wire.operations import ExportModel, PutModelOpen
from shared.wire.sealed import reopen
from shared.wire.session import ShutEnvelope
from shared.wire.transfer import CommitRequest, FetchModel, UploadOpen
from tests.releases.conversation import Conversation, Told
from tests.releases.meaning import ANSWERS, UPLOAD


@dataclass(slots=True)
class _Attempt:
    """The chain of one attempt, as far as it got."""

    start: Sealed[AttemptStart]
    t1: Digest | None = None
    t2: Digest | None = None
    t3: Digest | None = None
    commits: dict[int, UploadCommit] = field(default_factory=dict)

    @property
    def h0(self) -> Digest:
        return attempt_digest(self.start)

    @property
    def masked(self) -> bool:
        return self.start.value.encoding.masked


class Transcripts:
    """Goes through a conversation once. `checked` counts what was computed again, by its name."""

    def __init__(self, conversation: Conversation) -> None:
        self.checked: dict[str, int] = defaultdict(int)
        self._conversation = conversation
        self._plans: dict[RoundKey, Sealed[RoundPlan]] = {}
        self._attempts: dict[AttemptKey, _Attempt] = {}
        self._chunks: dict[tuple[str, AttemptKey], dict[int, Digest]] = defaultdict(dict)
        self._uploading: dict[int, tuple[AttemptKey, int]] = {}

    def check(self) -> None:
        for told in self._conversation.told:
            self._take(told)
        for name, expected, data in pieces_of_models(self._conversation.told):
            assert Digest.of(data) == expected
            self.checked[name] += 1

    def _take(self, told: Told) -> None:
        one, value = told
        match value:
            case ShutEnvelope(kind, envelope) if kind is RoundPlan:
                plan = reopen(RoundPlan, envelope)
                assert self._plans.setdefault(plan.value.key, plan) == plan, "all members are sent one plan"
            case ShutEnvelope(kind, envelope) if kind is AttemptStart:
                self._start(reopen(AttemptStart, envelope))
            case ShutEnvelope(kind, envelope) if kind is RoundResult:
                self._result(reopen(RoundResult, envelope).value)
            case KeyRoster(key, adverts):
                attempt = self._attempts[key]
                self._same(attempt, "t1", roster_digest(attempt.h0, _payloads(adverts)))
            case ShareDelivery(key, dealers):
                attempt = self._attempts[key]
                assert attempt.t1 is not None
                self._same(attempt, "t2", delivery_digest(attempt.t1, _payloads(dealers)))
            case SurvivorList(key, commits):
                attempt = self._attempts[key]
                before = attempt.t2 if attempt.masked else attempt.h0
                assert before is not None
                self._same(attempt, "t3", survivors_digest(before, _payloads(commits)))
            case AttemptAnswer():
                self._answer(value)
            case UploadOpen(key, offset):
                self._uploading[one.call] = (key, offset)
            case memoryview() if one.method == UPLOAD:
                key, offset = self._uploading[one.call]
                self._chunks[one.peer, key][offset] = Digest.of(value)
                self._uploading[one.call] = (key, offset + len(value))
            case CommitRequest(key, commit):
                self._commit(one.peer, key, reopen(UploadCommit, commit).value)
            case _:
                pass  # no hash rests on it

    def _same(self, attempt: _Attempt, name: str, computed: Digest) -> None:
        """Everybody is shown one history."""
        assert getattr(attempt, name) in {None, computed}, name
        setattr(attempt, name, computed)
        self.checked[name] += 1

    def _start(self, start: Sealed[AttemptStart]) -> None:
        said = start.value
        plan = self._plans[said.key.round]
        spec = self._conversation.jobs[said.key.round.job]
        assert said.plan == plan_digest(plan)
        assert said.jobspec == jobspec_digest(plan.value.jobspec)
        assert said.previous_result == result_digest(plan.value.previous_result)
        assert said.members == spec.members
        assert said.consortium == (self._conversation.consortium.digest.raw if spec.masking.masked else b"")
        known = self._attempts.setdefault(said.key, _Attempt(start))
        assert known.start == start
        self.checked["h0"] += 1

    def _answer(self, answer: AttemptAnswer) -> None:
        attempt = self._attempts[answer.attempt]
        word: Any = reopen(ANSWERS[answer.kind], answer.envelope).value
        assert word.attempt == attempt.h0
        match word:
            case ShareKeys():
                assert word.roster == attempt.t1
                assert word.shares_root == shares_root(answer.shares)
                self.checked["shares root"] += 1
            case ConsistencySignature() | UnmaskShares():
                assert word.survivors == attempt.t3
            case AdvertiseKeys() | AttemptAbort():
                pass
            case _:
                raise AssertionError(f"what does a {AnswerKind(answer.kind).name} rest on?")

    def _commit(self, peer: str, key: AttemptKey, said: UploadCommit) -> None:
        attempt, chunks = self._attempts[key], self._chunks[peer, key]
        assert said.attempt == attempt.h0
        assert said.transcript == (attempt.t2 if attempt.masked else attempt.h0)
        assert said.update == update_digest(said.header, [chunks[offset] for offset in sorted(chunks)])
        assert said.chunks == len(chunks)
        attempt.commits[said.index] = said
        self.checked["update"] += 1

    def _result(self, result: RoundResult) -> None:
        (attempt,) = [each for each in self._attempts.values() if each.h0 == result.attempt]
        assert result.transcript == (attempt.t3 if attempt.masked else attempt.h0)
        updates = [attempt.commits[index].update.raw for index in result.survivors]
        assert result.aggregate == tagged_hash("aggregate", *updates)
        self.checked["aggregate"] += 1


def _payloads(envelopes: Iterable[Any]) -> list[tuple[int, bytes]]:
    return [(envelope.signer, envelope.payload) for envelope in envelopes]


def pieces_of_models(told: Iterable[Told]) -> Iterable[tuple[str, Digest, bytes]]:
    """(method, digest, bytes) of each model that somebody has whole: what came of it in one call or in several."""
    calls: dict[int, tuple[tuple[str, str, Digest], int]] = {}
    pieces: dict[tuple[str, str, Digest], bytearray] = defaultdict(bytearray)
    for one, value in told:
        match value:
            case FetchModel(model, offset) | ExportModel(model, offset):
                calls[one.call] = ((one.peer, one.method, model), offset)
            case PutModelOpen(model):
                calls[one.call] = ((one.peer, one.method, model), 0)
            case memoryview() if one.method != UPLOAD:
                whose, offset = calls[one.call]
                pieces[whose][offset : offset + len(value)] = value
                calls[one.call] = (whose, offset + len(value))
            case _:
                pass  # no model, and no part of one
    return [(method.rpartition("/")[2], model, bytes(held)) for (_, method, model), held in pieces.items()]
