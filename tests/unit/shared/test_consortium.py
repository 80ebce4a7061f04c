"""The consortium's manifest: what a silo pins, and what no silo takes for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from shared.consortium import MANIFEST_MAX_BYTES, OFFICERS_MAX, Consortium, make_manifest
from shared.errors import ConfigError, IdentityError
from shared.hashing import tagged_hash
from shared.identity import Identity, Role, SigningKey, VerifyingKey
from shared.ids import Digest, ParticipantId
from shared.job import canonical_json
from tests.support.rounds import STRANGER, A, B, C, key_of

NAME = "hearts.example"
COORDINATOR = Identity(NAME, Role.COORDINATOR, "coordinator")
OFFICER, SECOND, THIRD = (key_of(f"officer-{number}") for number in (1, 2, 3))
MEMBERS: dict[Identity, VerifyingKey] = {
    COORDINATOR: key_of("coordinator").verifying_key,
    **{Identity(NAME, Role.PARTICIPANT, name): key_of(name).verifying_key for name in (C, A, B)},
}
MANIFEST = make_manifest(consortium=NAME, members=MEMBERS, officers=[OFFICER])


def parse(data: bytes) -> Consortium:
    return Consortium.parse(data, source="consortium.json")


def signed(body: dict[str, Any], *officers: SigningKey) -> bytes:
    payload = canonical_json(body)
    signatures = sorted(
        (
            {"officer": officer.verifying_key.raw.hex(), "signature": officer.sign("consortium", payload).hex()}
            for officer in officers
        ),
        key=lambda signature: signature["officer"],
    )
    return canonical_json({"body": body, "signatures": signatures})


def body(**changed: Any) -> dict[str, Any]:
    return {**json.loads(MANIFEST)["body"], **changed}


def three_officers(needed: int) -> dict[str, Any]:
    keys = sorted(officer.verifying_key.raw.hex() for officer in (OFFICER, SECOND, THIRD))
    return body(officers=keys, signatures_needed=needed)


def test_what_was_written_is_read() -> None:
    consortium = parse(MANIFEST)
    assert consortium.name == NAME
    assert consortium.members == MEMBERS
    assert consortium.officers == (OFFICER.verifying_key,)
    assert consortium.signatures_needed == 1
    assert consortium.participants == 3
    assert consortium.coordinator_keys == {key_of("coordinator").verifying_key}
    assert consortium.participant_key(A) == key_of(A).verifying_key
    assert consortium.participant_key(STRANGER) is None
    assert consortium.participant_key(ParticipantId("coordinator")) is None, "a coordinator is no participant"


def test_a_manifest_cannot_be_changed_once_it_was_checked() -> None:
    consortium = parse(MANIFEST)
    with pytest.raises(TypeError):
        consortium.members[COORDINATOR] = OFFICER.verifying_key  # type: ignore[index] # the point
    with pytest.raises(FrozenInstanceError):
        consortium.name = "other"  # type: ignore[misc] # the point


def test_the_digest_is_over_the_body_alone() -> None:
    one, two = (parse(signed(three_officers(1), *officers)) for officers in ((OFFICER,), (OFFICER, THIRD)))
    assert one.digest == two.digest == tagged_hash("consortium", canonical_json(three_officers(1)))
    assert one.digest != parse(MANIFEST).digest


def test_the_same_members_make_the_same_file() -> None:
    backwards = dict(reversed(list(MEMBERS.items())))
    assert make_manifest(consortium=NAME, members=backwards, officers=[OFFICER]) == MANIFEST


def test_several_officers() -> None:
    made = make_manifest(consortium=NAME, members=MEMBERS, officers=[SECOND, OFFICER, THIRD], signatures_needed=2)
    assert len(parse(made).officers) == 3
    assert parse(signed(three_officers(2), OFFICER, THIRD)).signatures_needed == 2
    with pytest.raises(ConfigError, match="expected the signatures of 2 officers, got 1"):
        parse(signed(three_officers(2), OFFICER))
    with pytest.raises(ConfigError, match="expected the signatures of 1 officers, got 0"):
        parse(signed(body()))


def test_a_signature_of_nobody_or_over_something_else() -> None:
    stranger = key_of("stranger")
    with pytest.raises(ConfigError, match=f"got one of key {stranger.verifying_key.fingerprint}"):
        parse(signed(body(), OFFICER, stranger))
    document = json.loads(MANIFEST)
    document["body"]["members"][0]["signing_key"] = stranger.verifying_key.raw.hex()
    with pytest.raises(ConfigError, match="is not over this manifest: it was changed"):
        parse(canonical_json(document))
    other_purpose = OFFICER.sign("audit", canonical_json(body())).hex()
    forged = {"body": body(), "signatures": [{"officer": OFFICER.verifying_key.raw.hex(), "signature": other_purpose}]}
    with pytest.raises(ConfigError, match="is not over this manifest"):
        parse(canonical_json(forged))
    valid = json.loads(MANIFEST)
    valid["signatures"] *= 2
    with pytest.raises(ConfigError, match="sorted by officer, one of each"):
        parse(canonical_json(valid))


def members(**changed: Any) -> list[dict[str, Any]]:
    """The members, the first participant changed."""
    listed: list[dict[str, Any]] = body()["members"]
    return [listed[0], {**listed[1], **changed}, *listed[2:]]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"version": 2}, r"version 1.*body.version: expected 1, got 2"),
        ({"version": True}, r"canonical form"),
        ({"signatures_needed": 0}, r"body.signatures_needed: expected at least 1"),
        ({"signatures_needed": 2}, r"signatures_needed is 2, but there are 1 officers"),
        ({"officers": []}, r"body.officers: .*at least 1"),
        ({"officers": [OFFICER.verifying_key.raw.hex()] * 2}, r"officers must be sorted and distinct"),
        ({"officers": [f"{number:064x}" for number in range(2, OFFICERS_MAX + 3)]}, r"body.officers: .*at most 64"),
        ({"officers": [key_of("coordinator").verifying_key.raw.hex()]}, r"an officer and coordinator coordinator have"),
        ({"members": []}, r"body.members: .*at least 1"),
        ({"members": [*body()["members"], body()["members"][-1]]}, r"sorted by role and id, and distinct"),
        ({"members": body()["members"][::-1]}, r"sorted by role and id"),
        ({"members": members(signing_key=key_of(B).verifying_key.raw.hex())}, r"hospital-a and .*-b have the same key"),
        ({"members": members(signing_key=key_of(A).verifying_key.raw.hex().upper())}, r"body.members.1.signing_key"),
        ({"members": members(signing_key="00")}, r"body.members.1.signing_key"),
        ({"members": members(signing_key="01" + 62 * "0")}, r"members.1.signing_key: .*small order"),
        ({"members": members(signing_key="ee" + 60 * "f" + "7f")}, r"members.1.signing_key: .*canonical"),
        ({"officers": ["01" + 62 * "0"]}, r"body.officers.0: .*small order"),
        ({"members": members(role="owner")}, r"body.members.1.role"),
        ({"members": members(id="Hospital A")}, r"a name has 1 to 63 characters"),
        ({"members": members(site="x")}, r"body.members.1.site: unknown key"),
        ({"consortium": "Hearts Example"}, r"a consortium has a name like a DNS name"),
        ({"comment": "x"}, r"body.comment: unknown key"),
    ],
)
def test_a_body_that_no_silo_takes(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse(signed(body(**changed), OFFICER))
    assert "consortium.json: " in str(caught.value)


@pytest.mark.parametrize(
    "other",
    [
        lambda data: data + b"\n",
        lambda data: json.dumps(json.loads(data), sort_keys=True).encode(),
        lambda data: data.replace(b'"version":1', b'"version":1,"version":1'),
        lambda data: json.dumps(dict(reversed(json.loads(data).items())), separators=(",", ":")).encode(),
    ],
)
def test_other_bytes_of_the_same_meaning(other: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ConfigError, match=r"canonical form.*edited or re-formatted"):
        parse(other(MANIFEST))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b"{", b"[" * 100_000, b'{"body":{}}', MANIFEST[:-1]])
def test_bytes_that_are_no_manifest(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"consortium\.json: "):
        parse(data)


def test_a_file_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "consortium.json"
    path.write_bytes(b" " * (MANIFEST_MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="at most 1048576 bytes"):
        Consortium.load(path, pinned=None)
    with pytest.raises(ConfigError, match=r"cannot be read.*consilo pki manifest"):
        Consortium.load(tmp_path / "absent", pinned=None)


def test_a_file_is_held_against_the_pin(tmp_path: Path) -> None:
    path = tmp_path / "consortium.json"
    path.write_bytes(MANIFEST)
    digest = parse(MANIFEST).digest
    assert Consortium.load(path, pinned=digest) == Consortium.load(path, pinned=None)
    other = Digest.of(b"another")
    with pytest.raises(ConfigError, match=f"digest {other}, as pinned, got {digest}: ask an officer.*second channel"):
        Consortium.load(path, pinned=other)


def test_whether_somebody_is_a_member_with_this_key() -> None:
    consortium, hospital = parse(MANIFEST), Identity(NAME, Role.PARTICIPANT, A)
    consortium.require(hospital, key_of(A).verifying_key)
    with pytest.raises(IdentityError, match=f"spiffe://{NAME}/operator/{A} is not in the consortium's manifest"):
        consortium.require(Identity(NAME, Role.OPERATOR, A), key_of(A).verifying_key)
    expected, got = (key_of(name).verifying_key for name in (A, B))
    with pytest.raises(IdentityError, match=f"{expected.fingerprint} of participant .*got {got.fingerprint}"):
        consortium.require(hospital, got)


def test_whether_this_process_is_in_its_own_manifest() -> None:
    consortium, hospital = parse(MANIFEST), Identity(NAME, Role.PARTICIPANT, A)
    consortium.require_own(hospital, key_of(A).verifying_key, source="consortium.json")
    expected, got = (key_of(name).verifying_key for name in (A, B))
    with pytest.raises(ConfigError, match=f"{expected.fingerprint}.*got {got.fingerprint}.*pki manifest"):
        consortium.require_own(hospital, got, source="consortium.json")
    elsewhere = Identity("lungs.example", Role.PARTICIPANT, A)
    with pytest.raises(ConfigError, match=r"manifest of lungs\.example, .*got that of hearts\.example"):
        consortium.require_own(elsewhere, expected, source="consortium.json")


def test_a_manifest_is_of_one_consortium() -> None:
    foreign = {Identity("lungs.example", Role.PARTICIPANT, A): key_of(A).verifying_key}
    with pytest.raises(RuntimeError, match="its own members"):
        make_manifest(consortium=NAME, members=foreign, officers=[OFFICER])
    with pytest.raises(ConfigError, match="same key"):
        make_manifest(consortium=NAME, members=MEMBERS, officers=[key_of(A)])
