"""What an operator is told of jobs, rounds and versions: the same over the wire and on the status pages (pure).

Whatever is not in these values leaves the coordinator neither way.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.desk import JobView
from coordinator.round.phases import Aborted, Committed, Present, RoundState, phase_name
from coordinator.storage.interface import JobRecord, ModelRecord, RoundRecord
from shared.ids import ParticipantId
from shared.wire.operations import JobDetail, JobStatus, LiveMember, LiveRound, ModelStatus, RoundStatus

LEAST_IN_A_TOTAL = 2  # a total over fewer is one silo's own figure: neither page nor metric shows it


def job_status(view: JobView) -> JobStatus:
    return record_status(view.record, view.record.reason or view.waits_for)


def record_status(record: JobRecord, reason: str) -> JobStatus:
    return JobStatus(
        job=record.job,
        spec=record.spec,
        state=record.standing,
        reason=reason,
        submitted_by=record.submitted_by,
        submitted_at=record.submitted_at,
        control=record.control,
        pause=None if record.state.over else record.pause,
    )


def job_detail(view: JobView, *, already_said: int) -> JobDetail:
    """`already_said`: so many finished rounds are left out."""
    finished = [record for record in view.rounds if record.outcome]
    return JobDetail(
        job=job_status(view),
        rounds=tuple(map(_round_status, finished[already_said:])),
        live=_live(view.live, view.progress) if view.live is not None else None,
    )


def model_status(model: ModelRecord) -> ModelStatus:
    return ModelStatus(model.digest, model.manifest, model.promoted, model.pruned)


def _round_status(record: RoundRecord) -> RoundStatus:
    return RoundStatus(key=record.key, purpose=record.purpose, outcome=record.outcome, summary=record.summary)


def _live(state: RoundState, progress: Mapping[ParticipantId, int]) -> LiveRound | None:
    if isinstance(state, Committed | Aborted):
        return None
    plan = state.frame.plan.value
    members = (
        LiveMember(
            participant=member,
            phase=conversation.phase,
            connected=isinstance(conversation.link, Present),
            percent=progress.get(member),
        )
        for member, conversation in state.conversations.items()
    )
    return LiveRound(
        key=plan.key,
        purpose=plan.purpose,
        phase=phase_name(state),
        members=tuple(members),
        control_revision=plan.control.revision,
    )
