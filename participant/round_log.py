"""What this silo's log says of a round that goes well: what it agreed to, what left the silo, and how it ended.

The silo answers for every byte that leaves, so each of these is a line, said when it is true: after the journal has it,
or the coordinator acknowledged it. A restart says none of them again, because what goes on from the journal is not
recorded anew; only an upload of a plain job that was cut off is acknowledged again, and said again. A daemon that is
killed between the record and the line says nothing of it, and the journal has it all the same.

In these lines are names, numbers and digests, and nothing that was measured on the silo's data.
"""

from __future__ import annotations

import structlog

from participant.round.effects import AbortCame, Event, PassedOver, ResultCame
from participant.round.phases import Masked, Offer, Opening, Protection, Ready, RoundState, Working
from shared.ids import AttemptKey, Digest

_log = structlog.get_logger(__name__)


def log_accepted(offer: Offer) -> None:
    """The silo consents to the round: it will read its data for it."""
    plan = offer.plan.value
    _log.info(
        "round_accepted", job=plan.key.job, round=plan.key.number, purpose=plan.purpose, model=str(plan.model),
        deadline_s=plan.deadline_s,
    )  # fmt: skip


def log_sent(attempt: AttemptKey, update: Digest, size: int, protection: Protection) -> None:
    """The coordinator acknowledged an update. `update` is the digest of what left, as it stands in the commitment."""
    _log.info(
        "update_sent", job=attempt.round.job, round=attempt.round.number, attempt=attempt.attempt, bytes=size,
        update=str(update), protection="masked" if isinstance(protection, Masked) else "plain",
    )  # fmt: skip


def log_opened(offer: Offer, opening: Opening) -> None:
    """The silo helps to open the total over these members, and no other of this round."""
    _log.info(
        "total_opened", job=offer.key.job, round=offer.key.number, survivors=len(opening.names),
        names=list(opening.names),
    )  # fmt: skip


def log_over(state: RoundState, event: Event | None) -> None:
    """The round ended in `state`, by `event`; None: this silo's policy of today took the consent back."""
    how, counted = "left", "no" if _sent_nothing(state) else "unknown"
    match event:
        case ResultCame(result):
            how, counted = "committed", "yes" if state.offer.index in result.value.survivors else "no"
        case AbortCame():
            how, counted = "aborted", "no"
        case PassedOver():
            how = "passed_over"
        case _:
            pass
    _log.info("round_over", job=state.offer.key.job, round=state.offer.key.number, how=how, counted=counted)


def _sent_nothing(state: RoundState) -> bool:
    return isinstance(state, Working) or (isinstance(state, Ready) and state.last is None)
