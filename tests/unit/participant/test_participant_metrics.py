"""What the participant's metrics count; nothing of a silo's data is among it."""

from __future__ import annotations

from participant.disk_use import DiskKind
from participant.metrics import ParticipantMetrics
from participant.round.phases import Finished, Out, Ready, Working
from shared.build import build_info
from shared.disk_use import DiskUse
from shared.ids import AttemptKey, AttemptNumber, Digest
from shared.protocol.messages import AnswerKind, AttemptAbort, AttemptAnswer, Heartbeat, Withdraw
from shared.reasons import AttemptAbortReason, DropReason
from shared.wire.sealed import seal
from tests.support.rounds import KEY, A, key_of, make_masked_spec, make_offer, offer_of, spooled


def metrics() -> ParticipantMetrics:
    return ParticipantMetrics(build=build_info(environment={}))


def value(of: ParticipantMetrics, name: str, **labels: str) -> float | None:
    return of.registry.get_sample_value(f"consilo_participant_{name}", labels)


def test_rounds_are_counted_by_outcome_and_mode() -> None:
    seen, masked = metrics(), offer_of(make_masked_spec())
    seen.moved(Working(masked))
    seen.moved(Ready(masked, spooled(), None))
    assert value(seen, "rounds", phase="working") == 0
    assert value(seen, "rounds", phase="ready") == 1
    seen.moved(Finished(masked, survived=True))
    seen.moved(Finished(make_offer(), survived=False))
    assert value(seen, "rounds", phase="ready") == 0
    assert value(seen, "rounds_finished_total", outcome="survived", mode="masked") == 1
    assert value(seen, "rounds_finished_total", outcome="without_this_silo", mode="plain") == 1


def test_a_round_that_was_left_has_a_reason() -> None:
    seen, offer = metrics(), make_offer()
    seen.moved(Out(offer, Withdraw(offer.key, offer.digest, DropReason.OUT_OF_RANGE), over=True))
    assert value(seen, "rounds_left_total", reason="out_of_range") == 1


def test_an_attempt_that_was_left_is_counted_when_it_is_said() -> None:
    seen = metrics()
    word = seal(AttemptAbort(Digest.of(b"h0"), 1, AttemptAbortReason.GONE), signer=key_of(A), index=1)
    seen.said(AttemptAnswer(AttemptKey(KEY, AttemptNumber(1)), AnswerKind.ATTEMPT_ABORT, word.envelope))
    seen.said(Heartbeat())
    assert value(seen, "attempts_left_total", reason="gone") == 1


def test_alarms_are_counted_by_what_was_wrong() -> None:
    seen = metrics()
    seen.alarmed("range_understated")
    assert value(seen, "alarms_total", what="range_understated") == 1


def test_the_disk_is_told_by_kind() -> None:
    of = metrics()
    of.disk(DiskUse(dict.fromkeys(DiskKind, 1), {kind: 10 * number for number, kind in enumerate(DiskKind)}, 77))
    assert value(of, "disk_bytes", kind="journal") == 0
    assert value(of, "disk_bytes", kind="journal_log") == 10
    assert value(of, "disk_free_bytes") == 77
