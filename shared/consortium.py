"""The consortium's manifest: who is a member, in which role, and with which signing key.

Theory of operation. Masking rests on every silo knowing every other silo's signing key: whoever can put a key of their
own in the place of a silo's can play that silo, and one who plays enough of them opens a total over a single silo. So
the keys come from nobody who takes part in a round. They stand in one file, the manifest, which officers of the
consortium sign and whose digest each silo pins in participant.toml. The coordinator hands out no member: a cohort that
is not in the pinned manifest is declined.

The pin is what a silo trusts. The officers' keys stand in the file itself, so their signatures prove nothing to
somebody who has no pin; with the pin they prove that the officers agreed on this file, as many of them as it asks for,
and not only the person who sent it round. The digest therefore has to reach each silo by a second channel: read out
over the telephone, printed in the contract. An officer's key belongs on no coordinator and no silo, so it may not be a
member's key. Where one person keeps the authority, the pin and the coordinator, as in the demo, there is no guarantee
against that person.

The file is one canonical JSON document, `{"body": {...}, "signatures": [...]}`. Its digest is over the body alone: an
officer's signature that is added later moves nobody's pin. TLS certificates are not in it, because they change every
few weeks; the coordinator's allow-list has those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from shared.complaints import first_complaint
from shared.errors import ConfigError, IdentityError
from shared.hashing import tagged_hash
from shared.identity import Identity, Role, SigningKey, VerifyingKey, same_digest
from shared.ids import Digest, ParticipantId
from shared.job import Table, canonical_json

MANIFEST_VERSION = 1
MANIFEST_MAX_BYTES = 1024 * 1024  # about 170 bytes a member: five thousand silos fit
OFFICERS_MAX = 64  # people who have to meet or telephone

_LABEL = "consortium"  # of the digest and of the signatures


def _require_key(text: str) -> str:
    VerifyingKey(bytes.fromhex(text))
    return text


_KeyHex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$"), AfterValidator(_require_key)]
_SignatureHex = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class _Member(Table):
    role: Role
    id: str
    signing_key: _KeyHex


class _Body(Table):
    version: Literal[1]
    consortium: str
    officers: tuple[_KeyHex, ...] = Field(min_length=1, max_length=OFFICERS_MAX)
    signatures_needed: int = Field(ge=1)
    members: tuple[_Member, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if list(self.officers) != sorted(set(self.officers)):
            raise ValueError("officers must be sorted and distinct")
        if self.signatures_needed > len(self.officers):
            raise ValueError(
                f"signatures_needed is {self.signatures_needed}, but there are {len(self.officers)} officers"
            )
        places = [(member.role, member.id) for member in self.members]
        if places != sorted(set(places)):
            raise ValueError("members must be sorted by role and id, and distinct")
        self._require_one_key_each()
        return self

    def _require_one_key_each(self) -> None:
        """One key for two names would let one member answer for the other, and an officer admit itself."""
        owners: dict[str, str] = dict.fromkeys(self.officers, "an officer")
        for member in self.members:
            owner = f"{member.role} {member.id}"
            if member.signing_key in owners:
                raise ValueError(f"{owners[member.signing_key]} and {owner} have the same key: each needs its own")
            owners[member.signing_key] = owner


class _Signature(Table):
    officer: _KeyHex
    signature: _SignatureHex


class _Document(Table):
    body: _Body
    signatures: tuple[_Signature, ...] = Field(max_length=OFFICERS_MAX)

    @model_validator(mode="after")
    def _signatures_are_in_order(self) -> Self:
        officers = [signature.officer for signature in self.signatures]
        if officers != sorted(set(officers)):
            raise ValueError("signatures must be sorted by officer, one of each")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """A manifest whose every signature was checked. Trust it as far as its `digest` was pinned."""

    name: str
    """The trust domain, as in every member's SPIFFE URI."""
    members: Mapping[Identity, VerifyingKey]
    officers: tuple[VerifyingKey, ...]
    signatures_needed: int
    digest: Digest

    @classmethod
    def parse(cls, data: bytes, *, source: str) -> Consortium:
        """Read a manifest from its bytes; `source` names them in errors. Raises ConfigError."""
        document = _document(data, source=source)
        body = document.body
        payload = canonical_json(body.model_dump(mode="json"))
        officers = tuple(VerifyingKey(bytes.fromhex(officer)) for officer in body.officers)
        _require_signatures(document, payload, officers=frozenset(officers), source=source)
        try:
            members = {
                Identity(body.consortium, member.role, member.id): VerifyingKey(bytes.fromhex(member.signing_key))
                for member in body.members
            }
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from None
        return cls(
            name=body.consortium,
            members=MappingProxyType(members),
            officers=officers,
            signatures_needed=body.signatures_needed,
            digest=tagged_hash(_LABEL, payload),
        )

    @classmethod
    def load(cls, path: Path, *, pinned: Digest | None) -> Consortium:
        """Read a manifest file and hold it against the pin. Raises ConfigError.

        Without a pin nothing says that the officers in the file are the consortium's: only the coordinator, which no
        silo trusts with this, reads it so.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MANIFEST_MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"{path}: expected the consortium's manifest, it cannot be read ({error.strerror}): "
                "`consilo pki manifest` writes it"
            ) from None
        found = cls.parse(data, source=str(path))
        if pinned is not None and not same_digest(found.digest, pinned):
            raise ConfigError(
                f"{path}: expected the manifest with digest {pinned}, as pinned, got {found.digest}: ask an officer of "
                "the consortium for the digest over a second channel (by telephone), and change the pin only to what "
                "they say"
            )
        return found

    def participant_key(self, participant: ParticipantId) -> VerifyingKey | None:
        """The signing key of a participant; None when the consortium has no such participant."""
        return self.members.get(Identity(self.name, Role.PARTICIPANT, participant))

    @property
    def coordinator_keys(self) -> frozenset[VerifyingKey]:
        """The signing keys of whoever may coordinate."""
        return frozenset(key for member, key in self.members.items() if member.role is Role.COORDINATOR)

    @property
    def participants(self) -> int:
        """How many members are participants."""
        return sum(member.role is Role.PARTICIPANT for member in self.members)

    def require(self, identity: Identity, key: VerifyingKey) -> None:
        """Raises IdentityError unless `identity` is a member with exactly this signing key."""
        listed = self.members.get(identity)
        if listed is None:
            raise IdentityError(f"{identity.uri} is not in the consortium's manifest {self.digest}")
        if listed != key:
            raise IdentityError(
                f"expected signing key {listed.fingerprint} of {identity}, as in the consortium's manifest, got "
                f"{key.fingerprint}"
            )

    def require_own(self, identity: Identity, key: VerifyingKey, *, source: str) -> None:
        """The same of this process itself, at start. Raises ConfigError, which says what to do."""
        if identity.consortium != self.name:
            raise ConfigError(
                f"{source}: expected the manifest of {identity.consortium}, as in the certificates, got that of "
                f"{self.name}: take the one of your own consortium"
            )
        try:
            self.require(identity, key)
        except IdentityError as error:
            raise ConfigError(
                f"{source}: {error}. Have an officer make a manifest with this signing key (`consilo pki manifest`), "
                "which every silo then has to pin, or take the listed key back into use"
            ) from None


def make_manifest(
    *,
    consortium: str,
    members: Mapping[Identity, VerifyingKey],
    officers: Sequence[SigningKey],
    signatures_needed: int = 1,
) -> bytes:
    """The manifest's file, signed by each of `officers`. Raises ConfigError for what no silo would accept."""
    if any(member.consortium != consortium for member in members):
        raise RuntimeError(f"a manifest of {consortium} is made of its own members")
    body = {
        "version": MANIFEST_VERSION,
        "consortium": consortium,
        "officers": sorted(officer.verifying_key.raw.hex() for officer in officers),
        "signatures_needed": signatures_needed,
        "members": [
            {"role": member.role, "id": member.name, "signing_key": members[member].raw.hex()}
            for member in sorted(members)
        ],
    }
    payload = canonical_json(body)
    signatures = [
        {"officer": officer.verifying_key.raw.hex(), "signature": officer.sign(_LABEL, payload).hex()}
        for officer in sorted(officers, key=lambda officer: officer.verifying_key.raw)
    ]
    made = canonical_json({"body": body, "signatures": signatures})
    Consortium.parse(made, source="the manifest to be")
    return made


def _document(data: bytes, *, source: str) -> _Document:
    if len(data) > MANIFEST_MAX_BYTES:
        raise ConfigError(f"{source}: expected a consortium's manifest of at most {MANIFEST_MAX_BYTES} bytes, got more")
    try:
        document = _Document.model_validate_json(data)
        canonical = canonical_json(document.model_dump(mode="json"))
    except ValidationError as error:
        raise ConfigError(
            f"{source}: expected a consortium's manifest of version {MANIFEST_VERSION}, as `consilo pki manifest` "
            f"writes it: {first_complaint(error)}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{source}: not a consortium's manifest: {error}") from None
    if canonical != data:
        raise ConfigError(
            f"{source}: expected a manifest in canonical form (sorted keys, no white space, no line end), got other "
            "bytes of the same meaning: was it edited or re-formatted? Take the file as `consilo pki manifest` wrote it"
        )
    return document


def _require_signatures(document: _Document, payload: bytes, *, officers: frozenset[VerifyingKey], source: str) -> None:
    for signature in document.signatures:
        officer = VerifyingKey(bytes.fromhex(signature.officer))
        if officer not in officers:
            raise ConfigError(
                f"{source}: expected signatures of the manifest's officers alone, got one of key "
                f"{officer.fingerprint}: take the file as the officers signed it"
            )
        try:
            officer.verify(_LABEL, payload, bytes.fromhex(signature.signature))
        except IdentityError:
            raise ConfigError(
                f"{source}: the signature of officer {officer.fingerprint} is not over this manifest: it was changed "
                "after it was signed. Take the file as the officers signed it"
            ) from None
    needed = document.body.signatures_needed
    if len(document.signatures) < needed:
        raise ConfigError(
            f"{source}: expected the signatures of {needed} officers, got {len(document.signatures)}: more of them "
            "have to sign"
        )
