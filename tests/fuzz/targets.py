"""Every decoder of bytes or text from outside, and what it may answer: a value, or its documented error.

`tests/fuzz/test_targets.py` walks the sources and fails for one that is in no target and has no reason not to be.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from consilo.pki_request import read_request
from coordinator.audit import read_entries, verify_entry
from coordinator.backup import MANIFEST_FILE, load_manifest
from coordinator.checkpoints import parse_description
from coordinator.client.cli_audit import load_verifying_key
from coordinator.client.job_file import load_job_file
from coordinator.client.settings import load_operator
from coordinator.client.views import summary_of
from coordinator.round.journal import decode_plan, decode_record, encode_record
from coordinator.rpc.health_messages import decode_health, decode_health_check, encode_health_check
from coordinator.settings import CoordinatorSettings
from coordinator.storage.interface import AuditEntry, JournalEntry
from participant.journal_file import JournalName
from participant.journal_records import decode_names, decode_spooled, encode_names, encode_spooled
from participant.marker import doubt_about, marker_path
from participant.settings import ParticipantSettings
from shared.certificates import read_authorities, read_der
from shared.config import load_config
from shared.consortium import Consortium
from shared.errors import (
    AuditError,
    ConfigError,
    IdentityError,
    ModelError,
    StorageError,
    WireError,
)
from shared.exposition import metrics_routes
from shared.health_report import health_route, read_report
from shared.http_answer import HostRule, Query, Reply, answer
from shared.http_tls import HttpContexts, HttpTls
from shared.identity import (
    Allowlist,
    SigningKey,
    VerifyingKey,
    parse_spiffe,
    verify_signing_certificate,
)
from shared.ids import (
    Digest,
    JobId,
    RoundKey,
    RoundNumber,
    parse_job_id,
    parse_participant_id,
    parse_task_name,
)
from shared.job import parse_jobspec
from shared.protocol.messages import Envelope
from shared.reasons import Purpose
from shared.secagg.keys import check_public_key
from shared.tensors import read_index, read_index_file
from shared.tls import TlsPaths, caller_of, channel_credentials
from shared.wire import operations, session, transfer
from shared.wire.exchanges import decode_sealed_shares, encode_sealed_shares
from shared.wire.operations import RoundStatus
from shared.wire.sealed import peek_welcome
from shared.wire.transfer import data_view
from tests.fuzz.engine import CORPUS, Target
from tests.support.audit_log import KEY as AUDIT_KEY
from tests.support.readers import MemoryReader
from tests.support.wire_values import CODECS

AUTHORITY = CORPUS / "authority.pem"
SAMPLE = Path(__file__).parents[2] / "deploy" / "samples" / "coordinator.minimal.toml"
ANSWER_LINES = 12  # of the head of an HTTP answer
VARIABLE = "CONSILO_COORDINATOR__LISTEN"
_FOLDER = tempfile.TemporaryDirectory(prefix="consilo-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
_ROUND = RoundKey(JobId("heart"), RoundNumber(1))


def all_targets() -> dict[str, Target]:
    """By name, which is also that of the corpus."""
    return {**_wire(), **_listeners(), **_documents(), **_keys(), **_files(), **_records(), **_tasks()}


# --- what comes over the wire -----------------------------------------------------------------------------------------

_MORE_OF_WIRE: Mapping[str, tuple[Callable[[bytes], Any], str]] = {
    "list_jobs": (operations.decode_list_jobs, "shared.wire.operations.decode_list_jobs"),
    "list_models": (operations.decode_list_models, "shared.wire.operations.decode_list_models"),
    "export_chunk": (operations.decode_export_frame, "shared.wire.operations.decode_export_frame"),
    "audit_lines": (operations.decode_read_audit_response, "shared.wire.operations.decode_read_audit_response"),
    "peek_welcome": (lambda data: peek_welcome(Envelope(data, bytes(64), 0)), "shared.wire.sealed.peek_welcome"),
    "data_view": (data_view, "shared.wire.transfer.decode_fetch_frame"),
}


# Where damage makes another kind of frame than the codec has values of.
_ENCODERS: Mapping[Callable[[bytes], Any], Callable[[Any], bytes] | None] = {
    transfer.decode_upload_frame: lambda frame: (
        transfer.encode_data(frame) if isinstance(frame, memoryview) else transfer.encode_upload_open(frame)
    ),
    operations.decode_put_model_frame: lambda frame: (
        transfer.encode_data(frame) if isinstance(frame, memoryview) else operations.encode_put_model_open(frame)
    ),
    session.decode_coordinator_message: None,  # a shut envelope is made by whoever signs
}


def _wire() -> dict[str, Target]:
    codecs = {
        name.replace(" ", "_"): Target(
            decode=codec.decode,
            errors=(WireError,),
            covers=(f"{codec.decode.__module__}.{codec.decode.__name__}", "shared.wire.fields.parse"),
            encode=_ENCODERS.get(codec.decode, codec.encode),
        )
        for name, codec in CODECS.items()
    }
    more = {name: Target(decode, (WireError,), (covers,)) for name, (decode, covers) in _MORE_OF_WIRE.items()}
    shares = Target(
        decode_sealed_shares, (WireError,), ("shared.wire.exchanges.decode_sealed_shares",), encode_sealed_shares
    )
    return {**codecs, **more, "sealed_shares": shares}


# --- what the listeners are asked, and answer -------------------------------------------------------------------------


def _listeners() -> dict[str, Target]:
    return {
        "http_request": Target(_http_answer, (), ()),
        "health_report": Target(
            read_report,
            (WireError,),
            ("shared.health_report.read_report",),
            lambda report: health_route(lambda: report)(Query(path="/health")).body,
        ),
        "health_check": Target(
            decode_health_check,
            (WireError,),
            ("coordinator.rpc.health_messages.decode_health_check",),
            encode_health_check,
        ),
        "health_status": Target(decode_health, (WireError,), ("coordinator.rpc.health_messages.decode_health",)),
        "http_tls_files": Target(_in_file(_http_tls), (ConfigError,), ("shared.http_tls._leaf",)),
    }


def _http_answer(data: bytes) -> Any:
    routes = {"/": _asked, "/jobs/*": _asked, "/metrics": metrics_routes(CollectorRegistry())["/metrics"]}
    said = answer(data, routes=routes, hosts=HostRule.LOOPBACK)
    assert said.startswith(b"HTTP/1.1 ")
    assert not said.startswith(b"HTTP/1.1 500 ")
    assert said.partition(b"\r\n\r\n")[0].count(b"\r\n") <= ANSWER_LINES  # nothing of the request becomes a header
    return said


def _asked(query: Query) -> Reply:
    return Reply(body=repr(query).encode())


def _http_tls(path: Path) -> Any:
    path.chmod(0o600)
    return HttpContexts(HttpTls(path, path, AUTHORITY), what="metrics")


# --- documents that travel, or are signed -----------------------------------------------------------------------------


def _documents() -> dict[str, Target]:
    return {
        "jobspec": Target(
            parse_jobspec, (WireError,), ("shared.job.parse_jobspec",), lambda spec: spec.to_bytes(), canonical=True
        ),
        "model_index": Target(
            lambda data: read_index(MemoryReader(data)),
            (ModelError,),
            ("shared.tensors.read_index", "shared.tensors.parse_index", "shared.tensors._parse_json"),
        ),
        "model_file": Target(_in_file(read_index_file), (ModelError,), ("shared.tensors.read_index_file",)),
        "model_description": Target(parse_description, (ModelError,), ("coordinator.checkpoints.parse_description",)),
        "manifest": Target(
            lambda data: Consortium.parse(data, source="a manifest"),
            (ConfigError,),
            ("shared.consortium.parse", "shared.consortium._document"),
        ),
        "manifest_file": Target(
            _in_file(lambda path: Consortium.load(path, pinned=None)), (ConfigError,), ("shared.consortium.load",)
        ),
        "audit_log": Target(
            lambda data: list(read_entries(data, verifying_key=None)),
            (AuditError,),
            ("coordinator.audit.read_entries", "coordinator.audit.verify_lines", "coordinator.audit._read_line"),
        ),
        "audit_entry": Target(
            lambda data: verify_entry(AuditEntry(0, data), verifying_key=AUDIT_KEY.verifying_key),
            (AuditError,),
            ("coordinator.audit._read_line",),
        ),
        "round_summary": Target(
            lambda data: summary_of(RoundStatus(key=_ROUND, purpose=Purpose.TRAIN, outcome="committed", summary=data)),
            (WireError,),
            ("coordinator.client.views.summary_of",),
        ),
    }


# --- certificates and keys --------------------------------------------------------------------------------------------


def _keys() -> dict[str, Target]:
    return {
        "certificate": Target(read_der, (IdentityError,), ("shared.certificates.read_der",)),
        "authorities": Target(read_authorities, (ConfigError,), ("shared.certificates.read_authorities",)),
        "signing_certificate": Target(
            _signing_certificate, (IdentityError,), ("shared.identity.verify_signing_certificate",)
        ),
        "coordinator_certificate": Target(
            _in_file(lambda path: load_verifying_key(path, ca=None)),
            (ConfigError, IdentityError),
            (
                "coordinator.client.cli_audit.load_verifying_key",
                "coordinator.client.cli_audit._read_certificate",
            ),
        ),
        "signing_key": Target(_in_file(SigningKey.load), (ConfigError,), ("shared.identity.load",)),
        "tls_files": Target(
            _in_file(lambda path: channel_credentials(TlsPaths(path, path, AUTHORITY))),
            (ConfigError,),
            ("shared.tls._leaf", "shared.certificates.read_private_key"),
        ),
        "client_certificate": Target(_caller, (IdentityError,), ("shared.tls.caller_of",)),
        "request": Target(
            _in_file(lambda path: read_request(path, expected=Digest.of(path.read_bytes()))),
            (ConfigError,),
            ("consilo.pki_request.read_request", "consilo.pki_request._public_key"),
        ),
        "spiffe": Target(
            lambda data: parse_spiffe(_text(data)), (IdentityError,), ("shared.identity.parse_spiffe",),
            encode=lambda identity: identity.uri.encode(), canonical=True,
        ),
        "digest": Target(
            lambda data: Digest.parse(_text(data)), (ValueError,), ("shared.ids.parse",),
            encode=lambda digest: str(digest).encode(), canonical=True,
        ),
        "label": Target(
            lambda data: (parse_participant_id(_text(data)), parse_job_id(_text(data)), parse_task_name(_text(data))),
            (ValueError,),
            ("shared.ids.parse_participant_id", "shared.ids.parse_job_id", "shared.ids.parse_task_name"),
        ),
        "public_key": Target(check_public_key, (ValueError, WireError), ()),
        "verifying_key": Target(VerifyingKey, (ValueError,), ()),
    }  # fmt: skip


@cache
def _authority() -> bytes:
    return AUTHORITY.read_bytes()


def _signing_certificate(data: bytes) -> Any:
    now = read_authorities(_authority())[0].not_valid_before_utc + timedelta(days=1)
    return verify_signing_certificate(data, ca_pem=_authority(), now=now)


def _caller(data: bytes) -> Any:
    """A name and the certificate in PEM form, as gRPC hands them over: one line, then the rest."""
    name, _, pem = data.partition(b"\n")
    return caller_of(
        {
            "transport_security_type": [b"ssl"],
            "ssl_tls_version": [b"TLSv1.3"],
            "peer_spiffe_id": [name],
            "x509_pem_cert": [pem],
        }
    )


# --- files that people write ------------------------------------------------------------------------------------------


def _files() -> dict[str, Target]:
    settings = {"coordinator_toml": CoordinatorSettings, "participant_toml": ParticipantSettings}
    configurations = {
        name: Target(
            _in_file(lambda path, model=model: load_config(path, model, environment={})),
            (ConfigError,),
            ("shared.config.load_config", "shared.toml.read_toml"),
        )
        for name, model in settings.items()
    }
    return {
        **configurations,
        "operator_toml": Target(
            _in_file(lambda path: load_operator(path, environment={})),
            (ConfigError,),
            ("coordinator.client.settings.load_operator",),
        ),
        "job_file": Target(_in_file(load_job_file), (ConfigError,), ("coordinator.client.job_file.load_job_file",)),
        "environment": Target(
            lambda data: load_config(SAMPLE, CoordinatorSettings, environment={VARIABLE: _text(data)}),
            (ConfigError,),
            ("shared.config._value", "shared.config._trouble"),
        ),
        "allowlist": Target(
            lambda data: Allowlist.parse(data, source="an allow-list"), (ConfigError,), ("shared.identity.parse",)
        ),
    }


# --- our own records, which a disk or a person may have changed -------------------------------------------------------


class _Journal:
    """As much of a journal as the marker is compared with."""

    def name(self) -> JournalName:
        return JournalName("0123456789abcdef", 3)

    def set_generation(self, generation: int) -> None: ...

    def end_everything(self, reason: str) -> None: ...


def _records() -> dict[str, Target]:
    return {
        "journal_record": Target(_record, (WireError,), ("coordinator.round.journal.decode_record",), _record_bytes),
        "journal_plan": Target(
            lambda data: decode_plan(JournalEntry("plan", data)),
            (WireError,),
            ("coordinator.round.journal.decode_plan",),
        ),
        "backup": Target(
            _in_file(lambda path: load_manifest(path.parent), called=MANIFEST_FILE),
            (ConfigError,),
            ("coordinator.backup.load_manifest",),
        ),
        "spooled": Target(
            decode_spooled, (StorageError,), ("participant.journal_records.decode_spooled",), encode_spooled
        ),
        "names": Target(
            lambda data: decode_names(data.decode("utf-8", "replace")),
            (StorageError,),
            ("participant.journal_records.decode_names",),
            lambda names: encode_names(names).encode(),
        ),
        "marker": Target(
            _in_file(
                lambda path: doubt_about(_Journal(), path.with_name("signing.key")),
                called=marker_path(Path("signing.key")).name,
            ),
            (),
            ("participant.marker._read",),
        ),
    }


def _record(data: bytes) -> Any:
    """The kind of an entry, a line feed, and its body."""
    kind, _, body = data.partition(b"\n")
    return decode_record(JournalEntry(kind.decode("utf-8", "replace"), body))


def _record_bytes(record: Any) -> bytes:
    entry = encode_record(record)
    return entry.kind.encode() + b"\n" + entry.body


# --- a silo's own task ------------------------------------------------------------------------------------------------


def _tasks() -> dict[str, Target]:
    return {
        "task_frame": Target(
            _frame,
            (ValueError,),  # FrameError, named without importing what imports PyTorch
            (
                "participant.tasks.framing.decode_length",
                "participant.tasks.framing.decode_body",
            ),
            heavy=True,
        ),
        "task_message": Target(
            _task_message,
            (ValueError,),
            ("participant.tasks.messages.parse_command", "participant.tasks.messages.parse_reply"),
            heavy=True,
        ),
        "task_state": Target(
            _task_state,
            (StorageError,),
            ("participant.tasks.task_state.decode_state", "participant.tasks.task_state.load_state"),
            heavy=True,
        ),
        "task_state_file": Target(
            _in_file(_task_state_file), (StorageError,), ("participant.tasks.task_state.read_tensors",), heavy=True
        ),
        "task_entry": Target(_task_entry, (), ("participant.tasks.entry.parse_entry",), heavy=True),
        "task_job": Target(_in_file(_task_job), (ConfigError,), ("shared.toml.read_toml",), heavy=True),
    }


def _frame(data: bytes) -> Any:
    from participant.tasks.framing import LENGTH_BYTES, decode_body, decode_length

    length = decode_length(data[:LENGTH_BYTES])
    return decode_body(data[LENGTH_BYTES : LENGTH_BYTES + length])


def _task_message(data: bytes) -> Any:
    from participant.tasks.framing import FrameError, decode_body
    from participant.tasks.messages import parse_command, parse_reply

    try:
        return parse_command(decode_body(data))
    except FrameError:
        return parse_reply(decode_body(data))


def _task_state(data: bytes) -> Any:
    from torch import tensor

    from participant.tasks.task_state import decode_state

    return decode_state(data.decode("utf-8", "replace"), {"0": tensor([1.0])})


def _task_state_file(path: Path) -> Any:
    from participant.tasks.task_state import load_state

    return load_state(path)


def _task_entry(data: bytes) -> Any:
    from participant.tasks.entry import parse_entry
    from shared.errors import TaskError

    try:
        return parse_entry(_text(data))
    except TaskError:
        return None


def _task_job(path: Path) -> Any:
    from participant.tasks.cli import _read_job

    return _read_job(path, 0)


# --- parts ------------------------------------------------------------------------------------------------------------


def _in_file(read: Callable[..., Any], *, called: str = "input") -> Callable[[bytes], Any]:
    """A decoder of bytes from one that takes a path."""
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))

    def decode(data: bytes) -> Any:
        path = folder / called
        path.write_bytes(data)
        return read(path)

    return decode


def _text(data: bytes) -> str:
    """Any text that a field or a variable can hold."""
    return data.decode("utf-8", "replace")
