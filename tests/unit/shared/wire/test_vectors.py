"""The frozen vectors of tests/vectors: what every implementation of the protocol has to say, to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.hashing import signing_input
from shared.identity import SigningKey, VerifyingKey
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.job import jobspec_digest, parse_jobspec
from shared.protocol.messages import (
    SIGNER_COORDINATOR,
    AdvertiseKeys,
    AttemptAbort,
    Checkpoint,
    CheckpointKind,
    ConsistencySignature,
    Envelope,
    RoundAborted,
    ShareKeys,
    UnmaskShares,
    UploadCommit,
)
from shared.reasons import AbortReason, AttemptAbortReason
from shared.secret import Secret
from shared.update import (
    DType,
    Encoding,
    ModelManifest,
    StatisticsLayout,
    TensorSpec,
    UpdateHeader,
    UpdateLayout,
)
from shared.wire.sealed import decode_envelope, encode_envelope, encode_update_header, open_sealed, reopen, seal

VECTORS = Path(__file__).parents[3] / "vectors"


def read(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


def test_a_sealed_message() -> None:
    vector = read("sealed")
    key = RoundKey(JobId(vector["job"]), RoundNumber(vector["round"]))
    value = RoundAborted(key, Digest.parse(vector["plan"]), AbortReason(vector["reason"]))
    made = seal(value, signer=SigningKey.from_seed(Secret(bytes.fromhex(vector["seed"]))), index=SIGNER_COORDINATOR)
    assert made.payload.hex() == vector["payload"]
    assert signing_input("round-aborted", made.payload).hex() == vector["signing_input"]
    assert made.envelope.signature.hex() == vector["signature"]
    assert encode_envelope(made.envelope).hex() == vector["envelope"]


def test_a_sealed_message_from_elsewhere_is_opened() -> None:
    vector = read("sealed")
    envelope = decode_envelope(bytes.fromhex(vector["envelope"]))
    verifier = VerifyingKey(bytes.fromhex(vector["public_key"]))
    opened = open_sealed(RoundAborted, envelope, verifier=verifier, index=SIGNER_COORDINATOR)
    assert opened.value.reason is AbortReason.OPERATOR
    assert opened.value.key.number == vector["round"]


def test_the_digest_of_a_layout() -> None:
    vector = read("shapes")["layout"]
    layout = UpdateLayout(Encoding(vector["encoding"]), vector["parameters"], vector["statistics"])
    assert str(layout.digest) == vector["digest"]


def test_the_digest_of_a_manifest() -> None:
    vector = read("shapes")["manifest"]
    tensors = tuple(TensorSpec(name, DType(dtype), tuple(shape)) for name, dtype, shape in vector["tensors"])
    assert str(ModelManifest(tensors).digest) == vector["digest"]


def test_the_digest_of_a_masked_layout() -> None:
    vector = read("shapes")["masked_layout"]
    layout = UpdateLayout.of_round(
        encoding=Encoding(vector["encoding"]),
        parameters=vector["parameters"],
        tensors=vector["tensors"],
        statistics=StatisticsLayout(tuple(vector["metrics"])),
    )
    assert str(layout.digest) == vector["digest"]


def test_the_bytes_and_the_digest_of_a_masked_job() -> None:
    vector = read("shapes")["job"]
    data = vector["text"].encode()
    assert parse_jobspec(data).to_bytes() == data
    assert str(jobspec_digest(data)) == vector["digest"]


def number(value: int) -> Digest:
    return Digest(bytes([value]) * 32)


H0, T1, T2, T3 = map(number, range(1, 5))
MASKING: dict[str, Any] = {
    "advertise-keys": AdvertiseKeys(
        attempt=H0,
        index=3,
        mask_key=number(10).raw,
        share_key=number(11).raw,
        nonce=number(12).raw,
        checkpoint=Checkpoint(CheckpointKind.CHAIN, 6, number(20)),
    ),
    "share-keys": ShareKeys(attempt=H0, roster=T1, index=3, self_commitment=number(13), shares_root=number(14)),
    "upload-commit": UploadCommit(
        attempt=H0,
        transcript=T2,
        index=3,
        header=encode_update_header(UpdateHeader(Encoding.U32, None, 1)),
        update=number(15),
        chunks=7,
    ),
    "consistency-signature": ConsistencySignature(attempt=H0, survivors=T3, index=3),
    "unmask-shares": UnmaskShares(
        attempt=H0,
        survivors=T3,
        index=3,
        self_shares=((1, bytes([1]) * 66), (3, bytes([3]) * 66)),
        mask_shares=((4, bytes([4]) * 66),),
    ),
    "attempt-abort": AttemptAbort(attempt=H0, index=3, reason=AttemptAbortReason.REPEATED_TOTAL),
}


def test_the_sealed_messages_of_masking_are_all_there() -> None:
    assert MASKING.keys() == read("sealed")["masking"].keys()


@pytest.mark.parametrize("name", MASKING)
def test_a_sealed_message_of_masking(name: str) -> None:
    payload = bytes.fromhex(read("sealed")["masking"][name])
    value, signer = MASKING[name], SigningKey.from_seed(Secret(bytes(32)))
    made = seal(value, signer=signer, index=3)
    assert made.payload == payload
    assert reopen(type(value), Envelope(payload, bytes(64), 3)).value == value
    signer.verifying_key.verify(name, payload, made.envelope.signature)
