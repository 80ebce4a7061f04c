"""Every metric that a dashboard, a rule or the guide names is there when both sides of a live federation are scraped,
with the labels that they ask for; one that is renamed is missed.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.support.dashboards import FILES, expressions, read
from tests.support.guide import queries
from tests.support.promql import OF_PROMETHEUS, asked, complaints
from tests.support.rules import rules, with_recorded
from tests.support.scrape import Scrape, live_scrapes

pytestmark = pytest.mark.cluster

Samples = Mapping[str, frozenset[str]]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Of every sample of both sides its labels, in the middle of a round."""
    return labels_of(*live_scrapes(tmp_path_factory.mktemp("live")).values())


def labels_of(*pages: Scrape) -> Samples:
    return {name: frozenset(page.labels(name)) for page in pages for name in page.samples}


def named() -> dict[str, str]:
    """Every expression, by where it stands."""
    found = {
        f"{rule.get('alert') or rule['record']}, rule {number}": rule["expr"] for number, rule in enumerate(rules())
    }
    for path in FILES:
        found |= {f"{path.stem}: {where}": expression for where, expression in expressions(read(path))}
    return found | {f"guide: {query}": query for query in queries()}


NAMED = named()


def missed(samples: Samples) -> dict[str, list[str]]:
    """What is asked for in vain, by who asks."""
    known = with_recorded(dict(samples))
    found = {where: complaints(expression, known) for where, expression in NAMED.items()}
    return {where: said for where, said in found.items() if said}


def test_all_that_is_asked_for_is_in_a_scrape(scraped: Samples) -> None:
    assert missed(scraped) == {}


def test_whatever_is_renamed_is_missed(scraped: Samples) -> None:
    asked_for = {name for expression in NAMED.values() for name in asked(expression).selected} - OF_PROMETHEUS.keys()
    in_scrapes = {name for name in asked_for if not name.startswith(("job:", "instance:"))}
    assert len(in_scrapes) > 60
    for name in in_scrapes:
        renamed = {f"{other}_renamed" if other == name else other: labels for other, labels in scraped.items()}
        assert f"no metric {name}" in {said for each in missed(renamed).values() for said in each}
