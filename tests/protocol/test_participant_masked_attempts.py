"""What a participant does not believe of an announcement and of a roster of keys in a masked round.

It does not take part, or leaves the attempt, and says by which check. PROTOCOL.md sections 5.6 and 5.11.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from participant.round.attempts import known_checkpoints
from participant.round.effects import (
    AttemptAnnounced,
    RosterCame,
    WorkDone,
)
from participant.round.machine import accept
from participant.round.phases import Shared
from shared.errors import ConflictError
from shared.ids import AttemptKey, AttemptNumber, RoundKey, RoundNumber
from shared.protocol.messages import (
    AdvertiseKeys,
    Checkpoint,
    CheckpointKind,
    Envelope,
)
from shared.protocol.phases import Phase
from shared.reasons import AttemptAbortReason, Purpose
from shared.update import Encoding
from shared.wire.sealed import seal
from tests.support.masked_cohort import CELLS, NOBODY, Cohort, MaskedSilo, changed, leaves
from tests.support.rounds import JOB, MEMBERS, A, B, C, commit_of, key_of, layout, manifest_of, spooled

LOW_ORDER = bytes(32)
NOT_CANONICAL = (2**255 - 19 + 9).to_bytes(32, "little")
TOP_BIT = bytes(31) + b"\x80"


# --- row 0: the announcement ------------------------------------------------------------------------------------------

CHANGED: dict[str, Any] = {
    "version": {"version": 2},
    "suite": {"suite": 2},
    "round": {"key": AttemptKey(RoundKey(JOB, RoundNumber(2)), AttemptNumber(1))},
    "purpose": {"purpose": Purpose.EVALUATE},
    "plan": {"plan": NOBODY},
    "job specification": {"jobspec": NOBODY},
    "consortium": {"consortium": NOBODY.raw},
    "no consortium": {"consortium": b""},
    "model": {"model": NOBODY},
    "previous result": {"previous_result": NOBODY},
    "members": {"members": MEMBERS[:3]},
    "assumption on collusion": {"max_colluding": 0},
    "layout": {"layout": layout(Purpose.TRAIN, Encoding.U32).digest},
    "encoding": {"encoding": Encoding.U32},
    "plain encoding": {"encoding": Encoding.PLAIN},
    "exchange deadline": {"exchange_deadline_s": 1.0},
    "upload deadline": {"upload_deadline_s": 1.0},
}


@pytest.mark.parametrize("field", CHANGED)
def test_an_announcement_that_differs_from_what_the_silo_knows_is_not_followed(field: str) -> None:
    cohort = Cohort().to(Phase.READY)
    before = cohort.me.state
    lines = cohort.me.hear(AttemptAnnounced(cohort.start(**CHANGED[field])))
    assert lines == ["alarm bad_attempt", "say abort: bad_attempt"]
    assert cohort.me.state is before


@pytest.mark.parametrize("phase", [Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED])
def test_a_higher_attempt_that_differs_ends_the_one_before_it(phase: Phase) -> None:
    cohort = Cohort().to(phase)
    stop = ["stop"] if phase is Phase.UPLOADING else []
    lines = cohort.me.hear(AttemptAnnounced(cohort.start(2, max_colluding=0)))
    assert lines == [*stop, "alarm bad_attempt", "say abort: bad_attempt"]
    assert cohort.me.is_in(Phase.READY)


def test_a_higher_attempt_that_differs_is_refused_after_the_signature() -> None:
    cohort = Cohort().to(Phase.FIXED)
    cohort.me.refuses(AttemptAnnounced(cohort.start(2, max_colluding=0)), ConflictError, "assumption on collusion")
    cohort.me.refuses(AttemptAnnounced(cohort.start(upload_deadline_s=1.0)), ConflictError, "announced before")


@pytest.mark.parametrize("phase", [Phase.ADVERTISING, Phase.SHARING, Phase.UPLOADING, Phase.COMMITTED])
def test_two_announcements_of_one_attempt_are_equivocation(phase: Phase) -> None:
    cohort = Cohort().to(phase)
    other = AttemptAnnounced(cohort.start(upload_deadline_s=1.0))
    leaves(cohort, other, AttemptAbortReason.EQUIVOCATION, "announced before with other content")


def test_two_announcements_are_equivocation_also_for_one_that_left_the_attempt() -> None:
    cohort = Cohort().to(Phase.ADVERTISING)
    cohort.me.hear(AttemptAnnounced(cohort.start(upload_deadline_s=1.0)))
    lines = cohort.me.hear(AttemptAnnounced(cohort.start(upload_deadline_s=2.0)))
    assert lines == ["alarm equivocation", "say abort: equivocation"]


def test_a_lower_attempt_is_refused_and_more_than_the_job_allows_are_not_followed() -> None:
    cohort = Cohort().to(Phase.ADVERTISING)
    cohort.all_announced(2)
    cohort.me.refuses(AttemptAnnounced(cohort.start(1)), ConflictError, "comes after attempt 2")
    assert cohort.me.hear(AttemptAnnounced(cohort.start(3))) == ["alarm bad_attempt", "say abort: bad_attempt"]
    cohort.me.refuses(AttemptAnnounced(cohort.start(1)), ConflictError, "comes after attempt 2")


@pytest.mark.parametrize("pinned", [None, manifest_of(A, B, C)])
def test_every_member_is_in_the_manifest_that_this_silo_pinned(pinned: Any) -> None:
    cohort = Cohort()
    offer = replace(cohort.me.offer, consortium=pinned)
    silo = MaskedSilo(offer, A, accept(offer))
    silo.hear(WorkDone(cohort.update))
    start = cohort.start(consortium=b"" if pinned is None else pinned.digest.raw)
    assert silo.hear(AttemptAnnounced(start)) == ["alarm bad_attempt", "say abort: bad_attempt"]


def test_the_encoding_may_change_once_to_u64_and_never_back() -> None:
    cohort = Cohort(number=2, after=CELLS).to(Phase.ADVERTISING)
    wide = AttemptAnnounced(cohort.start(2, encoding=Encoding.U64))
    assert cohort.me.hear(wide) == ["record attempt 2", "say advertise_keys"]
    cohort = Cohort(number=2, after=CELLS, attempts=3).to(Phase.READY)
    cohort.me.hear(AttemptAnnounced(cohort.start(1, encoding=Encoding.U64)))
    back = AttemptAnnounced(cohort.start(2, encoding=Encoding.U32))
    assert cohort.me.hear(back) == ["alarm bad_attempt", "say abort: bad_attempt"]
    assert cohort.me.hear(back) == ["alarm bad_attempt", "say abort: bad_attempt"], "also once it left"


@pytest.mark.parametrize("why", [{"update": spooled(cells=CELLS, fits=False)}, {"misses": 3}])
def test_a_silo_that_said_that_its_update_does_not_fit_follows_u64_alone(why: dict[str, Any]) -> None:
    cohort = Cohort(number=2, after=CELLS, **why).to(Phase.READY)
    narrow, wide = (AttemptAnnounced(cohort.start(encoding=encoding)) for encoding in (Encoding.U32, Encoding.U64))
    assert cohort.me.hear(narrow) == ["alarm bad_attempt", "say abort: bad_attempt"]
    assert cohort.me.hear(wide) == ["record attempt 1", "say advertise_keys"]


def test_a_previous_result_of_another_model_scales_nothing() -> None:
    cohort = Cohort(number=2, after=(1, 2)).to(Phase.READY)
    assert cohort.me.hear(AttemptAnnounced(cohort.start())) == ["alarm bad_attempt", "say abort: bad_attempt"]


# --- row 2: the roster ------------------------------------------------------------------------------------------------


def advert(**fields: Any) -> Callable[[Cohort], RosterCame]:
    """A roster in which member 2 says something else, under its own signature."""

    def make(cohort: Cohort) -> RosterCame:
        said = [*cohort.said(AdvertiseKeys)]
        said[1] = cohort.resealed(AdvertiseKeys, 2, **{name: of(cohort) for name, of in fields.items()})
        return changed(cohort.roster(), adverts=tuple(said))

    return make


def with_advert(place: int, make: Callable[[Cohort], Envelope]) -> Callable[[Cohort], RosterCame]:
    def roster(cohort: Cohort) -> RosterCame:
        said = [*cohort.said(AdvertiseKeys)]
        said[place - 1] = make(cohort)
        return changed(cohort.roster(), adverts=tuple(said))

    return roster


def of_stranger(cohort: Cohort) -> Envelope:
    """Keys of member 2, signed by somebody who has another key than the manifest says."""
    value = cohort.advert(2)
    return seal(value, signer=key_of("mallory"), index=2).envelope


ROSTERS: dict[str, tuple[Callable[[Cohort], RosterCame], str]] = {
    "below the threshold": (lambda cohort: cohort.roster(1, 2), "2 members advertised keys, expected 3"),
    "without mine": (lambda cohort: cohort.roster(2, 3, 4), "without this participant's own word"),
    "mine altered": (
        with_advert(1, lambda cohort: cohort.resealed(AdvertiseKeys, 1, nonce=bytes(32))),
        "another word of this participant",
    ),
    "signed by a stranger": (with_advert(2, of_stranger), "not made by the expected key"),
    "altered after signing": (
        with_advert(
            2, lambda cohort: replace(cohort.said(AdvertiseKeys)[1], payload=cohort.said(AdvertiseKeys)[2].payload)
        ),
        "not made by the expected key",
    ),
    "another kind of word": (
        with_advert(2, lambda cohort: commit_of(B, cohort.start())[0]),
        "not made by the expected key",
    ),
    "index is not the signer": (advert(index=lambda _: 3), "says it is of member 3"),
    "index outside the cohort": (
        with_advert(2, lambda cohort: replace(cohort.said(AdvertiseKeys)[1], signer=5)),
        "but the job has 4",
    ),
    "the coordinator as a member": (
        with_advert(2, lambda cohort: replace(cohort.said(AdvertiseKeys)[1], signer=0)),
        "member 0",
    ),
    "one member twice": (with_advert(2, lambda cohort: cohort.said(AdvertiseKeys)[2]), "two words of member 3"),
    "another attempt": (advert(attempt=lambda _: NOBODY), "about another attempt"),
    "mask key of another": (advert(mask_key=lambda cohort: cohort.advert(3).mask_key), "advertised twice"),
    "share key of another": (advert(share_key=lambda cohort: cohort.advert(1).share_key), "advertised twice"),
    "one key for both": (advert(share_key=lambda cohort: cohort.advert(2).mask_key), "advertised twice"),
    "mask key used to share": (advert(mask_key=lambda cohort: cohort.advert(4).share_key), "advertised twice"),
    "mask key of low order": (advert(mask_key=lambda _: LOW_ORDER), "low order"),
    "share key of low order": (advert(share_key=lambda _: LOW_ORDER), "low order"),
    "mask key not canonical": (advert(mask_key=lambda _: NOT_CANONICAL), "not the canonical spelling"),
    "share key with its top bit": (advert(share_key=lambda _: TOP_BIT), "top bit"),
}


@pytest.mark.parametrize("case", ROSTERS)
def test_a_roster_that_does_not_hold_ends_the_attempt(case: str) -> None:
    make, why = ROSTERS[case]
    cohort = Cohort().to(Phase.ADVERTISING)
    leaves(cohort, make(cohort), AttemptAbortReason.BAD_ROSTER, why)


def test_a_roster_without_somebody_is_followed() -> None:
    cohort = Cohort().to(Phase.ADVERTISING)
    assert cohort.me.hear(cohort.roster(1, 3, 4)) == ["say share_keys"]
    assert isinstance(cohort.me.state, Shared)
    assert tuple(cohort.me.state.roster) == (1, 3, 4)
    assert [share.holder for share in cohort.me.state.shares] == [1, 3, 4]


def test_the_threshold_is_that_of_the_members_and_not_of_who_is_there() -> None:
    cohort = Cohort(members=tuple(f"hospital-{letter}" for letter in "abcdefg")).to(Phase.ADVERTISING)
    assert cohort.spec.threshold == 5
    leaves(cohort, cohort.roster(1, 2, 3, 4), AttemptAbortReason.BAD_ROSTER, "4 members advertised keys, expected 5")


def test_two_histories_end_the_attempt() -> None:
    theirs = Checkpoint(CheckpointKind.CHAIN, 1, NOBODY)
    cohort = Cohort(number=2, after=CELLS).to(Phase.ADVERTISING)
    mine = known_checkpoints(cohort.me.offer)[0]
    assert cohort.advert(1).checkpoint == mine, "the result that the plan carries"
    assert (mine.size, mine.kind) == (1, CheckpointKind.CHAIN)
    other = advert(checkpoint=lambda _: theirs)(cohort)
    leaves(cohort, other, AttemptAbortReason.BAD_ROSTER, "two histories")


def test_two_histories_of_others_end_the_attempt() -> None:
    cohort = Cohort().to(Phase.ADVERTISING)
    assert cohort.advert(1).checkpoint is None, "before the first result"
    said = [*cohort.said(AdvertiseKeys)]
    for place, root in ((1, NOBODY), (2, replace(NOBODY, raw=bytes(32)))):
        point = Checkpoint(CheckpointKind.CHAIN, 7, root)
        said[place] = cohort.resealed(AdvertiseKeys, place + 1, checkpoint=point)
    leaves(cohort, changed(cohort.roster(), adverts=tuple(said)), AttemptAbortReason.BAD_ROSTER, "two histories")


def test_checkpoints_of_different_sizes_are_no_contradiction() -> None:
    cohort = Cohort(number=3, after=CELLS).to(Phase.ADVERTISING)
    older = Checkpoint(CheckpointKind.CHAIN, 1, NOBODY)
    assert cohort.me.hear(advert(checkpoint=lambda _: older)(cohort)) == ["say share_keys"]


def test_a_second_roster_with_other_content_is_equivocation() -> None:
    for indexes in ((1, 2, 3), (1, 2, 3, 3)):
        cohort = Cohort().to(Phase.SHARING)
        leaves(cohort, cohort.roster(*indexes), AttemptAbortReason.EQUIVOCATION, "second roster")
