"""What a refused or broken call means to a participant."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from participant.rpc.channel import error_of
from shared.errors import (
    ConflictError,
    FederationError,
    IdentityError,
    LateError,
    PeerError,
    UnknownError,
    UnreachableError,
)
from shared.wire.status import ERROR_METADATA_KEY, STATUS


def failure(code: grpc.StatusCode, name: str | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(*([(ERROR_METADATA_KEY, name)] if name else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details="what happened")


@pytest.mark.parametrize(
    ("name", "leaf"), [("ConflictError", ConflictError), ("LateError", LateError), ("UnknownError", UnknownError)]
)
def test_what_the_coordinator_names_is_what_it_is(name: str, leaf: type[FederationError]) -> None:
    assert type(error_of(failure(grpc.StatusCode.FAILED_PRECONDITION, name), address="there")) is leaf


OTHERS = [leaf.__name__ for leaf in STATUS if not issubclass(leaf, PeerError)]


@pytest.mark.parametrize("name", OTHERS)
def test_trouble_of_the_coordinators_own_is_never_ours(name: str) -> None:
    """Whatever leaf it names: an error of our disk, configuration or task is raised here or nowhere."""
    assert type(error_of(failure(grpc.StatusCode.UNAVAILABLE, name), address="there")) is UnreachableError


def test_without_a_name_the_status_decides() -> None:
    assert type(error_of(failure(grpc.StatusCode.UNAVAILABLE), address="there")) is UnreachableError
    assert type(error_of(failure(grpc.StatusCode.INTERNAL, "NoSuchLeaf"), address="there")) is UnreachableError
    assert type(error_of(failure(grpc.StatusCode.PERMISSION_DENIED), address="there")) is IdentityError
