"""promtool's word on the rules and on their unit tests, which can fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.containers.engine import Container, EngineError, built, container, docker
from tests.support.rules import PROMETHEUS, RULE_FILES, TEST_FILES

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

HERE = "/tmp/prometheus"
TEST = ("promtool", "test", "rules")
LIMIT_S = 500.0  # the rules over days take seconds on a machine that does nothing else


@pytest.fixture(scope="module")
def promtool() -> Iterator[Container]:
    """A container that has promtool, and the folder in it."""
    with container(built("prometheus"), "infinity", options=["--entrypoint", "sleep"]) as running:
        docker("cp", str(PROMETHEUS), f"{running.name}:{HERE}")
        yield running


def test_the_configuration_and_the_rules_are_taken(promtool: Container) -> None:
    assert "SUCCESS" in promtool.execute("promtool", "check", "config", f"{HERE}/prometheus.yml")
    assert "SUCCESS" in promtool.execute(
        "promtool", "check", "rules", *(f"{HERE}/rules/{path.name}" for path in RULE_FILES)
    )


@pytest.mark.parametrize("name", [path.name for path in TEST_FILES])
def test_alerts_fire_end_and_leave_their_neighbours_alone(promtool: Container, name: str) -> None:
    assert "SUCCESS" in promtool.execute(*TEST, f"{HERE}/tests/{name}", limit_s=LIMIT_S)


@pytest.mark.parametrize(
    ("name", "said", "instead"),
    [
        ("members.yml", "participant_connected == 0", "participant_connected == 2"),
        ("members.yml", "for: 10m", "for: 0m"),
        ("rounds.yml", "round_deadline_time_seconds > 300", "round_phase_start_time_seconds > 300"),
        ("rounds.yml", 'reason!~"operator|restored"', 'reason!~"restored"'),
        ("model.yml", "and on (instance, job) job:consilo_round_open:max5m == 1", ""),
        ("days.yml", 'certificate!="ca"', 'certificate="ca"'),
    ],
)
def test_a_rule_that_says_something_else_fails_its_test(
    promtool: Container, name: str, said: str, instead: str
) -> None:
    rules = (PROMETHEUS / "rules" / "consilo.yml").read_text(encoding="utf-8")
    assert said in rules
    broken = rules.replace(said, instead)
    script = (
        f"mkdir -p {HERE}-broken/rules && cp -r {HERE}/tests {HERE}-broken && cat > {HERE}-broken/rules/consilo.yml"
    )
    promtool.execute("python", "-c", _writing(script, broken))
    with pytest.raises(EngineError, match="FAILED"):
        promtool.execute(*TEST, f"{HERE}-broken/tests/{name}", limit_s=LIMIT_S)


def _writing(script: str, text: str) -> str:
    """A line of Python that runs a shell's script with this as its input."""
    return f"import subprocess; subprocess.run({script!r}, shell=True, check=True, input={text!r}, text=True)"
