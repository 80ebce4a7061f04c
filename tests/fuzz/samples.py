"""The valid inputs that are kept in `corpus/`: written by `python -m tests.fuzz --write` from values of the real code.

They are kept as files so that a run does not depend on what made them, and so that an input of an older version is
tried for as long as it is there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from consilo.pki_request import make_request
from coordinator.checkpoints import describe_initial
from coordinator.round.journal import PLAN, encode_plan
from coordinator.rpc.health_messages import (
    LIVENESS,
    NOT_SERVING,
    READINESS,
    SERVICE_UNKNOWN,
    SERVING,
    encode_health,
    encode_health_check,
)
from participant.journal_records import encode_names, encode_spooled
from participant.round.phases import Measured, SpooledUpdate
from shared.health_report import HealthReport, health_route
from shared.http_answer import Query
from shared.ids import Digest, ParticipantId
from shared.tensors import read_index
from shared.update import DType, ModelManifest, TensorSpec
from shared.wire import operations
from shared.wire.exchanges import encode_sealed_shares
from tests.fuzz.engine import CORPUS, Target, check
from tests.fuzz.targets import AUTHORITY
from tests.support.audit_log import as_file, some_entries
from tests.support.credentials import CONSORTIUM, Consortium, der_of
from tests.support.masked_silo import MaskedRound
from tests.support.models import model_bytes, random_tensors
from tests.support.readers import MemoryReader
from tests.support.rounds import make_frame, make_masked_frame, make_spec
from tests.support.wire_values import CODECS, sealed_shares

EACH = 6  # values of one codec; damage does the rest
LONGEST = 4096
SAMPLES = Path(__file__).parents[2] / "deploy" / "samples"
JOB_TOML = f"""\
name = "heart"
task = "heart"
members = ["hospital-a", "hospital-b", "hospital-c"]
rounds = 10
seed = 42
initial = "model:{"0" * 64}"
metrics = ["loss"]
[round]
deadline_s = 600.0
[masking]
encoding = "u32"
[training]
learning_rate = 0.05
"""
OPERATOR_TOML = """\
[operator]
coordinator = "127.0.0.1:8443"
[tls]
certificate = "tls.crt"
key = "tls.key"
ca = "ca.crt"
"""


def write_corpus(targets: Mapping[str, Target]) -> None:
    """Write what is missing. Raises Finding for an input that its own decoder refuses."""
    CORPUS.mkdir(exist_ok=True)
    missing = [name for name in targets if not (CORPUS / f"{name}.valid").exists()]
    with tempfile.TemporaryDirectory() as folder:
        members = Consortium(Path(folder), now=datetime(2026, 1, 1, tzinfo=UTC))
        if "signing_certificate" in missing:  # these two belong together
            AUTHORITY.write_bytes(members.ca_pem)
        made = {
            **_listeners(), **_documents(), **_of_a_consortium(members), **_files(), **_records(),
            **_tasks(Path(folder)),
        }  # fmt: skip
    for name in missing:
        found = made[name] if name in made else _of_the_wire(name)
        for data in found:
            assert check(name, targets[name], data), f"{name} does not take {data!r}"
        (CORPUS / f"{name}.valid").write_text("".join(f"{data.hex() or '-'}\n" for data in found), encoding="utf-8")


def drawn(values: st.SearchStrategy[Any], encode: Callable[[Any], bytes]) -> list[bytes]:
    """A few of the values that a strategy describes; the same ones each time."""
    found: set[bytes] = set()

    @settings(
        derandomize=True,
        max_examples=60,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values)
    def collect(value: Any) -> None:
        data = encode(value)
        if len(data) <= LONGEST:
            found.add(data)

    collect()
    in_order = sorted(found, key=lambda data: (len(data), data))
    step = max(1, len(in_order) // EACH)
    return in_order[::step][:EACH]


def _of_the_wire(name: str) -> list[bytes]:
    codecs = {codec.replace(" ", "_"): kept for codec, kept in CODECS.items()}
    same = {"export_chunk": "model_chunk", "peek_welcome": "welcome", "data_view": "upload_chunk"}
    match same.get(name, name):
        case "sealed_shares":
            return drawn(st.lists(sealed_shares, max_size=3).map(tuple), encode_sealed_shares)
        case "audit_lines":
            return [operations.encode_read_audit_response([entry.line for entry in some_entries(2)])]
        case "list_jobs" | "list_models":
            return [b""]
        case codec:
            return drawn(codecs[codec].values, codecs[codec].encode)


def _listeners() -> dict[str, list[bytes]]:
    collected = "text/plain;version=0.0.4;q=0.5, application/openmetrics-text;version=1.0.0"
    heads = [
        "GET / HTTP/1.1\r\nHost: localhost:9466\r\nAccept: text/html\r\n\r\n",
        "HEAD /jobs/heart-1?rounds=3&x=%20 HTTP/1.1\r\nHost: [::1]:9466\r\n\r\n",
        f"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nAccept: {collected}\r\n\r\n",
    ]
    report = HealthReport(who=f"spiffe://{CONSORTIUM}/participant/a", live=True, ready=False, why="it drains")
    return {
        "http_request": [head.encode() for head in heads],
        "health_report": [health_route(lambda: report)(Query(path="/health")).body],
        "health_check": [encode_health_check(service) for service in (LIVENESS, READINESS, "x")],
        "health_status": [encode_health(status) for status in (SERVING, NOT_SERVING, SERVICE_UNKNOWN)],
    }


def _documents() -> dict[str, list[bytes]]:
    manifest = ModelManifest.of(
        [TensorSpec("a", DType.F32, (2, 3)), TensorSpec("b", DType.BF16, ()), TensorSpec("c", DType.I64, (0,))]
    )
    model = model_bytes(manifest, random_tensors(manifest, 1))
    log = some_entries(4)
    summary = {"survivors": ["hospital-a"], "dropped": {}, "weight_total": 3.0, "metrics": {"train.loss": 0.5}}
    return {
        "jobspec": [make_spec().to_bytes(), make_masked_frame().spec.to_bytes()],
        "model_index": [model],
        "model_file": [model],
        "model_description": [describe_initial(digest=Digest.of(model), index=read_index(MemoryReader(model)))],
        "audit_log": [as_file(log), as_file(log[:1])],
        "audit_entry": [log[0].line],
        "round_summary": [json.dumps(summary).encode()],
    }


def _of_a_consortium(members: Consortium) -> dict[str, list[bytes]]:
    silo, coordinator = members.participant("hospital-a"), members.coordinator()
    make_request(members.folder / "request")
    tls_pem = silo.tls.certificate.read_bytes()
    uri = f"spiffe://{CONSORTIUM}/participant/hospital-a"
    manifest = members.manifest().path.read_bytes()
    return {
        "manifest": [manifest],
        "manifest_file": [manifest],
        "certificate": [silo.signing_certificate_der, der_of(silo.tls.certificate), der_of(silo.tls.ca)],
        "authorities": [members.ca_pem, members.ca_pem * 2],
        "signing_certificate": [silo.signing_certificate_der, coordinator.signing_certificate_der],
        "coordinator_certificate": [coordinator.signing_certificate.read_bytes(), coordinator.signing_certificate_der],
        "signing_key": [silo.signing_key_path.read_bytes()],
        "http_tls_files": [silo.tls.key.read_bytes() + tls_pem],
        "tls_files": [silo.tls.key.read_bytes() + tls_pem],
        "client_certificate": [uri.encode() + b"\n" + tls_pem],
        "request": [(members.folder / "request" / "request.pem").read_bytes()],
        "spiffe": [uri.encode(), f"spiffe://{CONSORTIUM}/operator/o".encode()],
        "digest": [str(Digest.of(b"")).encode()],
        "label": [b"hospital-a", b"a"],
        "public_key": [bytes([9]) + bytes(31)],
        "verifying_key": [silo.signing_key.verifying_key.raw],
        "allowlist": [members.allowlist.read_bytes()],
    }


def _files() -> dict[str, list[bytes]]:
    coordinator, participant = (
        [(SAMPLES / f"{role}.{size}.toml").read_bytes() for size in ("minimal", "full")]
        for role in ("coordinator", "participant")
    )
    return {
        "coordinator_toml": coordinator,
        "participant_toml": participant,
        "operator_toml": [OPERATOR_TOML.encode()],
        "job_file": [JOB_TOML.encode()],
        "environment": [b'["127.0.0.1:8443"]', b'["[::1]:1", "host:65535"]'],
    }


def _records() -> dict[str, list[bytes]]:
    played = MaskedRound(make_masked_frame())
    while played.waiting:
        member, message = played.waiting.popleft()
        for _, event in played.silos[member].hears(message):
            played.tell(member, event)
    by_kind = {entry.kind: entry for entry in played.journal}
    spooled = [
        SpooledUpdate(Measured(10.0, (0.5, -1e-300)), Measured(10.0, (0.25,)), 6, (1, -32), fits=True, root=None),
        SpooledUpdate(None, Measured(3.0, ()), 0, (), fits=False, root=Digest.of(b"root")),
    ]
    names = (ParticipantId("hospital-a"), ParticipantId("hospital-b"))
    backup = {
        "format": "consilo-backup/1",
        "made_at": "2026-01-01T00:00:00Z",
        "coordinator": "coordinator",
        "version": "0.1",
        "schema_version": 1,
        "audit_entries": 1,
        "audit_head": "0" * 64,
        "files": [
            {"path": name, "bytes": 1, "sha256": "0" * 64}
            for name in ("coordinator.db", "audit.log", f"models/{'0' * 64}.safetensors")
        ],
    }
    return {
        "journal_record": [entry.kind.encode() + b"\n" + entry.body for kind, entry in by_kind.items() if kind != PLAN],
        "journal_plan": [encode_plan(make_frame().plan).body],
        "backup": [json.dumps(backup).encode()],
        "spooled": [encode_spooled(update) for update in spooled],
        "names": [encode_names(names).encode(), b"[]"],
        "marker": [b'{"about": "", "journal": "0123456789abcdef", "generation": 3}'],
    }


def _tasks(folder: Path) -> dict[str, list[bytes]]:
    import torch

    from participant.tasks.framing import encode_frame
    from participant.tasks.task_state import encode_state, save_state

    messages: list[dict[str, Any]] = [
        {"kind": "shutdown"},
        {"kind": "init_model", "out": "/tmp/model"},
        {"kind": "progress", "fraction": 0.5},
        {
            "kind": "measured",
            "weight": 1.0,
            "metrics": {"loss": 0.5},
            "duration_s": 1.0,
            "parameters": 6,
            "has_state": True,
        },
        {"kind": "failed", "reason": "task_crashed", "message": "no"},
    ]
    state = {"step": 3, "momentum": torch.ones(3), "nested": {1: [1.5, float("inf"), (None, True)]}}
    save_state(state, folder / "state")
    frames = [encode_frame(message) for message in messages]
    return {
        "task_frame": frames,
        "task_message": [frame[4:] for frame in frames],
        "task_state": [encode_state({"a": torch.ones(1), "b": [1, {"c": float("nan")}]}, "state")[1].encode()],
        "task_state_file": [(folder / "state").read_bytes()],
        "task_entry": [b"package.module:Task"],
        "task_job": [b'metrics = ["loss"]\nseed = 3\n[training]\nrate = 0.5\n'],
    }
