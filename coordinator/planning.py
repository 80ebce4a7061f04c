"""What a job's next round is made of: its earlier rounds as the store has them, and the frame of the one that is due.

Theory of operation. A job's `History` is all that its next round depends on. It is read from the store at a start, and
goes on with each round that ends (`after`), by the same function: a restart and a process that never ended plan the
same round. A frame is what is fixed for a round when it is planned. Its plan is durable before anyone hears of it; a
frame that is made again comes from that plan and the model's file. What a round's encoding depends on belongs here
too: into `History` what is remembered, into `_frame` what follows from it.

Nothing here is kept between two calls, and nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from coordinator.cohort import listed
from coordinator.round.frame import RoundFrame
from coordinator.round.journal import decode_plan
from coordinator.round.recording import OPENED, RANGE_MISS
from coordinator.scheduler import FinishedRound, RunRound
from coordinator.storage.interface import COMMITTED, Blobs, JobRecord, RoundRecord, Store
from shared.consortium import Consortium
from shared.errors import ConfigError, FederationError
from shared.identity import VerifyingKey
from shared.ids import Digest, JobId, ParticipantId, RoundKey, parse_participant_id
from shared.job import JobSpec
from shared.protocol.messages import RoundPlan, RoundResult, Sealed
from shared.reasons import AbortReason
from shared.tensors import ModelIndex, read_index
from shared.update import DType, Encoding, ModelManifest, StatisticsLayout, TensorSpec
from shared.wire.sealed import Signer, decode_envelope, reopen, seal

MISSES_MAX = 3  # rounds with an update that did not fit, before a job stays in the widest encoding

# Stands where the index of a model stands that is not there to be read.
_UNREAD = ModelIndex(
    manifest=ModelManifest.of([TensorSpec("unread", DType.F32, (1,))]), metadata={}, offsets={"unread": 0}, file_size=4
)


@dataclass(frozen=True, slots=True)
class History:
    """The finished rounds of a job, as far as the next one depends on them."""

    model: Digest
    """The job's model now."""
    finished: tuple[FinishedRound, ...] = ()
    previous_result: bytes = b""
    """The sealed result of the last committed round; empty before the first."""
    misses: int = 0
    """Rounds in which a member said that its update does not fit the encoding."""
    bound: tuple[ParticipantId, ...] = ()
    """Members of a total that may have been opened on this model; see `RoundFrame`."""

    def after(self, record: RoundRecord, spec: JobSpec) -> History:
        """The same with one more finished round."""
        summary = json.loads(record.summary)
        misses = self.misses + bool(summary.get(RANGE_MISS, False))
        if record.outcome != COMMITTED:
            ended = FinishedRound(record.key.number, record.purpose, AbortReason(record.outcome), self.model)
            bound = tuple(map(parse_participant_id, summary.get(OPENED, ()))) or self.bound
            return replace(self, finished=(*self.finished, ended), misses=misses, bound=bound)
        result = reopen(RoundResult, decode_envelope(record.result)).value
        ended = FinishedRound(record.key.number, record.purpose, None, result.next_model)
        # A round that changed no weight leads to the model that its total was opened on.
        still = spec.masking.masked and result.next_model == self.model
        survivors = tuple(spec.members[index - 1] for index in result.survivors)
        return History(result.next_model, (*self.finished, ended), record.result, misses, survivors if still else ())


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A job where the store has it."""

    history: History
    open: RoundFrame | None
    """The round that was begun and has no end."""


class Planning:
    """Makes frames; reads the store and models."""

    def __init__(self, *, store: Store, blobs: Blobs, signer: Signer, consortium: Consortium | None) -> None:
        """`consortium`: the manifest by which masked rounds are signed; without one there are none."""
        self._store = store
        self._blobs = blobs
        self._signer = signer
        self._consortium = consortium

    def obstacle(self, spec: JobSpec) -> str:
        """Why this coordinator cannot run such a job, whoever connects; empty when it can."""
        if not spec.masking.masked:
            return ""
        if self._consortium is None:
            return "it is masked, and this coordinator has no manifest: set consortium.manifest in coordinator.toml"
        strangers = [member for member in spec.members if self._consortium.participant_key(member) is None]
        if not strangers:
            return ""
        return (
            f"not in the consortium's manifest: {listed(strangers)} (`consilo pki manifest` makes one of everybody "
            "who is on the allow-list; every silo pins it, and this coordinator reads it when it starts)"
        )

    def next_round(self, record: JobRecord, spec: JobSpec, history: History, upcoming: RunRound) -> RoundFrame:
        """The frame of a round that was not begun. Raises UnknownError, ModelError, StorageError."""
        with closing(self._blobs.model(upcoming.model)) as reader:
            model_bytes = reader.size
        plan = RoundPlan(
            key=RoundKey(record.job, upcoming.number),
            purpose=upcoming.purpose,
            jobspec=record.spec,
            model=upcoming.model,
            model_bytes=model_bytes,
            previous_result=history.previous_result,
            deadline_s=record.control.deadline_of(spec),
            control=record.control,
        )
        sealed = seal(plan, signer=self._signer, index=0)
        return self._frame(spec, sealed, self._index_of(upcoming.model), history)

    def bound(self, job: JobId, spec: JobSpec) -> tuple[ParticipantId, ...]:
        """Whom the next round of a job asks that waits for its turn, and nobody else; empty for all of its members. Of
        records that cannot be read nothing is said here: the job meets them when it is taken up, as its own trouble.
        """
        try:
            history, _ = self._read(job, spec)
        except FederationError:
            return ()
        return history.bound

    def take_up(self, job: JobId, spec: JobSpec) -> TakenUp:
        """Read a job: after a start, and after a round that could not begin. Raises as `next_round`, and ConfigError
        for an open masked round whose members this coordinator does not know any more.
        """
        history, plan = self._read(job, spec)
        if plan is None:
            return TakenUp(history, None)
        if obstacle := self.obstacle(spec):  # the manifest changed: by what key would a member's word be opened?
            raise ConfigError(f"its open round cannot go on here: {obstacle}")
        return TakenUp(history, self._frame(spec, plan, self._index_of(plan.value.model), history))

    def take_up_to_abort(self, job: JobId, spec: JobSpec) -> TakenUp:
        """As `take_up`, but without the model, which may be what is missing. An open round can only abort with this
        frame, since nothing of an abort depends on the model's index or the layout. Raises StorageError, WireError.
        """
        history, plan = self._read(job, spec)
        return TakenUp(history, None if plan is None else self._frame(spec, plan, _UNREAD, history))

    def _read(self, job: JobId, spec: JobSpec) -> tuple[History, Sealed[RoundPlan] | None]:
        history = History(spec.initial_model)
        for record in self._store.rounds(job):
            if not record.outcome:
                return history, decode_plan(self._store.journal_of(record.key)[0])
            history = history.after(record, spec)
        return history, None

    def _index_of(self, model: Digest) -> ModelIndex:
        with closing(self._blobs.model(model)) as reader:
            return read_index(reader)

    def _frame(self, spec: JobSpec, plan: Sealed[RoundPlan], index: ModelIndex, history: History) -> RoundFrame:
        carried = plan.value.previous_result
        previous = reopen(RoundResult, decode_envelope(carried)).value if carried else None
        masked = self._consortium if spec.masking.masked else None
        return RoundFrame(
            spec=spec,
            plan=plan,
            index=index,
            statistics=StatisticsLayout(spec.metrics),
            encoding=_encoding(spec, previous, history.misses),
            consortium=masked.digest.raw if masked is not None else b"",
            keys=_keys(spec, masked) if masked is not None else {},
            top_cells=previous.top_cells if previous is not None and spec.masking.masked else None,
            bound=history.bound,
        )


def _encoding(spec: JobSpec, previous: RoundResult | None, misses: int) -> Encoding:
    """The widest while no range is known, and once members found it too narrow too often."""
    profile = spec.masking.profile
    if profile.masked and (previous is None or misses >= MISSES_MAX):
        return Encoding.U64
    return profile


def _keys(spec: JobSpec, consortium: Consortium) -> Mapping[ParticipantId, VerifyingKey]:
    found = {member: consortium.participant_key(member) for member in spec.members}
    return {member: key for member, key in found.items() if key is not None}
