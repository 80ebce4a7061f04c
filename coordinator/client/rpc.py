"""Dialling the coordinator as an operator: bytes out, bytes in, and errors by their names.

A status that comes back is turned into the error that the coordinator raised, by the name that travels beside it; one
without a name comes from gRPC itself. Of these, UNAVAILABLE says least: it is also all that a caller sees whose
certificate was not accepted, because then the handshake fails before anyone can say why.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from shared.errors import FederationError, IdentityError, RefusedError, UnreachableError
from shared.proxies import proxy_for
from shared.reaching import likely_cause
from shared.tls import TlsPaths, channel_credentials
from shared.wire.operations import LISTING_MAX_BYTES
from shared.wire.status import ERROR_METADATA_KEY, error_named

SERVICE = "/consilo.v1.OperationsService/"
CALL_DEADLINE_S = 60.0  # for calls with one answer; streams live as long as there is something to say
SILENCE_MS = 20_000  # a dead peer is noticed while a watch has nothing to tell
ANSWER_MS = 10_000

_OPTIONS = [
    ("grpc.max_receive_message_length", LISTING_MAX_BYTES + 1024),
    ("grpc.keepalive_time_ms", SILENCE_MS),
    ("grpc.keepalive_timeout_ms", ANSWER_MS),
    ("grpc.http2.max_pings_without_data", 0),
    # A watch waits for a coordinator that restarts, and paces its tries by itself.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Each command means the files as they are now, not a connection that another one opened.
    ("grpc.use_local_subchannel_pool", 1),
]


class OperationsChannel:
    """One connection to a coordinator's OperationsService. Every call may raise a leaf of FederationError."""

    def __init__(self, *, address: str, tls: TlsPaths) -> None:
        """Raises ConfigError, also for a proxy in the environment that gRPC would pass over."""
        self.address = address
        self._proxy = proxy_for(address, os.environ)
        self._channel = grpc.secure_channel(address, channel_credentials(tls), options=_OPTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def ask(self, method: str, request: bytes) -> bytes:
        """One request, one answer."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(SERVICE + method)
        try:
            return bytes(call(request, timeout=CALL_DEADLINE_S))
        except grpc.RpcError as error:
            raise self._meant(method, error) from None

    def follow(self, method: str, request: bytes) -> Generator[bytes, None, None]:
        """One request, answers until the coordinator ends the stream or the iterator is closed."""
        stream: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(SERVICE + method)
        call = stream(request)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._meant(method, error) from None
        finally:
            call.cancel()

    def send(self, method: str, frames: Iterator[bytes]) -> bytes:
        """Frames until they end or the coordinator has heard enough, then one answer."""
        call: grpc.StreamUnaryMultiCallable[bytes, bytes] = self._channel.stream_unary(SERVICE + method)
        try:
            return bytes(call(frames))
        except grpc.RpcError as error:
            raise self._meant(method, error) from None

    def _meant(self, method: str, error: Any) -> FederationError:
        """`error` is a grpc.RpcError that is a grpc.Call as well, which gRPC's types deny."""
        detail = error.details() or ""
        for name, value in error.trailing_metadata() or ():
            named = error_named(value, detail) if name == ERROR_METADATA_KEY and isinstance(value, str) else None
            if named is not None:
                return named
        code: grpc.StatusCode = error.code()
        match code:
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                by_way = f" by way of the proxy {self._proxy}" if self._proxy else ""
                return UnreachableError(
                    f"no connection to the coordinator at {self.address}{by_way}: "
                    f"{likely_cause(detail, self._proxy)} ({detail})"
                )
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return UnreachableError(
                    f"the coordinator at {self.address} did not answer {method} within {CALL_DEADLINE_S:.0f} s"
                )
            case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
                return IdentityError(f"the coordinator at {self.address} refused {method}: {detail}")
            case grpc.StatusCode.UNIMPLEMENTED:
                return RefusedError(f"the coordinator at {self.address} knows no {method}: it has another version")
            case _:
                return RefusedError(f"the coordinator could not answer {method} ({code.name}): its log says why")
