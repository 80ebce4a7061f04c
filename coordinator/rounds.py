"""What rounds go on in: the conductor, the threads that it hands work to, and where updates are taken in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.conducting import ConductorThread
from coordinator.conductor import Conductor
from coordinator.ending import end_at_once
from coordinator.fold_thread import FoldThread
from coordinator.intake import Intake
from coordinator.metrics import CoordinatorMetrics
from coordinator.round.surroundings import Surroundings
from coordinator.round.transition import V
from coordinator.round_log import RoundLog
from coordinator.rpc.sessions import Sessions
from coordinator.settings import CoordinatorSettings
from coordinator.startup import Records
from shared.clock import Clock
from shared.consortium import Consortium
from shared.identity import AllowlistFile, Identity, Role
from shared.ids import ParticipantId
from shared.protocol.messages import Sealed
from shared.tls import OwnCredentials
from shared.wire.sealed import seal


@dataclass(frozen=True, slots=True)
class Rounds:
    """One of each."""

    conductor: Conductor
    folds: FoldThread
    intake: Intake


def rounds_of(
    *,
    thread: ConductorThread,
    sessions: Sessions,
    records: Records,
    settings: CoordinatorSettings,
    credentials: OwnCredentials,
    consortium: Consortium | None,
    allowlist: AllowlistFile,
    clock: Clock,
    observer: CoordinatorMetrics,
) -> Rounds:
    """Those of one run. The conductor is not started yet, and belongs to `thread` from its start on."""
    key = credentials.signing.key
    conductor: Conductor

    def sealed(value: V, /) -> Sealed[V]:
        return seal(value, signer=key, index=0)

    def kept_out(participants: Sequence[ParticipantId]) -> Sequence[ParticipantId]:
        ours = credentials.tls.identity.consortium
        named = {Identity(ours, Role.PARTICIPANT, participant): participant for participant in participants}
        return [named[identity] for identity in allowlist.lacking(named)]

    folds = FoldThread(
        blobs=records.blobs,
        report=lambda round_key, outcome: thread.post(conductor.fold_ended, round_key, outcome),
        on_unknown=end_at_once,
    )
    intake = Intake(records.blobs)
    around = Surroundings(
        store=records.store,
        audit=records.audit,
        outbox=sessions,
        folds=folds,
        seal=sealed,
        clock=clock,
        observer=RoundLog(following=observer),
    )
    conductor = Conductor(
        around=around,
        blobs=records.blobs,
        intake=intake,
        signer=key,
        consortium=consortium,
        keep_versions=settings.retention.keep_versions,
        kept_out=kept_out,
    )
    return Rounds(conductor, folds, intake)
