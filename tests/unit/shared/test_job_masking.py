"""The rules of a masked job, each with what it says: submitters and silos are held to them alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.errors import WireError
from shared.ids import ParticipantId
from shared.job import (
    MASKED_MEMBERS_MAX,
    NEEDS_EACH_UPDATE,
    JobSpec,
    MaskingSpec,
    RoundPolicy,
    StrategySpec,
    canonical_json,
    parse_jobspec,
)
from shared.secagg.threshold import default_max_colluding, threshold
from shared.update import Encoding

MODES = ("masked", "plain")


def names(members: int) -> tuple[ParticipantId, ...]:
    return tuple(ParticipantId(f"hospital-{number:04}") for number in range(members))


def tables(
    members: int = 4,
    *,
    masking: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
    strategy: str = "fedavg",
) -> dict[str, Any]:
    """A job that says everything, as it may come from anybody: not yet held to a rule."""
    colluding = default_max_colluding(members) if members > 1 else 0
    return {
        "version": 1,
        "name": "heart",
        "task": "heart",
        "members": list(names(members)),
        "rounds": 10,
        "seed": 42,
        "initial": "0" * 64,
        "metrics": ["loss"],
        "round": RoundPolicy(quorum=members, min_survivors=min(3, members)).model_dump() | (policy or {}),
        "strategy": {"name": strategy},
        "masking": MaskingSpec(max_colluding=colluding).model_dump() | (masking or {}),
        "training": {},
    }


def made(told: dict[str, Any]) -> JobSpec:
    """The same, as the submitter makes it."""
    return JobSpec(
        **told
        | {
            "members": tuple(told["members"]),
            "metrics": tuple(told["metrics"]),
            "round": RoundPolicy(**told["round"]),
            "strategy": StrategySpec(**told["strategy"]),
            "masking": MaskingSpec(**told["masking"]),
        }
    )


# members, [masking], [round], strategy -> what is said.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one member": (tables(1), "a masked job has at least 2 members: with one, the total is the update"),
    "two members": (
        tables(2),
        "with 2 members each learns the other's update from the total: more members, or masking.allow_two_party",
    ),
    "two members, one of whom colludes": (
        tables(2, masking={"allow_two_party": True, "max_colluding": 1}),
        "masking.max_colluding is 1 of 2 members: at least 2 must be left who do not collude",
    ),
    "nobody colludes": (
        tables(3, masking={"max_colluding": 0}),
        (
            "masking.max_colluding is 0: one member could help the coordinator to another's update; "
            "leave the key out, or set masking.allow_no_collusion"
        ),
    ),
    "two may be alone, and nobody colludes": (
        tables(3, masking={"max_colluding": 0, "allow_two_party": True}),
        "masking.max_colluding is 0: one member could help",
    ),
    "all but one collude": (
        tables(4, masking={"max_colluding": 3}),
        "masking.max_colluding is 3 of 4 members: at least 2 must be left who do not collude",
    ),
    "more collude than there are": (tables(4, masking={"max_colluding": 99}), "masking.max_colluding is 99 of 4"),
    "a total over two": (
        tables(4, policy={"min_survivors": 2}),
        "round.min_survivors is 2, a masked total is over at least 3",
    ),
    "a total over one": (
        tables(2, masking={"allow_two_party": True}, policy={"min_survivors": 1}),
        "round.min_survivors is 1, a masked total is over at least 2",
    ),
    "a quorum below the threshold": (
        tables(5, policy={"quorum": 3}),
        "round.quorum is 3, but 4 of 5 members are needed to open a total (masking.max_colluding is 1)",
    ),
    "a quorum below a raised threshold": (
        tables(10, masking={"max_colluding": 8}, policy={"quorum": 9}),
        "round.quorum is 9, but 10 of 10 members are needed to open a total (masking.max_colluding is 8)",
    ),
    "totals of metrics beyond 64 bits": (
        tables(4, masking={"metric_bound": 2.0**20}),
        (
            "the totals of metrics of 4 members could overflow: lower masking.max_weight (16777216.0) or "
            "masking.metric_bound (1048576.0)"
        ),
    ),
    "totals of weights beyond 64 bits": (
        tables(4, masking={"max_weight": 2.0**32}),
        "the totals of metrics of 4 members could overflow: lower masking.max_weight (4294967296.0)",
    ),
    "too many": (tables(201), "a masked job has at most 200 members, got 201"),
    **{
        f"{rule} under masking": (
            tables(9, strategy=rule),
            f"strategy.name '{rule}' must see each update, and masking hides them: this version has 'fedavg'",
        )
        for rule in sorted(NEEDS_EACH_UPDATE)
    },
    "an unknown strategy under masking": (
        tables(strategy="fedprox"),
        "strategy.name: this version has 'fedavg', not 'fedprox'",
    ),
    "an unknown strategy in the open": (
        tables(strategy="fedprox", masking={"mode": "plain", "max_colluding": 0}),
        "strategy.name: this version has 'fedavg', not 'fedprox'",
    ),
    **{
        f"{rule} in the open": (
            tables(strategy=rule, masking={"mode": "plain", "max_colluding": 0}),
            f"strategy.name: this version has 'fedavg', not '{rule}'",  # it could be had there, but is not yet
        )
        for rule in sorted(NEEDS_EACH_UPDATE)
    },
    "collusion in the open": (
        tables(masking={"mode": "plain"}),
        "masking.max_colluding means nothing in a plain job: expected 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_every_silo_refuses_it(case: str) -> None:
    told, complaint = REFUSED[case]
    with pytest.raises(WireError) as caught:
        parse_jobspec(canonical_json(told))
    assert str(caught.value).startswith("not a job specification: ")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
def test_it_cannot_even_be_made(case: str) -> None:
    told, complaint = REFUSED[case]
    with pytest.raises(ValidationError) as caught:
        made(told)
    assert complaint in str(caught.value)


ALLOWED: dict[str, tuple[dict[str, Any], int, int]] = {
    "two who allow it": (tables(2, masking={"allow_two_party": True}), 2, 2),
    "three": (tables(3), 3, 3),
    "three who trust each other": (tables(3, masking={"max_colluding": 0, "allow_no_collusion": True}), 2, 3),
    "three who trust each other and may be two": (
        tables(
            3,
            masking={"max_colluding": 0, "allow_no_collusion": True, "allow_two_party": True},
            policy={"min_survivors": 2, "quorum": 2},
        ),
        2,
        2,
    ),
    "four, of whom one may be missing": (tables(4, policy={"quorum": 3}), 3, 3),
    "ten who expect the worst": (tables(10, masking={"max_colluding": 8}), 10, 10),
    "a floor above the threshold": (tables(10, policy={"min_survivors": 9}), 7, 9),
    "as many as may be": (tables(MASKED_MEMBERS_MAX), 134, 134),
    "equal weights": (tables(masking={"weights": "equal"}), 3, 3),
}  # fmt: skip


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_allowed_comes_back_with_its_threshold_and_its_floor(case: str) -> None:
    told, needed, floor = ALLOWED[case]
    data = canonical_json(told)
    spec = parse_jobspec(data)
    assert spec.to_bytes() == data == made(told).to_bytes()
    assert (spec.threshold, spec.floor) == (needed, floor)
    assert spec.masking.masked


@pytest.mark.parametrize(("encoding", "profile"), [("u32", Encoding.U32), ("u16", Encoding.U16), ("u64", Encoding.U64)])
def test_the_encoding_of_a_round_whose_range_is_known(encoding: str, profile: Encoding) -> None:
    assert made(tables(masking={"encoding": encoding})).masking.profile is profile
    plain = made(tables(masking={"encoding": encoding, "mode": "plain", "max_colluding": 0}))
    assert plain.masking.profile is Encoding.PLAIN


def test_the_floor_of_a_plain_job_is_what_it_says() -> None:
    """A plain total opens nothing, so there is no threshold to it."""
    plain = {"mode": "plain", "max_colluding": 0}
    assert made(tables(5, masking=plain, policy={"min_survivors": 1, "quorum": 1})).floor == 1
    assert made(tables(1, masking=plain)).floor == 1


@given(members=st.integers(2, MASKED_MEMBERS_MAX), data=st.data())
def test_two_honest_members_are_in_every_total_of_a_job_that_is_taken(members: int, data: st.DataObject) -> None:
    """Whatever a job says, one that passes has `2t > n + c`, a floor above c + 1, and a threshold that can be met."""
    colluding = data.draw(st.integers(0, members))
    told = tables(
        members,
        masking={
            "max_colluding": colluding,
            "allow_no_collusion": data.draw(st.booleans()),
            "allow_two_party": data.draw(st.booleans()),
            "max_weight": 1.0,
        },
        policy={
            "quorum": data.draw(st.integers(1, members)),
            "min_survivors": data.draw(st.integers(1, 4)),
        },
    )
    try:
        spec = parse_jobspec(canonical_json(told))
    except WireError:
        return
    assert 2 * spec.threshold > members + colluding
    assert colluding + 2 <= spec.threshold <= spec.floor <= spec.round.quorum <= members


def test_a_threshold_can_be_met_where_two_do_not_collude() -> None:
    """So the rule on max_colluding is all that a threshold needs."""
    for members in range(2, 120):
        for colluding in range(members - 1):
            assert threshold(members, colluding) <= members
