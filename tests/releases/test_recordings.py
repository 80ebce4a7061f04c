"""What releases said and left on disk, read with today's code; and the same of what today's code says, so that whatever
is recorded at the next release is known to hold.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pydantic import BaseModel

from coordinator.audit import compare, verify_lines
from coordinator.client.job_file import load_job_file
from coordinator.client.settings import OperatorSettings
from coordinator.round.journal import decode_plan, decode_record
from coordinator.rpc.server import SERVICES, path_of
from coordinator.settings import CoordinatorSettings
from coordinator.storage.database import schema_of
from coordinator.storage.schema import SCHEMA_VERSION
from coordinator.storage.sql import SqlStore
from participant.journal import SqliteJournal
from participant.settings import ParticipantSettings
from shared.config import load_config
from shared.errors import IdentityError, PhaseError
from shared.ids import AttemptNumber, JobId
from shared.job import parse_jobspec
from shared.pb.v1 import operations_pb2, session_pb2, transfer_pb2
from shared.protocol.messages import (
    SIGNER_COORDINATOR,
    AnswerKind,
    AttemptAnswer,
    AttemptStart,
    Consent,
    KeyRoster,
    UploadCommit,
)
from shared.reasons import JobState
from shared.wire.sealed import reopen, seal
from shared.wire.session import ShutEnvelope, encode_coordinator_message, encode_participant_message
from shared.wire.transfer import CommitRequest, decode_commit_request, encode_commit_request
from tests.releases.conversation import Conversation
from tests.releases.kept import JOURNALS, KeptRelease, keep_release, releases
from tests.releases.meaning import CODECS, COMMIT, SESSION, UPLOAD, decode, signed_words
from tests.releases.transcripts import Transcripts
from tests.support.audit_log import KEY

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

TODAY = "today"
KEPT = {kept.folder.name: kept for kept in releases()}
KEPT_MAX_BYTES = 1 << 20
SETTINGS: dict[str, type[BaseModel]] = {
    "coordinator": CoordinatorSettings,
    "operator": OperatorSettings,
    "participant": ParticipantSettings,
}
MASKED = JobId("masked-1")
STATES = {
    "masked-1": JobState.COMPLETED,
    "plain-1": JobState.COMPLETED,
    "declined-1": JobState.ABORTED,
    "ended-1": JobState.ABORTED,
    "open-1": JobState.RUNNING,
}


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> KeptRelease:
    return keep_release(TODAY, tmp_path_factory.mktemp("kept") / TODAY, workspace=tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module", params=[TODAY, *KEPT])
def kept(request: pytest.FixtureRequest) -> KeptRelease:
    found: KeptRelease = request.getfixturevalue(TODAY) if request.param == TODAY else KEPT[request.param]
    return found


def test_every_frame_means_what_it_meant(kept: KeptRelease) -> None:
    kept.conversation.check_values()
    assert {one.method for one in kept.conversation.frames} <= {method for method, _ in CODECS}


def test_every_word_was_signed_by_who_had_to(kept: KeptRelease) -> None:
    kept.conversation.check_signatures()


def test_every_hash_comes_out_again(kept: KeptRelease) -> None:
    transcripts = Transcripts(kept.conversation)
    transcripts.check()
    hashes = {"h0", "t1", "t2", "t3", "shares root", "update", "aggregate"}
    assert transcripts.checked.keys() == hashes | {"FetchModel", "PutModel", "ExportModel"}


def test_the_table_of_phases_lets_all_of_it_be_said(kept: KeptRelease) -> None:
    assert kept.conversation.check_phases() > 100


def test_the_coordinators_database_is_opened_and_brought_up_to_date(kept: KeptRelease, tmp_path: Path) -> None:
    path = kept.database("coordinator.sql", tmp_path)
    (key,) = kept.conversation.consortium.coordinator_keys
    with closing(SqlStore(url=f"sqlite:///{path}")) as store:
        jobs = {record.job: record for record in store.jobs()}
        states = {str(name): record.state for name, record in jobs.items()}
        assert states.items() >= STATES.items()
        rounds = {name: store.rounds(name) for name in jobs}
        assert [record.outcome for record in rounds[MASKED]] == ["committed"] * 3
        assert [record.outcome for record in rounds[JobId("open-1")]] == [""]
        for job in jobs.values():
            parse_jobspec(job.spec)
        for record in [each for found in rounds.values() for each in found]:
            plan, *entries = store.journal_of(record.key)
            assert decode_plan(plan).value.key == record.key
            for entry in entries:
                decode_record(entry)
        assert any(model.promoted for model in store.models())
        log = kept.audit_log.read_bytes()
        assert verify_lines(log, verifying_key=key).size > len(jobs)
        assert compare(store.audit_entries, log) <= 1, "killed: its file may lack the last entry"
    assert schema_of(path) == SCHEMA_VERSION


@pytest.mark.parametrize("name", JOURNALS)
def test_a_silos_journal_is_opened_and_brought_up_to_date(kept: KeptRelease, name: str, tmp_path: Path) -> None:
    journal = SqliteJournal(kept.database(name, tmp_path))
    (opened,) = journal.open_rounds()
    killed = name == "journal-killed.sql"
    assert (opened.attempt is not None) is killed
    assert opened.plan.value.key.job == (MASKED if killed else "open-1")
    history = journal.history(MASKED)
    assert history is not None
    assert history.verified is not None
    heads = list(journal.heads(8))
    assert len(heads) >= (1 if killed else 2)
    (key,) = kept.conversation.consortium.coordinator_keys
    for head in heads:
        key.verify("round-result", head.payload, head.signature)
    journal.close()


def test_samples_and_job_files_are_read(kept: KeptRelease, tmp_path: Path) -> None:
    assert {path.name.partition(".")[0] for path in kept.samples} >= {"coordinator", "participant", "job"}
    for path in kept.samples:
        whose = path.name.partition(".")[0]
        if whose == "job":
            (tmp_path / "initial.safetensors").write_bytes(b"model")
            load_job_file(Path(shutil.copy(path, tmp_path)))
        else:
            load_config(path, SETTINGS[whose], environment={})


def test_what_is_kept_is_small_and_no_private_key(kept: KeptRelease) -> None:
    files = [path for path in kept.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < KEPT_MAX_BYTES
    assert [path.name for path in files if b"PRIVATE KEY" in path.read_bytes()] == []


# --- that these checks can fail ---------------------------------------------------------------------------------------


def changed(
    conversation: Conversation, kind: type, change: Callable[[bytes], bytes | None], *, method: str = SESSION
) -> Conversation:
    """With the first frame of that kind changed, or left out."""
    frames = list(conversation.frames)
    place = next(
        place
        for place, (one, value) in enumerate(conversation.told)
        if isinstance(value, kind) and one.method == method
    )
    frame = change(frames[place].frame)
    frames[place : place + 1] = [] if frame is None else [replace(frames[place], frame=frame)]
    return replace(conversation, frames=frames)


def flipped(frame: bytes) -> bytes:
    """In its last byte."""
    return frame[:-1] + bytes([frame[-1] ^ 1])


def unsigned(frame: bytes) -> bytes:
    said = decode_commit_request(frame)
    return encode_commit_request(replace(said, commit=replace(said.commit, signature=bytes(64))))


def test_a_frame_that_says_something_else_is_noticed(today: KeptRelease) -> None:
    with pytest.raises(AssertionError):
        changed(today.conversation, Consent, flipped).check_values()


def test_a_word_that_nobody_signed_is_noticed(today: KeptRelease) -> None:
    with pytest.raises(IdentityError):
        changed(today.conversation, CommitRequest, unsigned, method=COMMIT).check_signatures()


def test_an_update_that_is_not_what_was_committed_to_is_noticed(today: KeptRelease) -> None:
    with pytest.raises(AssertionError):
        Transcripts(changed(today.conversation, memoryview, flipped, method=UPLOAD)).check()


def test_a_word_that_is_missing_is_noticed(today: KeptRelease) -> None:
    with pytest.raises(PhaseError):
        changed(today.conversation, KeyRoster, lambda _: None).check_phases()


def left_after_first_keys(conversation: Conversation, *, announced: bool) -> Conversation:
    """Up to the first keys of a masked attempt. Then that attempt is left, and keys are said for another one; which was
    announced before, or was not.
    """
    place, one, keys = next(
        (place, one, value)
        for place, (one, value) in enumerate(conversation.told)
        if isinstance(value, AttemptAnswer) and value.kind is AnswerKind.ADVERTISE_KEYS
    )
    start, known = next(
        (told, reopen(AttemptStart, value.envelope).value)
        for told, value in conversation.told
        if told.peer == one.peer and isinstance(value, ShutEnvelope) and value.kind is AttemptStart
    )
    higher = replace(keys.attempt, attempt=AttemptNumber(keys.attempt.attempt + 1))
    announcement = seal(replace(known, key=higher), signer=KEY, index=SIGNER_COORDINATOR)
    more = [
        *([replace(start, frame=encode_coordinator_message(announcement))] if announced else []),
        replace(one, frame=encode_participant_message(replace(keys, kind=AnswerKind.ATTEMPT_ABORT))),
        replace(one, frame=encode_participant_message(replace(keys, attempt=higher))),
    ]
    return replace(conversation, frames=[*conversation.frames[: place + 1], *more])


def test_an_attempt_may_be_left_while_the_next_one_is_announced(today: KeptRelease) -> None:
    """The two cross, and what is said of the first one is late."""
    assert left_after_first_keys(today.conversation, announced=True).check_phases() > 0
    with pytest.raises(PhaseError, match="may not send advertise_keys in phase ready"):
        left_after_first_keys(today.conversation, announced=False).check_phases()


# --- what is recorded -------------------------------------------------------------------------------------------------

# Fields that no session of a healthy federation has.
NEVER_SAID: set[str] = set()


def test_every_method_is_recorded_in_both_directions(today: KeptRelease) -> None:
    # gRPC's own health service is no part of our wire: others keep it as it is.
    ours = [service for service in SERVICES if service.full_name.startswith("consilo.")]
    methods = {path_of(method) for service in ours for method in service.methods}
    both = {(method, side) for method in methods for side in (False, True)}
    assert both == set(CODECS), "a method of the wire has its codecs in tests/releases/meaning.py"
    said = {(one.method, one.from_coordinator) for one in today.conversation.frames}
    assert both - said == set(), "record them: tests/releases/recording.py"


def test_every_field_of_every_message_is_recorded(today: KeptRelease) -> None:
    said = {field for one in today.conversation.frames for field in _fields_said(one)}
    assert _all_fields() - said == NEVER_SAID, "record them: tests/releases/recording.py"


def _all_fields() -> set[str]:
    return {
        field.full_name
        for file in (session_pb2, transfer_pb2, operations_pb2)
        for message in file.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }


_TYPES: dict[tuple[str, bool], Descriptor] = {
    (path_of(method), side): method.output_type if side else method.input_type
    for service in SERVICES
    for method in service.methods
    for side in (False, True)
}


def _fields_said(one: Any) -> Iterator[str]:
    """Of a frame, and of the payloads signed in it."""
    yield from _fields_of(GetMessageClass(_TYPES[one.method, one.from_coordinator]).FromString(one.frame))
    for kind, envelope in signed_words(decode(one.method, one.frame, from_coordinator=one.from_coordinator)):
        yield from _fields_of(getattr(session_pb2, kind.__name__).FromString(envelope.payload))
        if kind is UploadCommit:
            yield from _fields_of(session_pb2.UpdateHeader.FromString(reopen(UploadCommit, envelope).value.header))


def _fields_of(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        yield field.full_name
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in [value] if isinstance(value, Message) else value:
                yield from _fields_of(each)
