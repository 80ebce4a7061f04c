"""Channels to the coordinator, and failures of calls as leaves of our error tree."""

from __future__ import annotations

import os

import grpc
import grpc.aio

from shared.errors import FederationError, IdentityError, PeerError, UnreachableError
from shared.proxies import proxy_for
from shared.reaching import likely_cause
from shared.tls import TlsPaths, channel_credentials
from shared.wire.status import ERROR_METADATA_KEY, error_named

DETAIL_MAX_CHARS = 500
# Of a model on its way to us, what was sent and did not arrive is sent again: a frame, and the head of the next.
WINDOW_BYTES = 1280 * 1024

_MESSAGE_LIMITS = [
    ("grpc.max_receive_message_length", 4 * 1024 * 1024 + 64 * 1024),  # control messages; chunks are smaller
    ("grpc.max_send_message_length", 4 * 1024 * 1024 + 64 * 1024),
]

CHANNEL_OPTIONS = [
    *_MESSAGE_LIMITS,
    # A dead TCP peer is noticed by the transport too, also while only bulk data flows.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Coming back is quick: the coordinator restarts in seconds, and our own backoff spreads the silos out.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # we know what is idempotent; the transport does not
    ("grpc.use_local_subchannel_pool", 1),  # bulk data and control never share a connection
    # A fixed window bounds what a broken connection has to send again, and the memory of a transfer.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
]


def dial(address: str, tls: TlsPaths) -> grpc.aio.Channel:
    """A channel with a connection of its own. Credentials are read now: a rotated one needs a new channel, which also
    resolves the name anew. Raises ConfigError, also for a proxy in the environment that gRPC would pass over.
    """
    proxy_for(address, os.environ)
    return grpc.aio.secure_channel(address, channel_credentials(tls), options=CHANNEL_OPTIONS)


def way_to(address: str) -> str:
    """The address, with the proxy on the way to it."""
    proxy = proxy_for(address, os.environ)
    return address if proxy is None else f"{address} by way of the proxy {proxy}"


def error_of(failure: grpc.aio.AioRpcError, *, address: str) -> FederationError:
    """The leaf that the peer named, or what the status says about the connection."""
    detail = (failure.details() or "")[:DETAIL_MAX_CHARS]
    for key, value in failure.trailing_metadata() or ():
        if key == ERROR_METADATA_KEY and isinstance(value, str):
            named = error_named(value, detail)
            if isinstance(named, PeerError):
                return named
            # Any other leaf is trouble of its own (its disk, its files): to us it cannot be reached for now.
            return UnreachableError(f"{address} has trouble of its own: {detail}")
    return _by_status(failure.code(), detail, address)


def _by_status(code: grpc.StatusCode, detail: str, address: str) -> FederationError:
    if code in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}:
        return IdentityError(f"{address} refused this identity: {detail}")
    if code is grpc.StatusCode.UNAVAILABLE:
        cause = likely_cause(detail, proxy_for(address, os.environ))
        return UnreachableError(f"{way_to(address)} cannot be reached: {cause} ({detail})")
    return UnreachableError(f"the call to {address} failed with {code.name}: {detail}")
