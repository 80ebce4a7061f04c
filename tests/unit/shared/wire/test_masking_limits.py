"""What a message of masking may hold: each limit is met by the value at it and broken by the one above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import WireError
from shared.ids import COUNTER_MAX
from shared.job import MEMBERS_MAX
from shared.pb.v1 import session_pb2 as pb
from shared.secagg.keys import PUBLIC_KEY_BYTES
from shared.secagg.sealing import CIPHERTEXT_BYTES
from shared.secagg.sharing import SHARE_BYTES
from shared.wire.attempts import (
    decode_advertise_keys,
    decode_attempt_abort,
    decode_consistency_signature,
    decode_share_keys,
    decode_unmask_shares,
)
from shared.wire.exchanges import PATH_MAX
from shared.wire.session import (
    decode_coordinator_message,
    decode_participant_message,
)
from tests.support.wire_fields import DIGEST, ENVELOPE, KEY, Write, collection, writer

ADVERT: dict[str, Any] = {
    "attempt_digest": DIGEST,
    "index": 1,
    "mask_key": bytes(PUBLIC_KEY_BYTES),
    "share_key": bytes(PUBLIC_KEY_BYTES),
    "nonce": bytes(32),
}
DEALING: dict[str, Any] = {
    "attempt_digest": DIGEST,
    "roster_digest": DIGEST,
    "index": 1,
    "self_commitment": DIGEST,
    "shares_root": DIGEST,
}
CONSISTENT: dict[str, Any] = {"attempt_digest": DIGEST, "survivors_digest": DIGEST, "index": 1}
OPENING: dict[str, Any] = {"attempt_digest": DIGEST, "survivors_digest": DIGEST, "index": 1}
LEFT: dict[str, Any] = {"attempt_digest": DIGEST, "index": 1, "reason": 1}
SHARE: dict[str, Any] = {
    "holder": 1,
    "ciphertext": bytes(CIPHERTEXT_BYTES),
    "self_commitment": DIGEST,
    "mask_commitment": DIGEST,
}
DELIVERED: dict[str, Any] = {"dealer": 1, "share": SHARE, "path": [DIGEST]}

roster = collection("key_roster", pb.KeyRoster, "adverts")
delivery = collection("share_delivery", pb.ShareDelivery, "dealers")
bundle = collection("consistency_bundle", pb.ConsistencyBundle, "signatures")


def answer(**changed: Any) -> bytes:
    fields: dict[str, Any] = {"key": KEY, "attempt": 1, "kind": 2, "envelope": ENVELOPE} | changed
    return pb.SessionRequest(attempt_answer=pb.AttemptAnswer(**fields)).SerializeToString()


def share(**changed: Any) -> bytes:
    return answer(shares=[SHARE | changed])


def delivered(**changed: Any) -> bytes:
    return delivery(shares=[DELIVERED | changed])


def revealed(*dealers: int, length: int = SHARE_BYTES) -> list[dict[str, Any]]:
    return [{"dealer": dealer, "share": bytes(length)} for dealer in dealers]


# Who reads, who writes, and for each field: values at the limit, values above it.
LIMITS: dict[str, tuple[Callable[[bytes], Any], Write, list[Any], list[Any]]] = {
    "AdvertiseKeys.attempt_digest": (
        decode_advertise_keys,
        writer(pb.AdvertiseKeys, ADVERT),
        [bytes(32)],
        [b"", bytes(31), bytes(33)],
    ),
    "AdvertiseKeys.index": (
        decode_advertise_keys,
        writer(pb.AdvertiseKeys, ADVERT),
        [1, MEMBERS_MAX],
        [0, MEMBERS_MAX + 1, 2**32 - 1],
    ),
    "AdvertiseKeys.mask_key": (
        decode_advertise_keys,
        writer(pb.AdvertiseKeys, ADVERT),
        [bytes(PUBLIC_KEY_BYTES)],
        [b"", bytes(PUBLIC_KEY_BYTES - 1), bytes(PUBLIC_KEY_BYTES + 1)],
    ),
    "AdvertiseKeys.share_key": (
        decode_advertise_keys,
        writer(pb.AdvertiseKeys, ADVERT),
        [bytes(PUBLIC_KEY_BYTES)],
        [b"", bytes(PUBLIC_KEY_BYTES - 1), bytes(PUBLIC_KEY_BYTES + 1)],
    ),
    "AdvertiseKeys.nonce": (
        decode_advertise_keys,
        writer(pb.AdvertiseKeys, ADVERT),
        [bytes(32)],
        [b"", bytes(31), bytes(33)],
    ),
    "AdvertiseKeys.checkpoint": (
        decode_advertise_keys,
        writer(pb.AdvertiseKeys, ADVERT),
        [{"kind": 1, "size": 2**64 - 1, "root": DIGEST}],
        [
            {},
            {"kind": 0, "size": 1, "root": DIGEST},
            {"kind": 2, "size": 1, "root": DIGEST},
            {"kind": 1, "size": 1},
            {"kind": 1, "root": DIGEST},
            {"size": 1, "root": DIGEST},
            {"kind": 1, "size": 1, "root": bytes(31)},
        ],
    ),
    "ShareKeys.index": (
        decode_share_keys,
        writer(pb.ShareKeys, DEALING),
        [1, MEMBERS_MAX],
        [0, MEMBERS_MAX + 1],
    ),
    "ShareKeys.roster_digest": (decode_share_keys, writer(pb.ShareKeys, DEALING), [bytes(32)], [b"", bytes(33)]),
    "ShareKeys.self_commitment": (decode_share_keys, writer(pb.ShareKeys, DEALING), [bytes(32)], [b"", bytes(33)]),
    "ShareKeys.shares_root": (decode_share_keys, writer(pb.ShareKeys, DEALING), [bytes(32)], [b"", bytes(33)]),
    "ConsistencySignature.index": (
        decode_consistency_signature,
        writer(pb.ConsistencySignature, CONSISTENT),
        [1, MEMBERS_MAX],
        [0, MEMBERS_MAX + 1],
    ),
    "ConsistencySignature.survivors_digest": (
        decode_consistency_signature,
        writer(pb.ConsistencySignature, CONSISTENT),
        [bytes(32)],
        [b"", bytes(31), bytes(33)],
    ),
    "UnmaskShares.index": (
        decode_unmask_shares,
        writer(pb.UnmaskShares, OPENING),
        [1, MEMBERS_MAX],
        [0, MEMBERS_MAX + 1],
    ),
    "UnmaskShares.self_shares": (
        decode_unmask_shares,
        writer(pb.UnmaskShares, OPENING),
        [[], revealed(1), revealed(1, MEMBERS_MAX), revealed(*range(1, MEMBERS_MAX + 1))],
        [revealed(0), revealed(MEMBERS_MAX + 1), revealed(2, 1), revealed(1, 1), [{"dealer": 1}], [{}]]
        + [revealed(1, length=length) for length in (0, SHARE_BYTES - 1, SHARE_BYTES + 1)],
    ),
    "UnmaskShares.mask_shares": (
        decode_unmask_shares,
        writer(pb.UnmaskShares, OPENING),
        [[], revealed(1), revealed(1, MEMBERS_MAX)],
        [revealed(0), revealed(MEMBERS_MAX + 1), revealed(2, 1), revealed(1, 1), [{"dealer": 1}]]
        + [revealed(1, length=length) for length in (0, SHARE_BYTES - 1, SHARE_BYTES + 1)],
    ),
    "AttemptAbort.index": (
        decode_attempt_abort,
        writer(pb.AttemptAbort, LEFT),
        [1, MEMBERS_MAX],
        [0, MEMBERS_MAX + 1],
    ),
    "AttemptAbort.reason": (decode_attempt_abort, writer(pb.AttemptAbort, LEFT), [1, 8], [0, 9, -1]),
    "AttemptAnswer.kind": (decode_participant_message, answer, [1, 5], [0, 6, -1]),
    "AttemptAnswer.attempt": (decode_participant_message, answer, [1, COUNTER_MAX], [0, COUNTER_MAX + 1]),
    "AttemptAnswer.envelope": (
        decode_participant_message,
        answer,
        [ENVELOPE],
        [{}, ENVELOPE | {"signer": MEMBERS_MAX + 1}, ENVELOPE | {"signature": bytes(63)}],
    ),
    "AttemptAnswer.shares": (
        decode_participant_message,
        answer,
        [[], [SHARE] * MEMBERS_MAX],
        [[{}], [SHARE] * (MEMBERS_MAX + 1)],
    ),
    "SealedShare.holder": (decode_participant_message, share, [1, MEMBERS_MAX], [0, MEMBERS_MAX + 1]),
    "SealedShare.ciphertext": (
        decode_participant_message,
        share,
        [bytes(CIPHERTEXT_BYTES)],
        [b"", bytes(CIPHERTEXT_BYTES - 1), bytes(CIPHERTEXT_BYTES + 1)],
    ),
    "SealedShare.self_commitment": (decode_participant_message, share, [bytes(32)], [b"", bytes(33)]),
    "SealedShare.mask_commitment": (decode_participant_message, share, [bytes(32)], [b"", bytes(33)]),
    "KeyRoster.adverts": (
        decode_coordinator_message,
        roster,
        [[], [ENVELOPE] * MEMBERS_MAX],
        [[ENVELOPE] * (MEMBERS_MAX + 1), [{}]],
    ),
    "KeyRoster.attempt": (decode_coordinator_message, roster, [COUNTER_MAX], [0, COUNTER_MAX + 1]),
    "ShareDelivery.dealers": (
        decode_coordinator_message,
        delivery,
        [[], [ENVELOPE] * MEMBERS_MAX],
        [[ENVELOPE] * (MEMBERS_MAX + 1), [{}]],
    ),
    "ShareDelivery.attempt": (decode_coordinator_message, delivery, [COUNTER_MAX], [0, COUNTER_MAX + 1]),
    "ShareDelivery.shares": (
        decode_coordinator_message,
        delivery,
        [[], [DELIVERED] * MEMBERS_MAX],
        [[{}], [DELIVERED] * (MEMBERS_MAX + 1)],
    ),
    "DeliveredShare.dealer": (decode_coordinator_message, delivered, [1, MEMBERS_MAX], [0, MEMBERS_MAX + 1]),
    "DeliveredShare.path": (
        decode_coordinator_message,
        delivered,
        [[], [DIGEST] * PATH_MAX],
        [[DIGEST] * (PATH_MAX + 1), [b""], [bytes(31)], [DIGEST, bytes(33)]],
    ),
    "ConsistencyBundle.signatures": (
        decode_coordinator_message,
        bundle,
        [[], [ENVELOPE] * MEMBERS_MAX],
        [[ENVELOPE] * (MEMBERS_MAX + 1), [{}]],
    ),
    "ConsistencyBundle.attempt": (decode_coordinator_message, bundle, [COUNTER_MAX], [0, COUNTER_MAX + 1]),
}


@pytest.mark.parametrize("field", LIMITS)
def test_a_field_is_taken_up_to_its_limit(field: str) -> None:
    decode, write, taken, _ = LIMITS[field]
    for value in taken:
        decode(write(**{field.partition(".")[2]: value}))


@pytest.mark.parametrize("field", LIMITS)
def test_a_field_beyond_its_limit_is_refused(field: str) -> None:
    decode, write, _, refused_values = LIMITS[field]
    for value in refused_values:
        with pytest.raises(WireError):
            decode(write(**{field.partition(".")[2]: value}))


@pytest.mark.parametrize("mask_shares", [revealed(2), revealed(1, 2), revealed(2, 3), revealed(*range(1, 8))])
def test_both_kinds_of_share_of_one_member_are_never_opened(mask_shares: list[dict[str, Any]]) -> None:
    """With both, the masks of a survivor would come off its update alone."""
    write = writer(pb.UnmaskShares, OPENING)
    opened = decode_unmask_shares(write(self_shares=revealed(2, 4), mask_shares=revealed(1, 3)))
    assert ([dealer for dealer, _ in opened.self_shares], [dealer for dealer, _ in opened.mask_shares]) == (
        [2, 4],
        [1, 3],
    )
    with pytest.raises(WireError, match="one kind of share of a member, never both"):
        decode_unmask_shares(write(self_shares=revealed(2, 4), mask_shares=mask_shares))


@pytest.mark.parametrize("kind", [1, 3, 4, 5])
def test_sealed_shares_come_beside_no_other_answer(kind: int) -> None:
    with pytest.raises(WireError, match="beside SHARE_KEYS and no other"):
        decode_participant_message(answer(kind=kind, shares=[SHARE]))
