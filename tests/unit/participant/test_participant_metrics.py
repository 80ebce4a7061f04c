"""What the participant's metrics count; nothing of a silo's data is among it."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from participant.disk_use import DiskKind
from participant.metrics import ParticipantMetrics
from participant.round.phases import Finished, Out, Ready, Working
from shared.build import build_info
from shared.disk_use import DiskUse
from shared.ids import AttemptKey, AttemptNumber, Digest
from shared.protocol.messages import AnswerKind, AttemptAbort, AttemptAnswer, Heartbeat, Withdraw
from shared.reasons import AttemptAbortReason, DropReason
from shared.wire.sealed import seal
from tests.support.credentials import Consortium
from tests.support.federation import CONSILO, Process, free_port
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
    of.disk(DiskUse(dict.fromkeys(DiskKind, 1), {kind: 10 * number for number, kind in enumerate(DiskKind)}, 77, 990))
    assert value(of, "disk_bytes", kind="journal") == 0
    assert value(of, "disk_bytes", kind="journal_log") == 10
    assert value(of, "disk_free_bytes") == 77


def test_a_daemon_tells_of_its_disk(tmp_path: Path) -> None:
    """From its start on, and whether or not a coordinator can be reached."""
    credentials, port = Consortium(tmp_path / "pki").participant("hospital-a"), free_port()
    config = tmp_path / "participant.toml"
    config.write_text(
        '[participant]\nid = "hospital-a"\ncoordinators = ["localhost:1"]\ndata_dir = "data"\n'
        f'[tls]\ncertificate = "{credentials.tls.certificate}"\nkey = "{credentials.tls.key}"\n'
        f'ca = "{credentials.tls.ca}"\n'
        f'[signing]\ncertificate = "{credentials.signing_certificate}"\nkey = "{credentials.signing_key_path}"\n'
        f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
    )
    command = [*CONSILO, "participant", "run", "--config", str(config)]
    daemon = Process(command, log=tmp_path / "log", environment={})
    page = ""
    try:
        daemon.wait_for("participant_started")
        for _ in range(1000):  # the first look is on a thread
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                page = answer.read().decode()
            if "disk_bytes{" in page:
                break
    finally:
        assert daemon.stop() == 0
    told = dict(re.findall(r'^consilo_participant_disk_bytes\{kind="(\w+)"\} (\S+)$', page, re.MULTILINE))
    assert told.keys() == {str(kind) for kind in DiskKind}
    assert float(told["journal"]) > 0
