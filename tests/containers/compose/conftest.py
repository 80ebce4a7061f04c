"""One federation for this folder, in the order of its modules: each leaves it as it found it, training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers.engine import telling
from tests.containers.federation import ComposeFederation, build_images


@pytest.fixture(scope="package")
def federation() -> Iterator[ComposeFederation]:
    build_images()
    this = ComposeFederation()
    try:
        with telling("the federation", this.said):
            this.up()
            yield this
    finally:
        this.remove()
