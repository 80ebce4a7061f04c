"""An operator's commands, and the service that they reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.credentials import Consortium
from tests.support.fake_operations import FakeOperations, Listening
from tests.support.operator_commands import write_config


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("consortium"))


@pytest.fixture
def fake() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def listening(consortium: Consortium, fake: FakeOperations) -> Iterator[Listening]:
    with Listening(fake, consortium.coordinator().tls) as service:
        yield service


@pytest.fixture
def config(consortium: Consortium, listening: Listening, tmp_path: Path) -> Path:
    return write_config(tmp_path, consortium, f"127.0.0.1:{listening.port}")
