"""What holds for every test: how hypothesis draws, which tests are long or need an engine, that no secret reaches a
log, and that this machine's proxy is nobody's.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from io import TextIOBase
from pathlib import Path
from typing import TextIO, cast

import pytest
import structlog
from hypothesis import settings

from shared.log import configure_logging
from shared.proxies import ADDRESS_VARIABLE, EXCEPTION_VARIABLES, PROXY_VARIABLES
from tests.containers.engine import require_engine

CONTAINERS = Path(__file__).resolve().parent / "containers"

# No deadline, because a shared machine has slow moments and these are no failures; no database of failures, because
# what was found is kept as a literal example in the test.
settings.register_profile("here", deadline=None, database=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked `long` as well")
    parser.addoption(
        "--containers", action="store_true", help="collect tests/containers, which needs a container engine"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--containers"):
        require_engine()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without the option the folder is not there at all: a list of skipped tests would read like one that passed."""
    return True if collection_path == CONTAINERS and not config.getoption("--containers") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="long: `make test-long` runs it")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


class _CurrentStderr(TextIOBase):
    """Standard error as it is when a line is written: each test has its own."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)


@pytest.fixture(autouse=True)
def _secrets_in_logs_fail_the_test() -> Iterator[None]:
    configure_logging(style="json", level="debug", stream=cast(TextIO, _CurrentStderr()), on_leak="raise")
    yield
    structlog.contextvars.clear_contextvars()


@pytest.fixture(autouse=True, scope="session")
def _no_proxy_of_this_machine() -> Iterator[None]:
    """Not for those who dial here, nor for the processes that they start; also not in capitals, which urllib reads."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*PROXY_VARIABLES, *EXCEPTION_VARIABLES, ADDRESS_VARIABLE, "all_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _core_limit_of_the_tests_stays() -> Iterator[None]:
    """Commands that run in the tests' own process would lower it for good: `test_dumps` looks at it in processes of
    their own.
    """
    lower = resource.setrlimit

    def spared(which: int, limits: tuple[int, int]) -> None:
        if which != resource.RLIMIT_CORE:
            lower(which, limits)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resource, "setrlimit", spared)
        yield
