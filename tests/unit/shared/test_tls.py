"""Credentials from files, and who is at the other end: each claim against a real handshake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from shared.certificates import CLIENT_AUTH, SERVER_AUTH
from shared.errors import ConfigError, IdentityError
from shared.identity import Allowlist, Identity, Role
from shared.tls import (
    Caller,
    TlsPaths,
    caller_of,
    channel_credentials,
    check_credentials,
    check_signing_credentials,
    server_credentials,
)
from tests.support.credentials import CONSORTIUM, Consortium, Credentials, der_of
from tests.support.old_tls import call_with_tls12

Context = Mapping[str, Sequence[bytes]]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


class _Answering(grpc.GenericRpcHandler):
    """Answers every call with who the caller is, or aborts."""

    def __init__(self) -> None:
        self.refusals: list[str] = []

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    async def _answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            return caller_of(context.auth_context()).identity.uri.encode()
        except IdentityError as error:
            self.refusals.append(str(error))
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))


@asynccontextmanager
async def _listening(paths: TlsPaths, answering: _Answering | None = None) -> AsyncIterator[int]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((answering or _Answering(),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(paths))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def _ask(port: int, credentials: grpc.ChannelCredentials) -> str:
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options=options) as channel:
        who: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test/Who")
        return (await who(b"", timeout=10)).decode()


async def _refusal(port: int, credentials: grpc.ChannelCredentials) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _ask(port, credentials)
    return caught.value.code()


def test_a_member_is_known_by_its_certificate(consortium: Consortium) -> None:
    async def talk() -> str:
        async with _listening(consortium.coordinator().tls) as port:
            return await _ask(port, channel_credentials(consortium.participant("hospital-a").tls))

    assert asyncio.run(talk()) == "spiffe://hearts.example/participant/hospital-a"


def test_who_gets_no_further(consortium: Consortium, tmp_path: Path) -> None:
    stranger = Consortium(tmp_path / "other").participant("hospital-a")
    outsider = TlsPaths(stranger.tls.certificate, stranger.tls.key, consortium.participant("hospital-a").tls.ca)
    unknown = grpc.StatusCode.UNAVAILABLE  # the handshake ends before anything can be said
    table = {
        "without a certificate": (grpc.ssl_channel_credentials(consortium.ca_pem), unknown),
        "of another authority": (channel_credentials(outsider), unknown),
        "expired": (channel_credentials(consortium.expired().tls), unknown),
        "not yet valid": (channel_credentials(consortium.not_yet_valid().tls), unknown),
        "for being dialled alone": (channel_credentials(consortium.leaf("dialled", purpose=SERVER_AUTH).tls), unknown),
        "two names": (channel_credentials(consortium.two_names().tls), grpc.StatusCode.UNAUTHENTICATED),
        "no name": (channel_credentials(consortium.leaf("none", uris=[]).tls), grpc.StatusCode.UNAUTHENTICATED),
        "no role": (
            channel_credentials(consortium.leaf("odd", uris=[f"spiffe://{CONSORTIUM}/owner/odd"]).tls),
            grpc.StatusCode.UNAUTHENTICATED,
        ),
    }

    async def talk() -> dict[str, grpc.StatusCode]:
        async with _listening(consortium.coordinator().tls) as port:
            return {name: await _refusal(port, credentials) for name, (credentials, _) in table.items()}

    assert asyncio.run(talk()) == {name: expected for name, (_, expected) in table.items()}


def test_tls_1_2_gets_nothing(consortium: Consortium) -> None:
    answering = _Answering()

    async def talk() -> str:
        async with _listening(consortium.coordinator().tls, answering) as port:
            return await call_with_tls12(port, consortium.participant("hospital-a").tls, "/test/Who")

    assert asyncio.run(talk()) == "TLSv1.2"  # the library agrees to it, and we do not
    assert answering.refusals == ["expected TLSv1.3, got TLSv1.2"]


def test_a_participant_cannot_pose_as_the_coordinator(consortium: Consortium) -> None:
    impostor = consortium.leaf("impostor", hosts=["localhost"], purpose=CLIENT_AUTH)

    async def talk() -> grpc.StatusCode:
        async with _listening(impostor.tls) as port:
            return await _refusal(port, channel_credentials(consortium.participant("hospital-a").tls))

    assert asyncio.run(talk()) is grpc.StatusCode.UNAVAILABLE


def test_files_are_read_again_for_new_connections(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    coordinator = consortium.coordinator()
    mine = channel_credentials(consortium.participant("hospital-a").tls)
    other = Consortium(tmp_path / "other")
    theirs = channel_credentials(other.participant("hospital-b").tls)

    async def talk() -> list[object]:
        seen: list[object] = []
        async with _listening(coordinator.tls) as port:
            seen.append(await _ask(port, mine))
            consortium.reissue(Role.COORDINATOR, "coordinator")
            seen.append(await _ask(port, mine))
            coordinator.tls.key.write_bytes(b"half written")  # the old pair goes on
            seen.append(await _ask(port, mine))
            moved = other.coordinator()
            for old, new in (("tls.key", "tls.key"), ("tls.crt", "tls.crt"), ("ca.crt", "ca.crt")):
                (coordinator.folder / old).write_bytes((moved.folder / new).read_bytes())
            seen.append(await _ask(port, theirs))
            seen.append(await _refusal(port, mine))
        return seen

    us = "spiffe://hearts.example/participant/hospital-a"
    them = "spiffe://hearts.example/participant/hospital-b"
    assert asyncio.run(talk()) == [us, us, us, them, grpc.StatusCode.UNAVAILABLE]


def _context(consortium: Consortium, **changes: Sequence[bytes]) -> Context:
    pem = consortium.participant("hospital-a").tls.certificate.read_bytes()
    return {
        "transport_security_type": [b"ssl"],
        "ssl_tls_version": [b"TLSv1.3"],
        "peer_spiffe_id": [b"spiffe://hearts.example/participant/hospital-a"],
        "x509_pem_cert": [pem],
        **changes,
    }


def test_the_caller_of_a_connection(consortium: Consortium) -> None:
    certificate = consortium.participant("hospital-a").tls.certificate
    caller = caller_of(_context(consortium))
    assert isinstance(caller, Caller)
    assert caller.identity == Identity(CONSORTIUM, Role.PARTICIPANT, "hospital-a")
    entry = Allowlist.load(consortium.allowlist).check(caller.identity, caller.tls_fingerprint)
    assert str(entry.tls_fingerprint) == str(caller.tls_fingerprint)
    assert len(der_of(certificate)) > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"transport_security_type": []},
        {"transport_security_type": [b"insecure"]},
        {"ssl_tls_version": []},
        {"ssl_tls_version": [b"TLSv1.2"]},
        {"ssl_tls_version": [b"TLSv1.3", b"TLSv1.2"]},
        {"peer_spiffe_id": []},
        {"peer_spiffe_id": [b"spiffe://a/participant/a", b"spiffe://a/participant/b"]},
        {"peer_spiffe_id": [b"\xff"]},
        {"peer_spiffe_id": [b"spiffe://a/nobody/a"]},
        {"x509_pem_cert": []},
        {"x509_pem_cert": [b"junk"]},
        {"x509_pem_cert": [b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"]},
    ],
)
def test_a_connection_without_one_clear_caller(consortium: Consortium, changes: dict[str, Sequence[bytes]]) -> None:
    with pytest.raises(IdentityError):
        caller_of(_context(consortium, **changes))


def test_nothing_known_about_a_connection() -> None:
    with pytest.raises(IdentityError):
        caller_of({})


def test_good_credentials_pass_the_checks(consortium: Consortium) -> None:
    for credentials, role in [
        (consortium.coordinator(), Role.COORDINATOR),
        (consortium.participant("hospital-a"), Role.PARTICIPANT),
        (consortium.operator(), Role.OPERATOR),
    ]:
        checked = check_credentials(credentials.tls, expected_role=role, now=consortium.now)
        assert checked.identity.role is role
        assert checked.expires - consortium.now > timedelta(days=29)
        signing = _check_signing(credentials, checked.identity, consortium.now)
        assert signing == checked.identity


def _check_signing(credentials: Credentials, expected: Identity, now: datetime) -> Identity:
    checked = check_signing_credentials(
        certificate=credentials.signing_certificate,
        key=credentials.signing_key_path,
        ca=credentials.tls.ca,
        expected=expected,
        now=now,
    )
    return checked.certificate.identity


Deviation = Callable[[Consortium, Path], TlsPaths]

DEVIATIONS: list[tuple[str, Deviation]] = [
    ("cannot be read", lambda c, f: TlsPaths(f / "absent", c.participant("a").tls.key, c.participant("a").tls.ca)),
    (
        "is not the key of",
        lambda c, _: TlsPaths(c.participant("a").tls.certificate, c.participant("b").tls.key, c.operator().tls.ca),
    ),
    (
        "certificate in PEM form",
        lambda c, _: TlsPaths(c.participant("a").tls.key, c.participant("a").tls.key, c.operator().tls.ca),
    ),
    (
        "private key in PEM form",
        lambda c, _: TlsPaths(c.participant("a").tls.certificate, c.operator().tls.ca, c.operator().tls.ca),
    ),
    (
        "issued by",
        lambda c, f: TlsPaths(
            c.participant("a").tls.certificate, c.participant("a").tls.key, Consortium(f).operator().tls.ca
        ),
    ),
    ("expired", lambda c, _: c.expired().tls),
    ("valid from", lambda c, _: c.not_yet_valid().tls),
    ("exactly one URI", lambda c, _: c.two_names().tls),
    ("role participant", lambda c, _: c.operator().tls),
    ("dialling", lambda c, _: c.leaf("served", purpose=SERVER_AUTH).tls),
    ("is this the signing certificate", lambda c, _: c.leaf("ed", key=ed25519.Ed25519PrivateKey.generate()).tls),
    ("P-256, P-384", lambda c, _: c.leaf("p521", key=ec.generate_private_key(ec.SECP521R1())).tls),
]


@pytest.mark.parametrize(("complaint", "deviation"), DEVIATIONS, ids=[name for name, _ in DEVIATIONS])
def test_bad_credentials_are_named(
    consortium: Consortium, tmp_path: Path, complaint: str, deviation: Deviation
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check_credentials(deviation(consortium, tmp_path), expected_role=Role.PARTICIPANT, now=consortium.now)


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    member = consortium.participant("hospital-a")
    identity = check_credentials(member.tls, expected_role=Role.PARTICIPANT, now=consortium.now).identity
    member.signing_key_path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        _check_signing(member, identity, consortium.now)
    member.tls.key.chmod(0o604)
    with pytest.raises(ConfigError, match="mode 0604"):
        check_credentials(member.tls, expected_role=Role.PARTICIPANT, now=consortium.now)


def test_signing_credentials_that_do_not_belong(consortium: Consortium) -> None:
    mine, other = consortium.participant("hospital-a"), consortium.participant("hospital-b")
    me = Identity(CONSORTIUM, Role.PARTICIPANT, "hospital-a")
    with pytest.raises(ConfigError, match="as in the TLS certificate"):
        _check_signing(other, me, consortium.now)
    with pytest.raises(ConfigError, match="expired"):
        _check_signing(mine, me, datetime(2100, 1, 1, tzinfo=UTC))
    with pytest.raises(ConfigError, match="is not the key of"):
        check_signing_credentials(
            certificate=mine.signing_certificate,
            key=other.signing_key_path,
            ca=mine.tls.ca,
            expected=me,
            now=consortium.now,
        )
    with pytest.raises(ConfigError, match="for signing"):
        check_signing_credentials(
            certificate=mine.tls.certificate,
            key=mine.signing_key_path,
            ca=mine.tls.ca,
            expected=me,
            now=consortium.now,
        )
