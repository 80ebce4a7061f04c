"""How a session opens: a Hello, checked from its versions to its signing certificate, and the Welcome to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from coordinator.rpc.authorization import Call
from coordinator.rpc.server import Stream
from coordinator.rpc.sessions import Link
from shared.clock import Clock
from shared.consortium import Consortium
from shared.entropy import Entropy
from shared.errors import ConfigError, IdentityError, UnreachableError, WireError
from shared.identity import SigningKey, VerifyingKey, same_digest, verify_signing_certificate
from shared.protocol.messages import CAPABILITIES, PROTOCOL_VERSIONS, Hello, Refused, Welcome
from shared.reasons import RefusalReason
from shared.wire.sealed import seal
from shared.wire.session import decode_participant_message, encode_coordinator_message

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTimes:
    """How long to wait for what. With the defaults a dead peer is noticed in under 15 seconds."""

    hello_s: float = 10.0
    heartbeat_s: float = 4.0
    silence_s: float = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Who opens sessions here, and with what."""

    signing_key: SigningKey
    signing_certificate: bytes
    """DER."""
    authorities: Callable[[], bytes]
    """The consortium's authorities (PEM) as they are now."""
    software: str
    clock: Clock
    entropy: Entropy
    consortium: Consortium | None = None
    """The manifest: the silos check each other's words with its keys, so a session with another key helps nobody."""


class SessionRefused(Exception):  # noqa: N818 - an answer of the protocol, caught where the stream is
    """Why no session opens."""

    def __init__(self, reason: RefusalReason, detail: str) -> None:
        super().__init__(detail)
        self.refused = Refused(reason, detail)


@dataclass(frozen=True, slots=True)
class Opening:
    """A Hello that passed every check."""

    hello: Hello
    version: int
    key: VerifyingKey


async def open_session(call: Call, stream: Stream, *, host: Host, times: SessionTimes) -> Opening:
    """Hear a Hello and check all that is in it. Raises SessionRefused, or UnreachableError for a fault of our own."""
    hello = await _hello(stream, times)
    if len(set(hello.open_rounds)) != len(hello.open_rounds):
        raise SessionRefused(RefusalReason.PROTOCOL, "a Hello names each open round once")
    common = set(hello.versions) & set(PROTOCOL_VERSIONS)
    if not common:
        raise SessionRefused(
            RefusalReason.NO_COMMON_VERSION,
            f"the coordinator speaks protocol versions {_listed(PROTOCOL_VERSIONS)}, the participant "
            f"{_listed(hello.versions)}: bring the older of the two up to date",
        )
    missing = [name for name in CAPABILITIES if name not in hello.capabilities]
    if missing:
        raise SessionRefused(
            RefusalReason.MISSING_CAPABILITY,
            f"expected the capabilities {', '.join(CAPABILITIES)}, but the participant lacks {', '.join(missing)}: "
            "bring it up to date",
        )
    return Opening(hello, max(common), _signing_key_of(call, hello, host))


async def _hello(stream: Stream, times: SessionTimes) -> Hello:
    try:
        async with asyncio.timeout(times.hello_s):
            first = await stream.read()
    except TimeoutError:
        raise SessionRefused(
            RefusalReason.SILENT, f"expected a Hello within {times.hello_s:g} s, got nothing"
        ) from None
    if first is None:
        raise SessionRefused(RefusalReason.PROTOCOL, "expected a Hello, got the end of the stream")
    try:
        message = decode_participant_message(first)
    except WireError as error:
        raise SessionRefused(RefusalReason.PROTOCOL, str(error)) from None
    if not isinstance(message, Hello):
        raise SessionRefused(
            RefusalReason.PROTOCOL, f"expected a Hello as the first message, got {type(message).__name__}"
        )
    return message


def _signing_key_of(call: Call, hello: Hello, host: Host) -> VerifyingKey:
    try:
        certificate = verify_signing_certificate(
            hello.signing_certificate, ca_pem=_authorities(host), now=host.clock.now()
        )
    except IdentityError as error:
        raise SessionRefused(RefusalReason.SIGNING_IDENTITY, str(error)) from None
    except ConfigError as error:
        _log.error("authorities_unusable", reason=str(error))
        raise UnreachableError("the coordinator cannot check signing certificates now: try again") from None
    if certificate.identity != call.identity:
        raise SessionRefused(
            RefusalReason.SIGNING_IDENTITY,
            f"expected the signing certificate of {call.identity.uri}, as in the TLS certificate, "
            f"got one of {certificate.identity.uri}",
        )
    if not same_digest(certificate.fingerprint, call.entry.signing_fingerprint):
        raise SessionRefused(
            RefusalReason.SIGNING_IDENTITY,
            f"the signing certificate (SHA-256 {certificate.fingerprint}) is not the one on the coordinator's "
            "allow-list: an old certificate, or the allow-list was not updated",
        )
    _require_listed_key(certificate.verifying_key, call, host)
    return certificate.verifying_key


def _require_listed_key(key: VerifyingKey, call: Call, host: Host) -> None:
    """Whom the manifest does not have may come, for plain jobs; whom it has comes with the key that it says."""
    listed = host.consortium.participant_key(call.participant) if host.consortium is not None else None
    if listed is not None and listed != key:
        raise SessionRefused(
            RefusalReason.SIGNING_IDENTITY,
            f"expected signing key {listed.fingerprint} of {call.identity.uri}, as in the consortium's manifest, got "
            f"{key.fingerprint}: take the listed key back into use, or have the officers make a new manifest, which "
            "the coordinator and every silo then have to take up",
        )


def _authorities(host: Host) -> bytes:
    try:
        return host.authorities()
    except OSError as error:
        raise ConfigError(f"the file of authorities (tls.ca) cannot be read: {error}") from None


def welcome(opening: Opening, link: Link, *, host: Host, times: SessionTimes) -> bytes:
    """The answer to a Hello, signed over its nonce."""
    welcome = Welcome(
        version=opening.version,
        session=link.session,
        nonce=opening.hello.nonce,
        software=host.software,
        participant=link.participant,
        capabilities=CAPABILITIES,
        heartbeat_s=times.heartbeat_s,
        silence_s=times.silence_s,
        signing_certificate=host.signing_certificate,
    )
    return encode_coordinator_message(seal(welcome, signer=host.signing_key, index=0))


def _listed(versions: Sequence[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
