"""The messages of grpc.health.v1, read and written; both the service and the command that asks it use them.

They are not of this project's wire, so they are not in `shared.wire`; like it, this module is where limits are.
"""

from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped] # its stubs are not marked as such

from shared.errors import WireError

HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]
LIVENESS = ""  # as the protocol has it, the empty name asks for the server as a whole
READINESS = "consilo.readiness"
SERVICE_MAX_CHARS = 100

SERVING: int = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def encode_health_check(service: str) -> bytes:
    return bytes(health_pb2.HealthCheckRequest(service=service).SerializeToString())


def decode_health_check(data: bytes) -> str:
    """Which service is asked for. Raises WireError."""
    request = health_pb2.HealthCheckRequest()
    try:
        request.ParseFromString(data)
    except DecodeError:
        raise WireError("expected a HealthCheckRequest, got bytes that are none") from None
    if len(request.service) > SERVICE_MAX_CHARS:
        raise WireError(f"expected a service's name of at most {SERVICE_MAX_CHARS} characters")
    return str(request.service)


def encode_health(status: int) -> bytes:
    return bytes(health_pb2.HealthCheckResponse(status=status).SerializeToString())


def decode_health(data: bytes) -> bool:
    """Whether the service that was asked for serves. Raises WireError."""
    response = health_pb2.HealthCheckResponse()
    try:
        response.ParseFromString(data)
    except DecodeError:
        raise WireError("expected a HealthCheckResponse, got bytes that are none") from None
    return bool(response.status == SERVING)
