"""The journal of an open round: records to durable entries and back.

Bodies are canonical JSON with the exact bytes of envelopes in hexadecimal: what was broadcast is journaled as it was
sent, so that a restart says the same bytes again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, assert_never

from coordinator.round.effects import (
    AttemptBegun,
    BundleMade,
    Contributed,
    MemberOut,
    RangeMissed,
    Record,
    RosterFixed,
    SharesFixed,
    SharesRevealed,
    SurvivorsFixed,
)
from coordinator.round.phases import Contribution, Dealt, Fit
from coordinator.storage.interface import JournalEntry
from shared.errors import WireError
from shared.ids import Digest, ParticipantId, parse_participant_id
from shared.job import canonical_json
from shared.protocol.messages import (
    AdvertiseKeys,
    AttemptStart,
    Envelope,
    RoundPlan,
    Sealed,
    ShareKeys,
    UnmaskShares,
)
from shared.reasons import DropReason
from shared.wire.exchanges import decode_sealed_shares, encode_sealed_shares
from shared.wire.sealed import decode_envelope, decode_update_header, encode_envelope, encode_update_header, reopen

PLAN = "plan"


def encode_plan(plan: Sealed[RoundPlan]) -> JournalEntry:
    """The first entry of every round."""
    return JournalEntry(PLAN, encode_envelope(plan.envelope))


def decode_plan(entry: JournalEntry) -> Sealed[RoundPlan]:
    return reopen(RoundPlan, decode_envelope(entry.body))


def encode_record(record: Record) -> JournalEntry:
    match record:
        case MemberOut(participant, reason):
            return _entry("member_out", participant=participant, reason=reason)
        case RangeMissed(fit):
            return _entry("range_missed", fit=fit.value)
        case AttemptBegun(start, cohort):
            return _entry("attempt_begun", start=_hex(start.envelope), cohort=list(cohort))
        case Contributed(participant, contribution):
            return _entry(
                "contributed",
                participant=participant,
                commit=_hex(contribution.commit),
                header=encode_update_header(contribution.header).hex(),
                update=str(contribution.update),
            )
        case SurvivorsFixed(survivors):
            return _entry("survivors_fixed", survivors=list(survivors))
        case RosterFixed(adverts):
            return _entry("roster_fixed", adverts=_hexes({member: kept.envelope for member, kept in adverts.items()}))
        case SharesFixed(dealt):
            return _entry(
                "shares_fixed",
                words=_hexes({member: one.word.envelope for member, one in dealt.items()}),
                shares={member: encode_sealed_shares(one.shares).hex() for member, one in dealt.items()},
            )
        case BundleMade(signatures):
            return _entry("bundle_made", signatures=_hexes(signatures))
        case SharesRevealed(participant, word):
            return _entry("shares_revealed", participant=participant, word=_hex(word.envelope))
        case _:
            assert_never(record)


def decode_record(entry: JournalEntry) -> Record:
    """Read one of our own records. Raises WireError for what this version does not write."""
    try:
        return _decoded(entry.kind, json.loads(entry.body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WireError(f"a journal entry of kind {entry.kind!r} has a body that nobody wrote: {error!r}") from None


def _decoded(kind: str, body: Any) -> Record:
    match kind:
        case "member_out":
            return MemberOut(parse_participant_id(body["participant"]), DropReason(body["reason"]))
        case "range_missed":
            return RangeMissed(Fit(body["fit"]))
        case "attempt_begun":
            return AttemptBegun(reopen(AttemptStart, _envelope(body["start"])), _participants(body["cohort"]))
        case "contributed":
            contribution = Contribution(
                _envelope(body["commit"]),
                decode_update_header(bytes.fromhex(body["header"])),
                Digest.parse(body["update"]),
            )
            return Contributed(parse_participant_id(body["participant"]), contribution)
        case "survivors_fixed":
            return SurvivorsFixed(_participants(body["survivors"]))
        case "roster_fixed":
            adverts = _envelopes(body["adverts"])
            return RosterFixed({member: reopen(AdvertiseKeys, kept) for member, kept in adverts.items()})
        case "shares_fixed":
            shares = {name: decode_sealed_shares(bytes.fromhex(text)) for name, text in body["shares"].items()}
            words = _envelopes(body["words"])
            return SharesFixed({who: Dealt(reopen(ShareKeys, word), shares[who]) for who, word in words.items()})
        case "bundle_made":
            return BundleMade(_envelopes(body["signatures"]))
        case "shares_revealed":
            word = reopen(UnmaskShares, _envelope(body["word"]))
            return SharesRevealed(parse_participant_id(body["participant"]), word)
        case _:
            raise WireError(f"a journal entry of kind {kind!r} is not one that this version writes")


def _entry(kind: str, **body: object) -> JournalEntry:
    return JournalEntry(kind, canonical_json(body))


def _hex(envelope: Envelope) -> str:
    return encode_envelope(envelope).hex()


def _envelope(text: str) -> Envelope:
    return decode_envelope(bytes.fromhex(text))


def _participants(names: list[str]) -> tuple[ParticipantId, ...]:
    return tuple(map(parse_participant_id, names))


def _hexes(envelopes: Mapping[ParticipantId, Envelope]) -> dict[str, str]:
    return {member: _hex(envelope) for member, envelope in envelopes.items()}


def _envelopes(texts: Mapping[str, Any]) -> dict[ParticipantId, Envelope]:
    return {parse_participant_id(name): _envelope(texts[name]) for name in sorted(texts)}
