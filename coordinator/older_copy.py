"""Records that are an older copy of themselves: how that is found, and what follows.

A data folder may be set back: restored from a backup, or exchanged for a copy by somebody who does not say so. The
coordinator cannot see the second by itself. Its silos can: each kept the last result that it verified in a job, in the
coordinator's own signed words (a *head*), and shows it when a session opens. A result is durable before it is sent, so
whatever anybody verified is on record with the same payload, after a crash at any moment too. A head that this
coordinator signed and that is not on record therefore proves that the records are older than it; nobody but the
coordinator's own key can make one.

From records that are older no job goes on: silos know another history of it, and would leave it for good. So before any
round is planned every open job ends. That is noted first, with an entry in the audit log, and is taken up again by the
next start if a crash comes between. What goes on is a new job, from any model that is on record.

Each lost result is noted once, or every new session would end jobs again. After the records were found to be older, a
lost result of a job that is unknown here, or over, is a part of what was lost then: it is noted, and ends nothing.
Otherwise a silo could keep it for a moment of its choice.

`restore` notes the same in the folder that it makes, so that a start after it does not wait for anybody's head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from coordinator.audit import AuditLog
from coordinator.jobs import Jobs
from coordinator.planning import Planning
from coordinator.storage.interface import COMMITTED, SetBack, Store
from shared.errors import PeerError, UnknownError, WireError
from shared.identity import VerifyingKey
from shared.ids import Digest, JobId, ParticipantId
from shared.job import JobSpec
from shared.protocol.messages import SIGNER_COORDINATOR, Envelope, RoundResult, Sealed
from shared.reasons import AbortReason
from shared.wire.sealed import decode_envelope, open_sealed

Head = Sealed[RoundResult]

_log = structlog.get_logger(__name__)


def own_heads(shown: Sequence[Envelope], *, verifier: VerifyingKey) -> Sequence[Head]:
    """Those that this coordinator signed. The others are another coordinator's, or made up, and prove nothing."""
    heads: list[Head] = []
    for envelope in shown:
        try:
            heads.append(open_sealed(RoundResult, envelope, verifier=verifier, index=SIGNER_COORDINATOR))
        except PeerError:
            continue
    return heads


class OlderCopy:
    """Finds that the records are an older copy, and ends what is open in them. On the conductor's thread."""

    def __init__(
        self,
        *,
        store: Store,
        audit: AuditLog,
        jobs: Jobs,
        planning: Planning,
        end_job: Callable[[JobId, AbortReason, str], None],
    ) -> None:
        self._store = store
        self._audit = audit
        self._jobs = jobs
        self._planning = planning
        self._end_job = end_job
        self._known: list[SetBack] = []

    def start(self) -> None:
        """Read what is noted."""
        self._known = list(self._store.set_backs())

    @property
    def pending(self) -> bool:
        """Whether open jobs have to end before anything goes on."""
        return any(not found.ended for found in self._known)

    def shown(self, participant: ParticipantId, heads: Sequence[Head]) -> int:
        """Heads of this coordinator's own that a participant showed; how many of them were lost and new."""
        lost = [head for head in heads if self._is_news(head)]
        for head in lost:
            self._note(participant, head)
        return len(lost)

    def end_jobs(self) -> None:
        """End every open job. After an error the rest is done by calling it again."""
        first, *more = [found.why for found in self._known if not found.ended]
        why = f"{first} (and {len(more)} more)" if more else first
        ended = [job for job, spec in self._jobs.specs().items() if self._end(job, spec, why)]
        self._store.end_set_backs()
        self._known = list(self._store.set_backs())
        _log.error("older_records", why=why, jobs_ended=sorted(ended))

    def _end(self, job: JobId, spec: JobSpec, why: str) -> bool:
        """Whether a job ended. One whose open round cannot be read does not: nothing can be said of that round, it does
        not go on either, and the others must not wait for it.
        """
        advice = "submit a new job under another id"
        try:
            advice += f', with initial = "model:{self._planning.take_up_to_abort(job, spec).history.model}"'
        except WireError:
            _log.warning("job_cannot_be_read", job=job, meaning="which model it had come to is not known")
        try:
            self._end_job(job, AbortReason.RESTORED, f"{why}; {advice}")
        except WireError as error:
            _log.error("job_not_ended", job=job, reason=str(error), why=why)
            return False
        _log.warning("job_ended", job=job, reason=AbortReason.RESTORED, why=why, advice=advice)
        return True

    # --- heads --------------------------------------------------------------------------------------------------------

    def _is_news(self, head: Head) -> bool:
        if any(found.lost == Digest.of(head.payload) for found in self._known):
            return False
        try:
            record = self._store.round(head.value.key)
        except UnknownError:
            return True
        return record.outcome != COMMITTED or decode_envelope(record.result).payload != head.payload

    def _note(self, participant: ParticipantId, head: Head) -> None:
        """That a result is lost, first of all; and unless it was lost with others, that open jobs have to end."""
        result, explained = head.value, self._lost_with_others(head)
        facts = {
            "job": result.key.job,
            "round": result.key.number,
            "result": str(Digest.of(head.payload)),
            "next_model": str(result.next_model),
            "shown_by": participant,
        }
        why = f"{participant} showed the result of round {result.key}, which this coordinator signed and has no more"
        found = SetBack(why, Digest.of(head.payload), ended=explained)
        if explained:
            entry = self._audit.entry("result_lost", facts)
        else:
            entry = self._audit.entry("records_rolled_back", facts)
        if self._store.note_set_back(found, entry):
            self._audit.accept(entry)
        self._known.append(found)
        _log.error("result_lost", **facts, ends_jobs=not explained)

    def _lost_with_others(self, head: Head) -> bool:
        """A part of what was found to be lost before: a job that is still open would be a second loss."""
        record = self._jobs.known(head.value.key.job)
        return bool(self._known) and (record is None or record.state.over)
