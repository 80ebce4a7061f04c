"""Every error that a peer may hear of has a status, and its name brings it back."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from shared.errors import ConsentRefused, FederationError, RoundAborted
from shared.reasons import AbortReason, ConsentRule
from shared.wire.status import STATUS, error_named, status_of


def leaves(error: type[FederationError] = FederationError) -> Iterator[type[FederationError]]:
    # Only our own tree: a test elsewhere may have made a subclass.
    below = [child for child in error.__subclasses__() if child.__module__ == "shared.errors"]
    if not below:
        yield error
    for child in below:
        yield from leaves(child)


REASONED: dict[type[FederationError], FederationError] = {
    RoundAborted: RoundAborted(AbortReason.OPERATOR, "stopped"),
    ConsentRefused: ConsentRefused(ConsentRule.NOT_A_MEMBER, "no"),
}


def test_every_leaf_has_a_status_and_nothing_else_does() -> None:
    assert set(STATUS) == set(leaves())


def test_every_status_is_one_of_grpc() -> None:
    assert set(STATUS.values()) <= set(grpc.StatusCode.__members__) - {"OK", "UNKNOWN", "INTERNAL"}


@pytest.mark.parametrize("leaf", list(leaves()), ids=lambda leaf: leaf.__name__)
def test_an_error_comes_back_by_its_name(leaf: type[FederationError]) -> None:
    error = REASONED.get(leaf) or leaf("what happened")
    assert status_of(error) == STATUS[leaf]
    named = error_named(type(error).__name__, str(error))
    if leaf in REASONED:
        assert named is None  # its reason does not travel in a message
    else:
        assert type(named) is leaf
        assert str(named) == "what happened"


@pytest.mark.parametrize("name", ["", "FederationError", "PeerError", "RuntimeError", "SystemExit", "__class__"])
def test_a_name_that_is_no_leaf_makes_no_error(name: str) -> None:
    assert error_named(name, "x") is None
