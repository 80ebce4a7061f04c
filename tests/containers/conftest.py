"""What holds for every test with an engine: a failure shows what its containers said, and nothing of a run stays."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.containers.engine import remove_leftovers, said_by_all
from tests.containers.federation import PROJECT

OF_COMPOSE = f"com.docker.compose.project={PROJECT}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"{name} said", said) for name, said in said_by_all()]
    return report


@pytest.fixture(autouse=True, scope="session")
def _nothing_stays() -> Iterator[None]:
    remove_leftovers(OF_COMPOSE)
    yield
    remove_leftovers(OF_COMPOSE)
