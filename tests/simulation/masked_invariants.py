"""What masking adds to the invariants, each with the name by which a planted bug is convicted.

* `one-kind`: in no attempt do the words of the silos hold both kinds of share of one member (seen in `Evidence.said`);
* `opened-once`: of a round at most one total is ever helped to open, by any silo, in any attempt; who helped has it on
  record for good; and no attempt begins after a bundle was made;
* `fresh-keys`: no public key is advertised twice (seen in `Evidence.said`);
* `range`: top cells are the greatest of the survivors' cells; attempts are in the encoding that the rounds before and
  the misses lead to;
* `no-secret`: no secret of an attempt is in anything that the coordinator has on record or that anybody was told.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from coordinator.planning import MISSES_MAX
from coordinator.round.effects import AttemptBegun, RangeMissed
from coordinator.round.journal import decode_record
from coordinator.round.phases import Fit
from coordinator.storage.interface import COMMITTED, RoundRecord
from shared.protocol.messages import RoundResult
from shared.reasons import Purpose
from shared.update import RANGE_EXPONENT_MAX, RANGE_EXPONENT_MIN, RANGE_NONE, Encoding
from shared.wire.sealed import decode_envelope, reopen
from tests.simulation.coordinator_process import Host
from tests.simulation.evidence import Evidence
from tests.simulation.settings import hold
from tests.simulation.silo import Silo

_WINDOW_BYTES = 8


def openings_stay(seen: Evidence, silos: Iterable[Silo]) -> None:
    """What a silo helped to open it remembers, whatever happens to it."""
    for silo in silos:
        kept = {key: opening.survivors for (key, _), (_, opening) in silo.journal._kept.openings.items()}
        for (name, key), survivors in seen.openings.items():
            if name == silo.name:
                hold(kept.get(key) == survivors, "opened-once", f"{name} forgot that it helped to open round {key}")


def no_attempt_after_a_bundle(host: Host) -> None:
    for key, journal in host.store._records.journals.items():
        kinds = [entry.kind for entry in journal]
        if "bundle_made" in kinds:
            after = kinds[kinds.index("bundle_made") :]
            hold("attempt_begun" not in after, "opened-once", f"an attempt begins after round {key} began to open")


def round_ended(host: Host, seen: Evidence, record: RoundRecord) -> None:
    """The journal of a finished round, from its plan to its end. Asked in the order of the rounds."""
    spec, first = host.spec, seen.model is None
    expected = Encoding.U64 if first or seen.misses >= MISSES_MAX else spec.masking.profile
    missed = widened = False
    for entry in map(decode_record, host.store._records.journals[record.key][1:]):
        match entry:
            case RangeMissed(fit):
                widest = expected is Encoding.U64 and not widened
                hold(not widest, "range", f"an update of {record.key} does not fit the widest encoding")
                widened, missed, expected = True, fit is Fit.MISSED, Encoding.U64
            case AttemptBegun(start, _):
                hold(start.value.encoding is expected, "range", f"{start.value.key} is not in {expected.name}")
            case _:
                pass
    told = json.loads(record.summary)["range_miss"]
    hold(told == missed, "range", f"the record of {record.key} says range_miss {told}")
    seen.misses += missed
    if record.outcome == COMMITTED:
        _top_cells(host, seen, record)


def _top_cells(host: Host, seen: Evidence, record: RoundRecord) -> None:
    result = reopen(RoundResult, decode_envelope(record.result)).value
    expected: tuple[int, ...] = ()
    if record.purpose is Purpose.TRAIN:
        values = [seen.values[host.spec.members[index - 1], record.key] for index in result.survivors]
        expected = (max(map(cell_of, values)),)
    hold(result.top_cells == expected, "range", f"{record.key} has top cells {result.top_cells}, expected {expected}")


def cell_of(value: float) -> int:
    """ceil(log2 value), as the protocol clamps it; for powers of two and for 0."""
    if not value:
        return RANGE_NONE
    return min(max(math.ceil(math.log2(value)), RANGE_EXPONENT_MIN), RANGE_EXPONENT_MAX)


# --- no-secret --------------------------------------------------------------------------------------------------------


def no_secret(host: Host, seen: Evidence, lines: Sequence[str]) -> None:
    """Asked once, at the end of a history: nothing that was recorded or told is ever taken back."""
    corpus = b"\0".join(
        (*_recorded(host), *host.taken, *seen.frames, *(text.encode() for text in (*seen.texts, *lines)))
    )
    for found in occurrences(seen.secrets, corpus):
        hold(False, "no-secret", f"a secret of an attempt stands {found}")


def _recorded(host: Host) -> Iterator[bytes]:
    records = host.store._records
    for journal in records.journals.values():
        yield from (entry.body for entry in journal)
    for record in records.rounds.values():
        yield from (record.result, record.summary)
    yield from (entry.line for entry in records.audit)
    yield from (model.manifest for model in records.models.values())


def occurrences(secrets: Iterable[bytes], corpus: bytes) -> Iterator[str]:
    """How secrets stand in the corpus: raw, in hexadecimal or in base64 at any of its three offsets."""
    forms: dict[bytes, list[tuple[str, bytes]]] = {}  # by their first bytes, which two may share
    for secret in secrets:
        for name, form in _forms(secret):
            forms.setdefault(form[:_WINDOW_BYTES], []).append((name, form))
    if not forms or len(corpus) < 2 * _WINDOW_BYTES:
        return
    wanted = np.unique(np.frombuffer(b"".join(forms), "<u8"))
    for offset in range(_WINDOW_BYTES):
        count = (len(corpus) - offset) // _WINDOW_BYTES
        windows = np.frombuffer(corpus, "<u8", count=count, offset=offset)
        nearest = wanted[np.minimum(np.searchsorted(wanted, windows), wanted.size - 1)]
        for window in windows[nearest == windows]:
            yield from (name for name, form in forms[window.tobytes()] if form in corpus)


def _forms(secret: bytes) -> Iterator[tuple[str, bytes]]:
    yield "raw", secret
    yield "in hexadecimal", secret.hex().encode()
    yield "in hexadecimal", secret.hex().upper().encode()
    yield "in base64", base64.b64encode(secret)[:40]
    for before in (1, 2):
        yield "in base64", base64.b64encode(bytes(before) + secret)[4:40]
