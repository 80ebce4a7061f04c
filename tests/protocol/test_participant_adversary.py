"""Honest participants under a coordinator that says whatever helps it, with one member on its side.

The coordinator and the colluding member are the test: it shows different members different rosters, deliveries, lists
and bundles, in any order, in as many attempts as the job allows, has processes die, and adds the word of its accomplice
to whatever it likes. The others are the real machines over what a journal keeps. Whatever it does, what honest members
reveal opens one total at most in the round, never both seeds of one member, and no total of fewer than the threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from participant.round.effects import (
    AttemptAnnounced,
    BundleCame,
    DeliveryCame,
    Event,
    RecordAttempt,
    RecordOpening,
    RosterCame,
    SurvivorsListed,
    UploadAcknowledged,
)
from participant.round.machine import resume
from participant.round.masking import _open
from participant.round.phases import Confirmed, Masked, Opening, Uploading
from participant.round.transition import Transition
from shared.errors import ConflictError, PeerError
from shared.ids import AttemptKey, AttemptNumber, Digest, ParticipantId
from shared.protocol.messages import (
    AnswerKind,
    AttemptAnswer,
    AttemptStart,
    ConsistencyBundle,
    ConsistencySignature,
    DeliveredShare,
    Envelope,
    KeyRoster,
    Sealed,
    ShareDelivery,
    SurvivorList,
    UnmaskShares,
    attempt_digest,
)
from shared.protocol.phases import Phase
from shared.secagg.sealing import share_paths
from shared.wire.sealed import reopen, seal
from tests.support.masked_cohort import Cohort, MaskedSilo
from tests.support.rounds import commit_of, key_of

ATTEMPTS = 3
COLLUDING = 4  # the member that does as it is told: its machine is honest, and it signs anything besides
HONEST = (1, 2, 3)

Op = tuple[str, int, int, int]
"""What, to whom (a set of members, as bits), about whom (another), in which attempt."""


@dataclass
class Adversary:
    """What the coordinator holds, by attempt."""

    cohort: Cohort = field(default_factory=lambda: Cohort(attempts=ATTEMPTS).to(Phase.READY))
    adverts: dict[int, dict[int, list[Envelope]]] = field(default_factory=lambda: defaultdict(dict))
    words: dict[int, dict[int, list[AttemptAnswer]]] = field(default_factory=lambda: defaultdict(dict))
    commits: dict[int, dict[int, list[Envelope]]] = field(default_factory=lambda: defaultdict(dict))
    signatures: dict[int, list[Envelope]] = field(default_factory=lambda: defaultdict(list))
    revealed: dict[int, list[UnmaskShares]] = field(default_factory=lambda: defaultdict(list))
    recorded: dict[int, Sealed[AttemptStart]] = field(default_factory=dict)
    openings: dict[int, Opening] = field(default_factory=dict)

    def play(self, op: Op) -> None:
        what, to, about, number = op
        members = [index for index in self.cohort.silos if to >> (index - 1) & 1]
        chosen = [index for index in self.cohort.silos if about >> (index - 1) & 1]
        for index in members:
            match what:
                case "announce":
                    self._say(index, AttemptAnnounced(self._start(number)))
                case "roster":
                    self._say(index, RosterCame(KeyRoster(self._key(number), self._last(self.adverts, number, chosen))))
                case "deliver":
                    self._say(index, self._delivery(index, chosen, number))
                case "acknowledge":
                    self._say(index, UploadAcknowledged(attempt_digest(self._start(number)), None))
                case "list":
                    commits = self._last(self.commits, number, chosen)
                    self._say(
                        index, SurvivorsListed(SurvivorList(self._key(number), commits), (), repeats_allowed=False)
                    )
                case "bundle":
                    self._bundle(index, chosen, number)
                case _:
                    self._restart(index)

    # --- what it says -------------------------------------------------------------------------------------------------

    def _key(self, number: int) -> AttemptKey:
        return AttemptKey(self.cohort.plan.value.key, AttemptNumber(number))

    def _start(self, number: int) -> Sealed[AttemptStart]:
        return self.cohort.start(number)

    @staticmethod
    def _last(said: dict[int, dict[int, list[Envelope]]], number: int, chosen: Sequence[int]) -> tuple[Envelope, ...]:
        return tuple(said[number][index][-1] for index in chosen if index in said[number])

    def _delivery(self, to: int, chosen: Sequence[int], number: int) -> DeliveryCame:
        """To each the shares that were dealt for it."""
        words, shares = [], []
        for dealer in chosen:
            for word in self.words[number].get(dealer, ())[-1:]:
                mine = [share for share in word.shares if share.holder == to]
                words.append(word.envelope)
                shares += [DeliveredShare(dealer, share, share_paths(word.shares)[to]) for share in mine]
        return DeliveryCame(ShareDelivery(self._key(number), tuple(words), tuple(shares)))

    def _bundle(self, to: int, chosen: Sequence[int], number: int) -> None:
        """For each list that somebody signed: the signatures on it, with the accomplice's."""
        by_list: dict[Digest, dict[int, Envelope]] = defaultdict(dict)
        for envelope in self.signatures[number]:
            by_list[reopen(ConsistencySignature, envelope).value.survivors][envelope.signer] = envelope
        for t3, signed in by_list.items():
            word = ConsistencySignature(attempt_digest(self._start(number)), t3, COLLUDING)
            accomplice = self.cohort.members[COLLUDING - 1]
            signed[COLLUDING] = seal(word, signer=key_of(accomplice), index=COLLUDING).envelope
            words = tuple(envelope for index, envelope in sorted(signed.items()) if index in chosen)
            self._say(to, BundleCame(ConsistencyBundle(self._key(number), words), (), repeats_allowed=False))

    def _restart(self, index: int) -> None:
        before = self.cohort.silos[index]
        opened = resume(before.offer, self.cohort.update, self.recorded.get(index), self.openings.get(index))
        tools = before.tools  # its randomness goes on, as that of an operating system does
        self.cohort.silos[index] = MaskedSilo(before.offer, before.name, opened)
        self.cohort.silos[index].tools = tools

    # --- what it hears ------------------------------------------------------------------------------------------------

    def _say(self, index: int, event: Event) -> None:
        silo = self.cohort.silos[index]
        try:
            silo.hear(event)
        except PeerError:
            return
        self._listen(index, silo.transition)
        state = silo.state
        if isinstance(state, Uploading) and isinstance(state.protection, Masked):
            number = state.attempt.value.key.attempt
            commit, _, _ = commit_of(silo.name, state.attempt, transcript=state.protection.transcript)
            self.commits[number].setdefault(index, []).append(commit)

    def _listen(self, index: int, transition: Transition) -> None:
        for effect in transition.effects:
            match effect:
                case RecordAttempt(_, attempt, _):
                    self.recorded[index] = attempt
                case RecordOpening(_, opening):
                    assert self.openings.setdefault(index, opening) == opening, "the journal would refuse a second one"
                case _:
                    self._heard(index, getattr(effect, "message", None))

    def _heard(self, index: int, message: object) -> None:
        if not isinstance(message, AttemptAnswer):
            return
        number = message.attempt.attempt
        match message.kind:
            case AnswerKind.ADVERTISE_KEYS:
                self.adverts[number].setdefault(index, []).append(message.envelope)
            case AnswerKind.SHARE_KEYS:
                self.words[number].setdefault(index, []).append(message)
            case AnswerKind.CONSISTENCY_SIGNATURE:
                self.signatures[number].append(message.envelope)
            case AnswerKind.UNMASK_SHARES:
                self.revealed[index].append(reopen(UnmaskShares, message.envelope).value)
            case AnswerKind.ATTEMPT_ABORT:
                pass

    # --- what it must never have --------------------------------------------------------------------------------------

    def check(self) -> None:
        threshold = self.cohort.spec.threshold
        openers: dict[Digest, set[int]] = defaultdict(set)
        selves: dict[tuple[Digest, int], set[int]] = defaultdict(set)
        masks: dict[tuple[Digest, int], set[int]] = defaultdict(set)
        for index in HONEST:
            for said in self.revealed[index]:
                assert said == self.revealed[index][0], "a silo opens one total in a round"
                openers[said.survivors].add(index)
                assert len(said.self_shares) >= threshold, "a total is over a threshold of members"
                for dealer, _ in said.self_shares:
                    selves[said.attempt, dealer].add(index)
                for dealer, _ in said.mask_shares:
                    masks[said.attempt, dealer].add(index)
        accomplices = 1
        opened = [t3 for t3, by in openers.items() if len(by) + accomplices >= threshold]
        assert len(opened) <= 1, "one total opens in a round"
        for of in selves.keys() & masks.keys():
            both = min(len(selves[of]), len(masks[of])) + accomplices
            assert both < threshold, f"both seeds of member {of[1]} could be put together"


_members = st.sampled_from([0b1111, 0b0111, 0b1011, 0b1101, 0b1110, 0b0011, 0b0101, 0b0001, 0b0010, 0b0100])
_ops = st.tuples(
    st.sampled_from(["announce", "roster", "deliver", "acknowledge", "list", "bundle", "restart"]),
    _members,
    _members,
    st.integers(1, 2),
)
_GOOD: list[Op] = [
    (what, 0b1111, 0b1111, 1) for what in ("announce", "roster", "deliver", "acknowledge", "list", "bundle")
]


@st.composite
def histories(draw: st.DrawFn) -> list[Op]:
    """A good attempt, with anything put in at any place: pure chance would hardly get to an opening."""
    ops = list(_GOOD)
    if draw(st.booleans()):
        ops += [(what, to, about, 2) for what, to, about, _ in _GOOD]
    for place, op in draw(st.lists(st.tuples(st.integers(0, 12), _ops), max_size=8)):
        ops.insert(min(place, len(ops)), op)
    for place in draw(st.sets(st.integers(0, len(ops) - 1), max_size=3)):
        what, _, _, number = ops[place]
        ops[place] = (what, draw(_members), draw(_members), number)
    return ops


@given(histories())
@example(_GOOD)
@example([*_GOOD[:4], ("list", 0b0001, 0b0111, 1), ("list", 0b0110, 0b1110, 1), _GOOD[5]])
@example(
    [*_GOOD[:5], ("bundle", 0b0001, 0b1111, 1), ("restart", 0b0011, 0, 1), *[(w, t, a, 2) for w, t, a, _ in _GOOD]]
)
@settings(max_examples=150)
def test_whatever_a_coordinator_says_honest_members_open_one_total(ops: list[Op]) -> None:
    adversary = Adversary()
    for op in ops:
        adversary.play(op)
        adversary.check()


def test_the_good_history_opens_its_total() -> None:
    """Or the test above would hold of members that do nothing."""
    adversary = Adversary()
    for op in _GOOD:
        adversary.play(op)
    assert [len(adversary.revealed[index]) for index in (*HONEST, COLLUDING)] == [1, 1, 1, 1]


# --- why the survivors' signatures are there --------------------------------------------------------------------------

TEN = tuple(ParticipantId(f"hospital-{letter}") for letter in "abcdefghij")
ACCOMPLICES = (8, 9, 10)
# To each honest member of ten another list, all of them long enough, and every one with its receiver in it.
LISTS = {
    1: (1, 2, 3, 4),
    2: (1, 2, 5, 6),
    3: (1, 2, 3, 4),
    4: (1, 2, 4, 5),
    5: (1, 2, 5, 6),
    6: (1, 2, 6, 7),
    7: (1, 2, 3, 7),
}


def test_without_the_consistency_signatures_a_total_of_two_opens() -> None:
    """The attack that they are there for. With the check left out each silo reveals one kind of share of each member,
    as it should, and still the self seeds of two and the mask seeds of all other honest members come together.
    """
    cohort, confirmed = _shown_different_lists()
    kinds: dict[tuple[str, int], int] = defaultdict(lambda: len(ACCOMPLICES))
    for index in LISTS:
        opened = _open(confirmed[index], cohort.silos[index].tools)
        said = reopen(UnmaskShares, opened.opening.reply).value
        for dealer, _ in said.self_shares:
            kinds["self", dealer] += 1
        for dealer, _ in said.mask_shares:
            kinds["mask", dealer] += 1
    assert cohort.spec.threshold == 7
    assert [dealer for dealer in LISTS if kinds["self", dealer] >= 7] == [1, 2]
    assert [dealer for dealer in LISTS if kinds["mask", dealer] >= 7] == [3, 4, 5, 6, 7]


def test_with_them_nothing_opens() -> None:
    cohort, confirmed = _shown_different_lists()
    honest = list(cohort.said(ConsistencySignature, LISTS))
    for index, state in confirmed.items():
        lies = [
            seal(replace(state.word.value, index=member), signer=key_of(TEN[member - 1]), index=member).envelope
            for member in ACCOMPLICES
        ]
        same = [envelope for envelope in honest if reopen(ConsistencySignature, envelope).value.survivors == state.t3]
        for signatures in ([*same, *lies], [*honest, *lies]):
            bundle = BundleCame(ConsistencyBundle(cohort.key(), tuple(signatures)), (), repeats_allowed=False)
            cohort.silos[index].refuses(bundle, ConflictError, "signed")


def _shown_different_lists() -> tuple[Cohort, dict[int, Confirmed]]:
    cohort = Cohort(members=TEN).to(Phase.COMMITTED)
    confirmed = {}
    for index, survivors in LISTS.items():
        cohort.silos[index].hear(cohort.listing(*survivors, *ACCOMPLICES))
        state = cohort.silos[index].state
        assert isinstance(state, Confirmed)
        confirmed[index] = state
    return cohort, confirmed
