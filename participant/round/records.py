"""What this silo's policy and journal say about a plan or an exchange: the machine is told, and cannot know it itself.

Everything here only looks; what follows from it is for the machine, and is done by the driver.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import assert_never

import structlog

from participant.consent import require_consent
from participant.round.checks import another_history, encoding_of
from participant.round.effects import BundleCame, DeliveryCame, Event, RosterCame, SurvivorsListed
from participant.round.phases import Offer, Total
from participant.round.surroundings import Surroundings
from shared.errors import ConsentRefused
from shared.ids import RoundKey
from shared.job import jobspec_digest, parse_jobspec
from shared.protocol.messages import (
    SIGNER_COORDINATOR,
    ConsistencyBundle,
    Exchange,
    KeyRoster,
    RoundPlan,
    RoundResult,
    Sealed,
    ShareDelivery,
    SurvivorList,
    UploadCommit,
    plan_digest,
)
from shared.protocol.phases import Role
from shared.reasons import ConsentRule
from shared.wire.sealed import Verifier, decode_envelope, open_sealed

log = structlog.get_logger()


def carried_in(plan: RoundPlan, verifier: Verifier) -> Sealed[RoundResult] | None:
    """The result that a plan carries, its signature verified; None before the first. Raises PeerError."""
    if not plan.previous_result:
        return None
    return open_sealed(RoundResult, decode_envelope(plan.previous_result), verifier=verifier, index=SIGNER_COORDINATOR)


class Records:
    """The policy, the journal, and what they say."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def is_over(self, key: RoundKey) -> bool:
        """Whether the round is on record as over here."""
        history = self._around.journal.history(key.job)
        return history is not None and key.number <= history.finished_round

    def declined_by(self, offer: Offer) -> ConsentRule | None:
        """The rule of this silo's policy that says no to the round."""
        journal, plan = self._around.journal, offer.plan.value
        alike = journal.jobs_with(jobspec_digest(plan.jobspec))
        try:
            require_consent(self._around.policy, plan, offer.spec, journal.history(plan.key.job), alike=alike)
        except ConsentRefused as refused:
            log.warning(
                "round_declined",
                peer=Role.COORDINATOR,
                job=plan.key.job,
                round=plan.key.number,
                rule=refused.rule,
                detail=str(refused),
            )
            return refused.rule
        return None

    def offer_of(self, plan: Sealed[RoundPlan], previous: Sealed[RoundResult] | None) -> Offer:
        """The plan as this silo sees it."""
        policy, spec = self._around.policy, parse_jobspec(plan.value.jobspec)
        history = self._around.journal.history(plan.value.key.job)
        result = previous.value if previous is not None else None
        return Offer(
            plan=plan,
            digest=plan_digest(plan),
            spec=spec,
            index=spec.members.index(policy.participant) + 1 if policy.participant in spec.members else 0,
            previous=result,
            encoding=encoding_of(spec, result),
            misses=history.misses if history is not None else 0,
            consortium=policy.consortium,
            verified=history.verified if history is not None else None,
        )

    def other_history(self, offer: Offer) -> str | None:
        """How the result in a plan contradicts the one that this silo verified; None when it does not."""
        carried = offer.previous
        aborted = carried is not None and self._around.journal.was_aborted(carried.key)
        return another_history(offer, aborted=aborted)

    def event_of(self, message: Exchange, offer: Offer) -> Event:
        """With which totals this silo helped to open before. Raises PeerError for a commitment under this silo's number
        that it did not sign.
        """
        match message:
            case KeyRoster():
                return RosterCame(message)
            case ShareDelivery():
                return DeliveryCame(message)
            case SurvivorList():
                if not offer.masked:
                    self._check_own_commitment(offer, message)
                return SurvivorsListed(message, self.opened_before(offer), self._repeats_allowed(offer))
            case ConsistencyBundle():
                return BundleCame(message, self.opened_before(offer), self._repeats_allowed(offer))
            case _:
                assert_never(message)

    def opened_before(self, offer: Offer) -> Collection[Total]:
        """On the model that this round starts from; nothing is asked of a plain one."""
        return self._around.journal.totals(offer.spec.task, offer.plan.value.model) if offer.masked else ()

    def _repeats_allowed(self, offer: Offer) -> bool:
        """By the configuration, or because a person said so since: both are asked each time."""
        job = offer.key.job
        return job in self._around.policy.allowed_repeats or self._around.journal.repeat_allowed(job)

    def _check_own_commitment(self, offer: Offer, listed: SurvivorList) -> None:
        """What stands under this participant's number must be signed by it; the machine checks for which attempt."""
        for commit in listed.commits:
            if commit.signer == offer.index:
                open_sealed(UploadCommit, commit, verifier=self._around.own_key, index=commit.signer)
