"""The one gRPC server: mutual TLS, bytes in and bytes out, every method behind the wall.

The methods come from the wire's own descriptors. A method without a handler, a handler without a method, or either
without a line in the matrix of `authorization` is found at start, not by the first caller.

gRPC parses nothing: serializers are None, and `shared.wire` reads and writes the bytes, because that is where their
limits are, and because bulk frames must not be copied once more.
"""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc import aio

from coordinator.rpc.authorization import MATRIX, Call, Context, Wall
from coordinator.rpc.health_messages import HEALTH
from shared.errors import ConfigError
from shared.pb.v1 import operations_pb2, session_pb2, transfer_pb2
from shared.tls import TlsPaths, server_credentials
from shared.wire.fields import CONTROL_MAX_BYTES
from shared.wire.operations import LISTING_MAX_BYTES

SERVICES: tuple[ServiceDescriptor, ...] = (
    session_pb2.DESCRIPTOR.services_by_name["SessionService"],
    transfer_pb2.DESCRIPTOR.services_by_name["TransferService"],
    operations_pb2.DESCRIPTOR.services_by_name["OperationsService"],
    HEALTH,
)
NOT_OFFERED = frozenset({"/grpc.health.v1.Health/List"})  # on the wire of a service of others, and nobody's here

# How much of each stream may be on its way to us before a handler takes it: a frame, and the head of the next. With the
# probe off this bounds memory. It is also what an upload loses when its connection breaks: with 4 MiB a cut cost
# 6.5 MB, with this 0.7 MB, at the same rate on loopback (a link of 20 ms carries 60 MB/s in one stream).
WINDOW_BYTES = 1280 * 1024
STREAMS_MAX = 64  # of one connection; a participant needs a handful
CONNECTIONS_MAX = 4096  # four for each of the most members that a job has; and never more than half of our open files
HANDSHAKE_S = 10  # from TCP's handshake to TLS's, and again to HTTP/2's settings: two minutes each unless it is said
IDLE_S = 120  # a connection without a call; who comes back to call again dials again
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", CONTROL_MAX_BYTES),
    ("grpc.max_send_message_length", LISTING_MAX_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    # Who connects and then says nothing holds a file and some memory: not for long, and not any number of them.
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_S * 1000),
    ("grpc.http2.settings_timeout", HANDSHAKE_S * 1000),
    ("grpc.max_connection_idle_ms", IDLE_S * 1000),
    # A dead TCP peer goes away also when it is in the middle of a transfer, where there are no heartbeats.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A participant pings through firewalls that forget idle flows; it may, at any rate that is not an attack.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # A second coordinator on the same port would get half of the connections.
    ("grpc.so_reuseport", 0),
)

_log = structlog.get_logger(__name__)


class Incoming:
    """A caller's messages; ends where the caller ended them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        """The next message, or None at the end."""
        message: object = await self._context.read()
        return message if isinstance(message, bytes) else None


class Stream(Incoming):
    """Both directions."""

    async def write(self, message: bytes) -> None:
        """Returns when the transport took it; waits while the peer does not read."""
        await self._context.write(message)


Unary: TypeAlias = Callable[[Call, bytes], Awaitable[bytes]]
Down: TypeAlias = Callable[[Call, bytes], AsyncIterator[bytes]]
Up: TypeAlias = Callable[[Call, Incoming], Awaitable[bytes]]
Both: TypeAlias = Callable[[Call, Stream], Awaitable[None]]
Handlers: TypeAlias = Mapping[str, Callable[..., Any]]
"""Method name to handler, of the shape that the method has on the wire."""


class CoordinatorServer:
    """Listens, once started."""

    def __init__(
        self,
        *,
        services: Mapping[str, Handlers],
        wall: Wall,
        tls: TlsPaths,
        addresses: Sequence[str],
    ) -> None:
        """`services` by name, such as `SessionService`; it will listen on all of the addresses. Raises RuntimeError
        when the services do not fit the wire.
        """
        # gRPC counts the connections of each listening socket by itself.
        share = max(1, _connections_max() // len(addresses))
        self._server = aio.server(options=[*OPTIONS, ("grpc.max_allowed_incoming_connections", share)])
        self._addresses = addresses
        self._tls = tls
        self._wall = wall
        for handler in bind(services, wall):
            self._server.add_generic_rpc_handlers((handler,))

    async def start(self) -> tuple[str, ...]:
        """Listen. Returns the addresses with the ports that port 0 became. Raises ConfigError."""
        bound = []
        for address in self._addresses:
            credentials = server_credentials(self._tls)  # those of one address are of no use to gRPC for another
            try:
                port = self._server.add_secure_port(address, credentials)
            except RuntimeError:
                port = 0
            if not port:
                raise ConfigError(
                    f"coordinator.listen: cannot listen on {address}: another process has the port, "
                    "or the host is not one of this machine"
                )
            bound.append(f"{address.rpartition(':')[0]}:{port}")
        await self._server.start()
        return tuple(bound)

    async def stop(self, *, grace_s: float) -> None:
        """Refuse new calls and end bulk streams at once; cut what is still open after the grace."""
        self._wall.cut_transfers()
        await self._server.stop(grace_s)


def bind(services: Mapping[str, Handlers], wall: Wall) -> list[grpc.GenericRpcHandler]:
    """Handlers for every method of the wire."""
    _require_equal("services", {service.name for service in SERVICES}, set(services))
    methods = {path_of(method) for service in SERVICES for method in offered(service)}
    _require_equal("methods in the authorization matrix", methods, set(MATRIX))
    return [_bind_service(service, services[service.name], wall) for service in SERVICES]


def offered(service: ServiceDescriptor) -> Sequence[MethodDescriptor]:
    """The methods of a service that have a handler here; gRPC answers UNIMPLEMENTED to any other."""
    return [method for method in service.methods if path_of(method) not in NOT_OFFERED]


def path_of(method: MethodDescriptor) -> str:
    """As HTTP/2 has it: /consilo.v1.SessionService/Session."""
    return f"/{method.containing_service.full_name}/{method.name}"


def _bind_service(service: ServiceDescriptor, handlers: Handlers, wall: Wall) -> grpc.GenericRpcHandler:
    methods = offered(service)
    _require_equal(f"handlers of {service.name}", {method.name for method in methods}, set(handlers))
    return grpc.method_handlers_generic_handler(
        service.full_name, {method.name: _bind(method, handlers[method.name], wall) for method in methods}
    )


def _bind(method: MethodDescriptor, handler: Callable[..., Any], wall: Wall) -> grpc.RpcMethodHandler[bytes, bytes]:
    path = path_of(method)
    match (method.client_streaming, method.server_streaming):
        case (False, False):
            return grpc.unary_unary_rpc_method_handler(_unary(path, handler, wall))
        case (False, True):
            return grpc.unary_stream_rpc_method_handler(_down(path, handler, wall))
        case (True, False):
            return grpc.stream_unary_rpc_method_handler(_up(path, handler, wall))
        case _:
            return grpc.stream_stream_rpc_method_handler(_both(path, handler, wall))


# gRPC's types want plain functions; its asyncio server takes coroutine functions, and with them `context.write`, so
# that a cancelled call ends inside our own `finally` blocks and not in a forgotten generator.


def _unary(path: str, handler: Unary, wall: Wall) -> Any:
    async def unary(request: bytes, context: Context) -> bytes:
        async with wall.admit(path, context) as call:
            return await handler(call, request)
        raise AssertionError("a refused call is aborted")

    return unary


def _down(path: str, handler: Down, wall: Wall) -> Any:
    async def down(request: bytes, context: Context) -> None:
        async with wall.admit(path, context) as call, aclosing(handler(call, request)) as frames:  # type: ignore[type-var] # handlers are generators
            async for frame in frames:
                await context.write(frame)

    return down


def _up(path: str, handler: Up, wall: Wall) -> Any:
    async def up(_requests: object, context: Context) -> bytes:
        async with wall.admit(path, context) as call:
            return await handler(call, Incoming(context))
        raise AssertionError("a refused call is aborted")

    return up


def _both(path: str, handler: Both, wall: Wall) -> Any:
    async def both(_requests: object, context: Context) -> None:
        async with wall.admit(path, context) as call:
            await handler(call, Stream(context))

    return both


def _connections_max() -> int:
    """In all; what is left over is for the updates of a round, which are open files too."""
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if open_files == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, open_files // 2)


def _require_equal(what: str, expected: set[str], found: set[str]) -> None:
    if expected != found:
        missing, stale = sorted(expected - found), sorted(found - expected)
        raise RuntimeError(f"{what}: missing {missing}, without a place on the wire {stale}")
