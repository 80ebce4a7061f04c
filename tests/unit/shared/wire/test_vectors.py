"""The frozen vectors of tests/vectors: what every implementation of the protocol has to say, to the byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shared.hashing import signing_input
from shared.identity import SigningKey, VerifyingKey
from shared.ids import Digest, JobId, RoundKey, RoundNumber
from shared.protocol.messages import SIGNER_COORDINATOR, RoundAborted
from shared.reasons import AbortReason
from shared.secret import Secret
from shared.update import DType, Encoding, ModelManifest, TensorSpec, UpdateLayout
from shared.wire.sealed import decode_envelope, encode_envelope, open_sealed, seal

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
