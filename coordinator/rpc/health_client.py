"""Asking the own coordinator over its own port, as a health check of a container does.

It dials loopback with the coordinator's TLS certificate, which is let in to this one question, and takes no other
certificate for an answer than one for the coordinator's own name.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import grpc

from coordinator.rpc.health_messages import HEALTH, LIVENESS, READINESS, decode_health, encode_health_check
from shared.certificates import CLIENT_AUTH, hosts_of, require_purpose
from shared.config import split_address
from shared.errors import ConfigError, FederationError, IdentityError, RefusedError, UnreachableError
from shared.tls import TlsPaths, channel_credentials, leaf_in

ANSWER_S = 5.0
_CHECK = f"/{HEALTH.full_name}/Check"
_NOT_RUNNING = "connection refused"


@dataclass(frozen=True, slots=True)
class Answered:
    """How a coordinator says that it is."""

    live: bool
    ready: bool


def ask_health(listen: str, tls: TlsPaths) -> Answered:
    """Ask the coordinator that listens on `listen` (of this machine). Raises ConfigError, UnreachableError,
    IdentityError, RefusedError.
    """
    address, name = _dialled(listen), _own_name(tls)
    options = [
        ("grpc.ssl_target_name_override", name),
        ("grpc.enable_http_proxy", 0),  # whatever the environment says: this never leaves the machine
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),  # each question means the process that is there now
    ]
    with grpc.secure_channel(address, channel_credentials(tls), options=options) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
        try:
            live, ready = (
                decode_health(check(encode_health_check(service), timeout=ANSWER_S))
                for service in (LIVENESS, READINESS)
            )
        except grpc.RpcError as error:
            raise _meant(error, address) from None
    return Answered(live, ready)


def _dialled(listen: str) -> str:
    host, port = split_address(listen)
    if port == 0:
        raise ConfigError(f"coordinator.listen is {listen}, a port that each start chooses anew: name one to ask there")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return listen
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _own_name(tls: TlsPaths) -> str:
    """A host that the own certificate is for."""
    leaf = leaf_in(tls.certificate)
    try:
        require_purpose(leaf, CLIENT_AUTH)
    except IdentityError:
        raise ConfigError(
            f"{tls.certificate} is for being dialled alone, as older versions issued it, and the coordinator dials "
            "itself to ask how it is: renew it (`consilo pki sign ... --dns NAME`), and take the new allow-list"
        ) from None
    hosts = hosts_of(leaf)
    if not hosts:
        raise ConfigError(f"{tls.certificate} is for no host: have it signed with the names that silos dial (--dns)")
    return hosts[0].replace("*", "health")


def _meant(error: Any, address: str) -> FederationError:
    """`error` is a grpc.RpcError that is a grpc.Call as well, which gRPC's types deny."""
    code: grpc.StatusCode = error.code()
    detail = error.details() or ""
    match code:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return UnreachableError(f"what listens on {address} did not answer within {ANSWER_S:g} s: it hangs")
        case grpc.StatusCode.UNAVAILABLE if _NOT_RUNNING in detail.lower():
            return UnreachableError(f"nothing listens on {address}: the coordinator is not running, or is starting")
        case grpc.StatusCode.UNAVAILABLE:
            return UnreachableError(
                f"no answer of this coordinator on {address}: another process has the port (`ss -ltnp` shows which), "
                f"or one of the two certificates is not accepted ({detail})"
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            return IdentityError(
                f"the coordinator on {address} does not let its own certificate in: {detail}. `consilo pki` puts the "
                "coordinator on the allow-list too: take the newest one"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return RefusedError(f"the coordinator on {address} knows no health: it has another version, restart it")
        case _:
            return RefusedError(f"the coordinator on {address} could not answer ({code.name}): its log says why")
