"""The audit log: made, accepted, projected, verified; and every way of tampering with it."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.audit import (
    GENESIS,
    MESSAGE_TYPE,
    AuditProjection,
    HeldFile,
    Verified,
    compare,
    head_of,
    read_entries,
    resume,
    verify_lines,
)
from coordinator.storage.interface import AuditEntry
from coordinator.storage.memory import MemoryStore
from shared.clock import SystemClock
from shared.errors import AuditError
from shared.hashing import tagged_hash
from shared.identity import SigningKey
from shared.ids import Digest
from shared.job import canonical_json
from shared.secret import Secret
from tests.support.audit_log import KEY, as_file, new_log, paged, some_entries

ENTRIES = some_entries(4)
LOG = as_file(ENTRIES)
OTHER = SigningKey.from_seed(Secret(bytes(32)))
verify = partial(verify_lines, verifying_key=KEY.verifying_key)


def lines_of(log: bytes) -> list[bytes]:
    return [line + b"\n" for line in log.split(b"\n")[:-1]]


def signed(body: bytes, *, key: SigningKey = KEY) -> bytes:
    return key.sign(MESSAGE_TYPE, body).hex().encode() + b" " + body + b"\n"


def body(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "seq": 0,
        "prev": str(GENESIS),
        "time": "2026-11-22T10:00:00.000Z",
        "kind": "started",
        "data": {},
    }
    return {**fields, **changes}


def test_an_entry_is_a_signature_and_a_canonical_body() -> None:
    entry = new_log().entry("job_submitted", {"job": "heart-1", "by": "ada"})
    signature, raw = entry.line.split(b" ", 1)
    assert raw == (
        b'{"data":{"by":"ada","job":"heart-1"},"kind":"job_submitted",'
        b'"prev":"' + b"0" * 64 + b'","seq":0,"time":"2026-11-22T10:00:00.123Z"}'
    )
    KEY.verifying_key.verify("audit", raw, bytes.fromhex(signature.decode()))
    assert head_of(entry) == tagged_hash("audit", raw)


def test_a_log_moves_on_only_when_an_entry_is_accepted() -> None:
    log = new_log()
    failed = log.entry("started", {"try": 1})
    stored = log.entry("started", {"try": 2})
    assert failed.seq == stored.seq == 0
    assert (log.size, log.head) == (0, GENESIS)
    log.accept(stored)
    assert (log.size, log.head) == (1, head_of(stored))
    for stale in (failed, stored):
        with pytest.raises(RuntimeError, match="goes on with entry 1"):
            log.accept(stale)
    following = log.entry("stopped", {})
    assert json.loads(following.line.split(b" ", 1)[1])["prev"] == str(log.head)


def test_an_entry_that_follows_another_one_is_not_accepted() -> None:
    log, fork = new_log(), new_log()
    log.accept(log.entry("started", {"try": 1}))
    fork.accept(fork.entry("started", {"try": 2}))
    with pytest.raises(RuntimeError):
        log.accept(fork.entry("stopped", {}))


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("Started", {}),
        ("", {}),
        ("started", {"x": float("nan")}),
        ("started", {"x": b"bytes"}),
        ("started", {"x": "\ud800"}),
        ("started", {"x": {9: "a", 10: "b"}}),
    ],
)
def test_an_entry_that_could_not_be_read_again_is_a_bug_of_ours(kind: str, data: dict[str, object]) -> None:
    with pytest.raises(RuntimeError):
        new_log().entry(kind, data)


def test_a_log_is_resumed_from_a_store() -> None:
    store = MemoryStore()
    make = partial(resume, store.audit_entries, sign=partial(KEY.sign, MESSAGE_TYPE), clock=SystemClock())
    assert (make().size, make().head) == (0, GENESIS)
    for entry in ENTRIES:
        store.append_audit(entry)
    resumed = make()
    assert (resumed.size, resumed.head) == (4, head_of(ENTRIES[-1]))
    following = resumed.entry("started", {})
    assert verify(as_file([*ENTRIES, following])).size == 5


def test_a_whole_log_verifies() -> None:
    last = head_of(ENTRIES[-1])
    assert verify(LOG) == Verified(size=4, head=last, tail_proven=False, entries_after_head=0)
    assert verify(lines_of(LOG), head=last) == Verified(size=4, head=last, tail_proven=True, entries_after_head=0)
    assert verify(LOG, head=head_of(ENTRIES[1])).entries_after_head == 2
    assert verify(b"") == Verified(size=0, head=GENESIS, tail_proven=False, entries_after_head=0)


def test_reading_hands_out_what_was_recorded() -> None:
    records = list(read_entries(LOG, verifying_key=KEY.verifying_key))
    assert [record.seq for record in records] == [0, 1, 2, 3]
    assert records[1].data == {"job": "heart-1", "round": 1, "who": "Ä\u2028b"}
    assert [record.head for record in records] == [head_of(entry) for entry in ENTRIES]


def test_any_changed_byte_is_found_at_every_position() -> None:
    small = as_file(some_entries(2))
    for position, byte in enumerate(small):
        replacements = {byte ^ 1, byte ^ 0x20, byte ^ 0x80, 0, ord("\n"), ord("0"), ord(" "), ord("f")} - {byte}
        for replacement in replacements:
            changed = small[:position] + bytes([replacement]) + small[position + 1 :]
            with pytest.raises(AuditError, match=r"^line [123]: "):
                verify(changed)


def test_any_removed_or_inserted_byte_is_found() -> None:
    small = as_file(some_entries(2))
    for position in range(len(small)):
        with pytest.raises(AuditError):
            verify(small[:position] + small[position + 1 :])
        for extra in (b"\n", b" ", b"\r", b"a", b"\0"):
            with pytest.raises(AuditError):
                verify(small[:position] + extra + small[position:])
    for garbage in (b"\n", b" ", b"\0", b"\xef\xbb\xbf", b"\r\n"):
        with pytest.raises(AuditError, match=r"^line 3: "):
            verify(small + garbage)


@given(data=st.data())
def test_any_edit_of_bytes_is_found(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(LOG) - 1))
    end = data.draw(st.integers(start, len(LOG)))
    changed = LOG[:start] + data.draw(st.binary(max_size=8)) + LOG[end:]
    if changed == LOG:
        return
    with pytest.raises(AuditError):
        verify(changed, head=head_of(ENTRIES[-1]))


@given(st.permutations(range(4)), st.integers(0, 4))
def test_only_the_true_order_verifies(order: list[int], count: int) -> None:
    chosen = order[:count]
    log = as_file([ENTRIES[number] for number in chosen])
    if chosen == list(range(count)):
        assert verify(log).size == count
    else:
        with pytest.raises(AuditError, match="expected entry"):
            verify(log)


def test_a_repeated_line_is_found() -> None:
    for number in range(4):
        log = as_file([*ENTRIES[: number + 1], *ENTRIES[number:]])
        with pytest.raises(AuditError, match=f"line {number + 2}: expected entry {number + 1}, found entry {number}"):
            verify(log)


def test_a_tail_cut_at_a_line_is_found_with_a_head_only() -> None:
    last = head_of(ENTRIES[-1])
    for count in range(4):
        cut = as_file(ENTRIES[:count])
        assert not verify(cut).tail_proven
        with pytest.raises(AuditError, match="its tail was cut, or this is another log"):
            verify(cut, head=last)
    with pytest.raises(AuditError, match="tail was cut"):
        verify(LOG, head=GENESIS)


def test_a_tail_cut_inside_a_line_is_found_without_a_head() -> None:
    for end in range(1, len(LOG)):
        if LOG[end - 1 : end] != b"\n":
            with pytest.raises(AuditError, match="no line feed"):
                verify(LOG[:end])


def test_a_rewritten_history_is_found() -> None:
    with pytest.raises(AuditError, match="line 1: the signature does not verify"):
        verify(as_file(some_entries(4, key=OTHER)))
    fork = new_log(last=ENTRIES[0])
    with pytest.raises(AuditError, match="line 3: it does not follow the line above"):
        verify(as_file([*ENTRIES[:1], fork.entry("other", {}), ENTRIES[2]]))


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (signed(canonical_json(body()))[:128].upper() + signed(canonical_json(body()))[128:], "lower-case"),
        (signed(canonical_json(body())).replace(b" ", b"  ", 1), "signature does not verify"),
        (signed(canonical_json(body())).replace(b" ", b"\t", 1), "one space"),
        (signed(canonical_json(body())).replace(b"\n", b"\r\n"), "signature does not verify"),
        (signed(json.dumps(body()).encode()), "not canonical JSON"),
        (signed(canonical_json(body())[:-1] + b',"time":"2026-11-22T10:00:00.000Z"}'), "not canonical JSON"),
        (signed(canonical_json(body()) + b" "), "not canonical JSON"),
        (signed(b'{"seq":NaN}'), "not JSON"),
        (signed(b'{"seq":"\\ud800"}'), "not JSON"),
        (signed(b"[" * 100_000), "not JSON"),
        (signed(b"9" * 5000), "not JSON"),
        (signed(b"\xff"), "not JSON"),
        (signed(b""), "not JSON"),
        (signed(b"[]"), "has the keys"),
        (signed(canonical_json(body(extra=1))), "has the keys"),
        (signed(canonical_json(body(seq=True))), "`seq` is an integer"),
        (signed(canonical_json(body(seq=0.0))), "`seq` is an integer"),
        (signed(canonical_json(body(data=[]))), "`data` an object"),
        (signed(canonical_json(body(time="2026-11-22 10:00:00Z"))), "RFC 3339"),
        (signed(canonical_json(body(time="2026-11-22T10:00:00.000+00:00"))), "RFC 3339"),
        (signed(canonical_json(body(kind="Started"))), "snake_case"),
        (signed(canonical_json(body(prev="0" * 63))), "`prev` is 64"),
        (signed(canonical_json(body(prev=0))), "`prev` is 64"),
        (signed(canonical_json(body(prev="1" * 64))), "does not follow"),
        (signed(canonical_json(body(seq=1))), "expected entry 0, found entry 1"),
        (signed(canonical_json(body()), key=OTHER), "signature does not verify"),
        (
            OTHER.sign("hello", canonical_json(body())).hex().encode() + b" " + canonical_json(body()) + b"\n",
            "signature",
        ),
    ],
)
def test_a_line_has_one_form(line: bytes, cause: str) -> None:
    assert verify(signed(canonical_json(body()))).size == 1
    with pytest.raises(AuditError, match=f"^line 1: .*{cause}"):
        verify(line)


def test_a_signature_over_another_kind_of_message_is_no_entry() -> None:
    raw = canonical_json(body())
    with pytest.raises(AuditError, match="signature"):
        verify(KEY.sign("result", raw).hex().encode() + b" " + raw + b"\n")


def test_a_projection_follows_the_store() -> None:
    entries: list[AuditEntry] = []
    file = HeldFile()
    projection = AuditProjection(file=file)
    assert projection.project(partial(paged, entries)) == 0
    for count in (1, 1, 7, 8, 20):
        added = projection.project(partial(paged, some_entries(count)))
        assert bytes(file.content) == as_file(some_entries(count))
        assert added >= 0
    assert AuditProjection(file=file).project(partial(paged, some_entries(21))) == 1


def test_a_torn_append_is_completed_wherever_it_was_torn() -> None:
    for end in range(len(LOG) + 1):
        file = HeldFile(LOG[:end])
        missing = AuditProjection(file=file).project(partial(paged, ENTRIES))
        assert bytes(file.content) == LOG
        assert missing == 4 - LOG[:end].count(b"\n")


def test_a_projection_never_mends_a_byte_that_differs() -> None:
    for position in range(len(LOG)):
        changed = LOG[:position] + bytes([LOG[position] ^ 1]) + LOG[position + 1 :]
        line = LOG[:position].count(b"\n") + 1
        file = HeldFile(changed)
        with pytest.raises(AuditError, match=f"line {line} of the audit file differs"):
            AuditProjection(file=file).project(partial(paged, ENTRIES))
        assert bytes(file.content) == changed


def test_a_file_that_knows_more_than_the_database_stops() -> None:
    for database in (ENTRIES[:2], []):
        with pytest.raises(AuditError, match="older backup"):
            AuditProjection(file=HeldFile(LOG)).project(partial(paged, database))
    with pytest.raises(AuditError, match="older backup"):
        AuditProjection(file=HeldFile(LOG + b"x")).project(partial(paged, ENTRIES))


def test_a_file_that_is_cut_while_the_coordinator_runs_stops_it() -> None:
    file = HeldFile()
    projection = AuditProjection(file=file)
    projection.project(partial(paged, ENTRIES[:3]))
    del file.content[-1:]
    with pytest.raises(AuditError, match="it was cut"):
        projection.project(partial(paged, ENTRIES))


def test_database_and_file_are_compared() -> None:
    assert compare(partial(paged, ENTRIES), LOG) == 0
    assert compare(partial(paged, ENTRIES), as_file(ENTRIES[:3])) == 1
    with pytest.raises(AuditError, match="line 2 of the audit file differs"):
        compare(partial(paged, ENTRIES), as_file([ENTRIES[0], *ENTRIES[2:]]))
    with pytest.raises(AuditError, match=r"line 1 .* differs"):
        compare(partial(paged, some_entries(4, key=OTHER)), LOG)


def test_heads_name_one_log_each() -> None:
    heads = {head_of(entry) for entry in ENTRIES} | {Digest(bytes(32))}
    assert len(heads) == 5
