"""Options of channels and servers are names that gRPC knows: it ignores any other one without a word."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("coordinator/rpc/server.py", "coordinator/client/rpc.py", "participant/rpc/channel.py")
NAMED = re.compile(r'\("(grpc\.[a-z0-9_.]+)",')


def options() -> list[tuple[str, str]]:
    return [(source, name) for source in SOURCES for name in NAMED.findall((ROOT / source).read_text())]


@pytest.fixture(scope="module")
def library() -> bytes:
    found = importlib.util.find_spec("grpc._cython.cygrpc")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_bytes()


def test_there_are_options_to_look_for() -> None:
    assert {source for source, _ in options()} == set(SOURCES)


@pytest.mark.parametrize(("source", "name"), options())
def test_an_option_is_one_that_grpc_knows(source: str, name: str, library: bytes) -> None:
    assert name.encode() in library, f"{source}: gRPC ignores {name!r}"


def test_another_name_is_not_there(library: bytes) -> None:
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms" not in library
