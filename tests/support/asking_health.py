"""A client of grpc.health.v1 made of gRPC's own messages: what an orchestrator would be."""

from __future__ import annotations

from typing import TypeAlias

from grpc import aio
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped] # its stubs are not marked as such

HEALTH = "/grpc.health.v1.Health/"
Watch: TypeAlias = aio.UnaryStreamCall[bytes, bytes]


def request(name: str) -> bytes:
    return bytes(health_pb2.HealthCheckRequest(service=name).SerializeToString())


async def check(channel: aio.Channel, name: str) -> int:
    """The status of a service now."""
    call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{HEALTH}Check")
    return _status_in(await call(request(name)))


def watch(channel: aio.Channel, name: str) -> Watch:
    call: aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"{HEALTH}Watch")
    return call(request(name))


async def told(stream: Watch) -> int:
    """The next status on a watch."""
    frame: object = await stream.read()
    assert isinstance(frame, bytes)
    return _status_in(frame)


def _status_in(answer: bytes) -> int:
    return int(health_pb2.HealthCheckResponse.FromString(answer).status)
