"""The smallest silo that masks: the exchanges made straight from `shared.secagg`, each defence behind a switch.

It says the product's messages, so that an attack is one program for both. With all switches on it does as the protocol
says. With one off, nothing else changes: what an attack gains then is what that defence is for. What no attack here
needs is left out (section 1, deadlines, restarts, rounds of other purposes).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.consortium import Consortium
from shared.errors import ConflictError, IdentityError, PeerError, WireError
from shared.ids import Digest, ParticipantId, RoundKey
from shared.job import JobSpec, parse_jobspec
from shared.protocol.messages import (
    AdvertiseKeys,
    AnswerKind,
    AttemptAnswer,
    AttemptStart,
    ConsistencyBundle,
    ConsistencySignature,
    Envelope,
    Exchange,
    KeyRoster,
    Ready,
    RoundAborted,
    RoundBroadcast,
    RoundPlan,
    RoundResult,
    Sealed,
    ShareDelivery,
    ShareKeys,
    SurvivorList,
    UnmaskShares,
    UploadCommit,
    attempt_digest,
    plan_digest,
)
from shared.secagg.fixed_point import Encoder, fits, largest_products, range_cell, range_exponents
from shared.secagg.keys import AttemptSecrets, agree, check_public_key
from shared.secagg.masking import Masks, pair_sign
from shared.secagg.sealing import NONCE_BYTES, OpenedShare, SealedShare, check_revealed, shares_root
from shared.secagg.sharing import SHARE_BYTES, split
from shared.secagg.threshold import threshold
from shared.secagg.transcript import (
    ShareKind,
    delivery_digest,
    mask_private,
    pair_root,
    roster_digest,
    self_root,
    self_seed_commitment,
    share_commitment,
    share_context,
    share_key,
    survivors_digest,
)
from shared.secret import Secret
from shared.update import Encoding, UpdateHeader, update_digest
from shared.wire.sealed import Signer, decode_envelope, encode_update_header, open_sealed, reopen, seal
from tests.attacks.defences import Defences, Lives, Records, Run
from tests.attacks.silos import Deltas, Pads, Refused, Said, Upload

WEIGHT_Q = 1 << 8  # every silo has one example, so that an update is its deltas
MISSES_MAX = 3
Word = TypeVar("Word", AdvertiseKeys, ShareKeys, UploadCommit, ConsistencySignature)


class SmallSilo:
    """One member."""

    def __init__(
        self,
        *,
        name: ParticipantId,
        deltas: Deltas,
        signer: Signer,
        consortium: Consortium,
        draw: Callable[[int], bytes],
        defences: Defences,
    ) -> None:
        self.name, self.deltas, self.defences = name, deltas, defences
        self.runs: dict[Digest, Run] = {}
        """By h0. A colluding one keeps them all; one that does not forgets all but the last."""
        self.pads: Pads = defaultdict(set)
        self._spool = deltas
        self._signer, self._consortium, self._draw = signer, consortium, draw
        self._long_lived = draw(32)
        self._records = Records()
        self._running_ones: dict[RoundKey, Run] = {}

    def rolled_back(self) -> SmallSilo:
        silo = SmallSilo(
            name=self.name,
            deltas=self.deltas,
            signer=self._signer,
            consortium=self._consortium,
            draw=self._draw,
            defences=self.defences,
        )
        silo._long_lived = self._long_lived
        return silo

    def change_spool(self, deltas: Deltas) -> None:
        self._spool = deltas

    def restart(self) -> list[Said]:
        self._running_ones.clear()
        return []

    def acknowledge(self, upload: Upload) -> list[Said]:
        return []

    def hear(self, message: RoundBroadcast) -> list[Said]:
        return _or_refused(lambda: self._heard(message))

    def resend(self) -> list[Said]:
        return _or_refused(lambda: [self._upload(run) for run in list(self._running_ones.values())[-1:]])

    def _heard(self, message: RoundBroadcast) -> list[Said]:
        match message:
            case KeyRoster():
                return [self._deal(self._running(message), message)]
            case ShareDelivery():
                return [self._take_shares(self._running(message), message)]
            case SurvivorList():
                return self._survivors(self._running(message), message)
            case ConsistencyBundle():
                return [self._bundle(self._running(message), message)]
            case Sealed(value=RoundPlan() as plan):
                return self._planned(Sealed(plan, message.envelope))
            case Sealed(value=AttemptStart() as start):
                return [self._advertise(Sealed(start, message.envelope))]
            case Sealed(value=RoundResult() | RoundAborted() as ended):
                self._running_ones.pop(ended.key, None)
            case _:
                pass
        return []

    def _running(self, message: Exchange) -> Run:
        run = self._running_ones.get(message.key.round)
        if run is None or run.attempt.value.key != message.key:
            raise ConflictError(f"attempt {message.key} does not run")
        return run

    # --- plan ---------------------------------------------------------------------------------------------------------

    def _planned(self, plan: Sealed[RoundPlan]) -> list[Said]:
        records, spec = self._records, parse_jobspec(plan.value.jobspec)
        known = records.plans.setdefault(plan.value.key, plan)
        if self.defences.plan_is_fixed and known.payload != plan.payload:
            raise ConflictError("planned before with other content")
        if self.defences.known_members:
            for member in spec.members:
                if self._consortium.participant_key(member) is None:
                    raise IdentityError(f"{member} is in no manifest")
        records.plans[plan.value.key] = plan
        fitting = records.misses < MISSES_MAX and self._fits(plan.value, spec)
        if not fitting and known is plan:  # one update is one miss
            records.misses += 1
        return [Ready(plan.value.key, plan_digest(plan), fits=fitting)]

    def _fits(self, plan: RoundPlan, spec: JobSpec) -> bool:
        if not plan.previous_result:
            return True
        previous = reopen(RoundResult, decode_envelope(plan.previous_result)).value
        largest = largest_products(self._spool, WEIGHT_Q, (self._spool.size,))
        ranges = range_exponents(encoding=spec.masking.profile, top_cells=previous.top_cells, tensors=1)
        return fits(largest, ranges)

    @property
    def range_cell(self) -> int:
        (largest,) = largest_products(self.deltas, WEIGHT_Q, (self.deltas.size,))
        return range_cell(largest)

    # --- attempt and keys ---------------------------------------------------------------------------------------------

    def _advertise(self, attempt: Sealed[AttemptStart]) -> AttemptAnswer:
        start, on = attempt.value, self.defences
        plan = self._records.plans[start.key.round]
        spec, h0 = parse_jobspec(plan.value.jobspec), attempt_digest(attempt)
        members = spec.members if on.members_of_the_job else start.members
        colluding = spec.masking.max_colluding if on.collusion_of_the_job else start.max_colluding
        if (members, colluding, plan_digest(plan)) != (start.members, start.max_colluding, start.plan):
            raise ConflictError("not the attempt that follows from the job")
        if on.one_opening and start.key.round in self._records.openings:
            raise ConflictError("this round was opened")
        known = self._running_ones.get(start.key.round)
        if known is not None and known.attempt.value.key >= start.key:
            raise ConflictError("no higher attempt")
        index, secrets = members.index(self.name) + 1, self._secrets(start)
        keys = AdvertiseKeys(h0, index, secrets.mask_public(h0), secrets.share_public(), self._draw(32), None)
        advert = seal(keys, signer=self._signer, index=index)
        run = Run(attempt, members, index, threshold(len(members), colluding), secrets, advert)
        self.runs[h0] = self._running_ones[start.key.round] = run
        return self._answer(run, AnswerKind.ADVERTISE_KEYS, advert.envelope)

    def _secrets(self, start: AttemptStart) -> AttemptSecrets:
        fresh, key = AttemptSecrets.draw(self._draw), start.key.round
        match self.defences.seeds:
            case Lives.ATTEMPT:
                return fresh
            case Lives.ROUND:
                place = f"{key.job} {key.number}"
                return replace(fresh, self_seed=self._seed("self" + place), mask_seed=self._seed("mask" + place))
            case Lives.JOB:
                return replace(fresh, mask_seed=self._seed("mask" + key.job))

    def _seed(self, place: str) -> Secret:
        return Secret(Digest.of(self._long_lived + place.encode()).raw)

    def _agree(self, private: bytes, public: bytes) -> bytes:
        """X25519 as RFC 7748 has it, which does not look at what comes out."""
        if self.defences.sound_keys:
            return agree(private, public)
        try:
            return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            return bytes(32)

    # --- roster and shares --------------------------------------------------------------------------------------------

    def _deal(self, run: Run, roster: KeyRoster) -> AttemptAnswer:
        adverts = self._opened(run, AdvertiseKeys, roster.adverts)
        if not self.defences.threshold_of_the_job:
            run.threshold = threshold(len(adverts), run.attempt.value.max_colluding)
        _require(len(adverts) >= run.threshold, "too few advertised")
        _require(run.index in adverts and adverts[run.index].payload == run.advert.payload, "not my keys")
        if self.defences.sound_keys:
            for advert in adverts.values():
                check_public_key(advert.value.mask_key)
                check_public_key(advert.value.share_key)
        t1 = roster_digest(run.h0, _payloads(adverts))
        _require(run.t1 in {None, t1}, "a second roster")
        run.t1, run.roster = t1, {index: advert.value for index, advert in adverts.items()}
        shares = self._shares(run, t1)
        seed = run.secrets.self_seed.reveal()
        word = ShareKeys(run.h0, t1, run.index, self_seed_commitment(t1, run.index, seed), shares_root(shares))
        run.word = seal(word, signer=self._signer, index=run.index)
        return self._answer(run, AnswerKind.SHARE_KEYS, run.word.envelope, shares)

    def _shares(self, run: Run, t1: Digest) -> tuple[SealedShare, ...]:
        """`sealing.deal`, with this silo's own agreement."""

        def dealt(seed: Secret) -> tuple[bytes, ...]:
            return split(seed.reveal(), threshold=run.threshold, holders=len(run.members), draw=self._draw)

        sealed, private = [], run.secrets.share_private.reveal()
        of_self, of_mask = dealt(run.secrets.self_seed), dealt(run.secrets.mask_seed)
        for holder, advert in run.roster.items():
            pair = of_self[holder - 1], of_mask[holder - 1]
            key, nonce = (
                share_key(self._agree(private, advert.share_key), t1, run.index, holder),
                self._draw(NONCE_BYTES),
            )
            box = AESGCM(key).encrypt(nonce, b"".join(pair), share_context(t1, run.index, holder))
            commitments = [
                share_commitment(t1, run.index, holder, kind, share)
                for kind, share in zip(ShareKind, pair, strict=True)
            ]
            sealed.append(SealedShare(holder, nonce + box, *commitments))
        return tuple(sealed)

    def _take_shares(self, run: Run, delivery: ShareDelivery) -> Upload:
        words = self._opened(run, ShareKeys, delivery.dealers)
        if run.t1 is None or run.word is None:
            raise ConflictError("shares before keys")
        _require(len(words) >= run.threshold, "too few dealt")
        _require(run.index in words and words[run.index].payload == run.word.payload, "not my word")
        _require(all(word.value.roster == run.t1 for word in words.values()), "shares of another roster")
        _require(words.keys() <= run.roster.keys(), "a dealer without keys")
        t2 = delivery_digest(run.t1, _payloads(words))
        _require(run.t2 in {None, t2}, "a second delivery")
        run.t2 = t2
        run.held = {
            delivered.dealer: self._open(run, run.t1, delivered.dealer, delivered.share)
            for delivered in delivery.shares
        }
        return self._upload(run)

    def _open(self, run: Run, t1: Digest, dealer: int, sealed: SealedShare) -> OpenedShare:
        """`sealing.open_share` without the tree, and with this silo's own agreement."""
        agreed = self._agree(run.secrets.share_private.reveal(), run.roster[dealer].share_key)
        key, box = share_key(agreed, t1, dealer, run.index), sealed.ciphertext
        pair = AESGCM(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], share_context(t1, dealer, run.index))
        halves = pair[:SHARE_BYTES], pair[SHARE_BYTES:]
        for kind, share in zip(ShareKind, halves, strict=True):
            check_revealed(share=share, t1=t1, dealer=dealer, holder=run.index, kind=kind, sealed=sealed)
        return OpenedShare(Secret(halves[0]), Secret(halves[1]))

    # --- upload -------------------------------------------------------------------------------------------------------

    def _upload(self, run: Run) -> Upload:
        if run.t2 is None:
            raise ConflictError("an upload before the shares")
        encoder = Encoder(
            encoding=Encoding.U64,
            members=len(run.members),
            weight_q=WEIGHT_Q,
            sizes=(self._spool.size,),
            range_exponents=range_exponents(encoding=Encoding.U64, top_cells=None, tensors=1),
            encoding_seed=run.secrets.encoding_seed,
            h0=run.h0,
        )
        words = encoder.encode(self._spool, first_cell=0)
        terms = self._terms(run, run.t2)
        Masks(terms).apply(words, section=0, first_byte=0)
        content = words.tobytes()
        if self.defences.same_bytes:
            _require(run.words in {None, content}, "another content under the same masks")
        for root, _ in terms:
            self.pads[root.reveal(), 0, 0].add(content)
        run.words = content
        header = encode_update_header(UpdateHeader(Encoding.U64, None, 1))
        said = UploadCommit(run.h0, run.t2, run.index, header, update_digest(header, [Digest.of(content)]), 1)
        run.commit = seal(said, signer=self._signer, index=run.index).envelope
        return Upload(run.attempt.value.key, run.t2, content, run.commit)

    def _terms(self, run: Run, t2: Digest) -> list[tuple[Secret, int]]:
        terms: list[tuple[Secret, int]] = []
        if self.defences.self_mask:
            terms.append((Secret(self_root(run.secrets.self_seed.reveal(), t2, run.index)), 1))
        if self.defences.pair_masks:
            private = mask_private(run.secrets.mask_seed.reveal(), run.h0)
            for other in run.held.keys() - {run.index}:
                agreed = self._agree(private, run.roster[other].mask_key)
                terms.append((Secret(pair_root(agreed, t2, run.index, other)), pair_sign(run.index, other)))
        return terms

    # --- survivors and opening ----------------------------------------------------------------------------------------

    def _survivors(self, run: Run, listed: SurvivorList) -> list[Said]:
        commits, plan = self._opened(run, UploadCommit, listed.commits), self._records.plans[listed.key.round].value
        spec = parse_jobspec(plan.jobspec)
        if run.t2 is None:
            raise ConflictError("survivors before the shares")
        _require(all(commit.value.transcript == run.t2 for commit in commits.values()), "masked for other dealers")
        _require(commits.keys() <= run.held.keys(), "a survivor who did not deal")
        _require(run.index in commits and commits[run.index].envelope == run.commit, "not with my update")
        _require(len(commits) >= max(run.threshold, spec.round.min_survivors), "a total over too few")
        t3 = survivors_digest(run.t2, _payloads(commits))
        if self.defences.one_list:
            _require(run.t3 in {None, t3}, "a second list")
        self._require_no_other_total(run, tuple(commits))
        run.t3, run.survivors = t3, tuple(commits)
        if not self.defences.consistency_round:
            return [self._opening(run)]
        said = seal(ConsistencySignature(run.h0, t3, run.index), signer=self._signer, index=run.index)
        return [self._answer(run, AnswerKind.CONSISTENCY_SIGNATURE, said.envelope)]

    def _bundle(self, run: Run, bundle: ConsistencyBundle) -> AttemptAnswer:
        words = self._opened(run, ConsistencySignature, bundle.signatures)
        _require(len(words) >= run.threshold, "too few signed the survivors")
        _require(words.keys() <= set(run.survivors), "signed by one that is none of them")
        _require(all(word.value.survivors == run.t3 for word in words.values()), "other survivors were signed")
        return self._opening(run)

    def _opening(self, run: Run) -> AttemptAnswer:
        if run.t3 is None:
            raise ConflictError("an opening before the survivors")
        plan = self._records.plans[run.attempt.value.key.round].value
        if self.defences.one_opening:
            _require(self._records.openings.setdefault(plan.key, run.h0) == run.h0, "this round was opened")
        if self.defences.totals_at_opening:
            self._require_no_other_total(run, run.survivors)
        self._totals(plan)[plan.key] = {run.members[index - 1] for index in run.survivors}
        said = UnmaskShares(
            attempt=run.h0,
            survivors=run.t3,
            index=run.index,
            self_shares=tuple((d, run.held[d].self_share.reveal()) for d in sorted(run.held) if d in run.survivors),
            mask_shares=tuple((d, run.held[d].mask_share.reveal()) for d in sorted(run.held) if d not in run.survivors),
        )
        return self._answer(run, AnswerKind.UNMASK_SHARES, seal(said, signer=self._signer, index=run.index).envelope)

    def _totals(self, plan: RoundPlan) -> dict[RoundKey, set[ParticipantId]]:
        place = parse_jobspec(plan.jobspec).task, plan.model, plan.purpose
        return self._records.totals.setdefault(place, {})

    def _require_no_other_total(self, run: Run, survivors: tuple[int, ...]) -> None:
        """In another round on this model; in its own one that is for `one_list` and `one_opening` to see."""
        plan = self._records.plans[run.attempt.value.key.round].value
        others = [known for key, known in self._totals(plan).items() if key != plan.key]
        names = {run.members[index - 1] for index in survivors}
        if self.defences.totals_remembered:
            _require(all(names == known for known in others), "another total on this model")

    # --- of all of them -----------------------------------------------------------------------------------------------

    def _opened(self, run: Run, kind: type[Word], envelopes: Sequence[Envelope]) -> dict[int, Sealed[Word]]:
        opened: dict[int, Sealed[Word]] = {}
        for envelope in sorted(envelopes, key=lambda one: one.signer):
            key = self._consortium.participant_key(run.members[envelope.signer - 1])
            if not self.defences.signatures or (key is None and not self.defences.known_members):
                word = reopen(kind, envelope)
            elif key is None:
                raise IdentityError("a word of nobody")
            else:
                word = open_sealed(kind, envelope, verifier=key, index=envelope.signer)
            if word.value.index != envelope.signer or word.value.attempt != run.h0 or envelope.signer in opened:
                raise WireError("not a word of this member about this attempt, or a second one")
            opened[envelope.signer] = word
        return opened

    def _answer(
        self, run: Run, kind: AnswerKind, envelope: Envelope, shares: tuple[SealedShare, ...] = ()
    ) -> AttemptAnswer:
        return AttemptAnswer(run.attempt.value.key, kind, envelope, shares)


def _payloads(words: Mapping[int, Sealed[Any]]) -> list[tuple[int, bytes]]:
    return [(index, word.payload) for index, word in words.items()]


def _or_refused(says: Callable[[], list[Said]]) -> list[Said]:
    """What the smallest silo has no check of its own for, its parts refuse."""
    try:
        return says()
    except (PeerError, InvalidTag, LookupError, ValueError) as error:
        return [Refused(type(error).__name__, str(error))]


def _require(holds: bool, refusal: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not holds:
        raise ConflictError(refusal)
