from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.entropy import SeededEntropy
from shared.errors import WireError
from shared.secagg.sharing import PRIME, SHARE_BYTES, check_share, combine, split

SECRET = bytes(range(200, 232))


def dumb_combine(shares: dict[int, int]) -> int:
    """The interpolating polynomial at 0 over the rationals, reduced at the end."""
    total = 0
    for point, value in shares.items():
        weight = Fraction(1)
        for other in shares:
            if other != point:
                weight *= Fraction(other, other - point)
        total += value * weight.numerator * pow(weight.denominator, -1, PRIME)
    return total % PRIME


@settings(max_examples=40)
@given(data=st.data(), holders=st.integers(1, 12), secret=st.binary(min_size=32, max_size=32))
def test_any_threshold_of_shares_is_the_secret(data: st.DataObject, holders: int, secret: bytes) -> None:
    needed = data.draw(st.integers(1, holders))
    shares = split(secret, threshold=needed, holders=holders, draw=SeededEntropy(secret).take)
    assert {len(share) for share in shares} == {SHARE_BYTES}
    chosen = data.draw(st.sets(st.integers(1, holders), min_size=needed))
    mine = {holder: shares[holder - 1] for holder in chosen}
    assert combine(mine, threshold=needed) == secret
    used = sorted(chosen)[:needed]
    assert dumb_combine({x: int.from_bytes(mine[x], "big") for x in used}) == int.from_bytes(secret, "big")


def test_one_share_less_fits_every_secret() -> None:
    """With t - 1 shares fixed there is, for any secret, a polynomial of the degree through all of them."""
    shares = split(SECRET, threshold=4, holders=6, draw=SeededEntropy(b"x").take)
    three = {x: int.from_bytes(shares[x - 1], "big") for x in (1, 3, 6)}
    for other in (0, 1, 2**256 - 1):
        through = {0: other, **three}
        fourth = 0
        for point, value in through.items():
            weight = Fraction(1)
            for another in through:
                if another != point:
                    weight *= Fraction(2 - another, point - another)
            fourth += value * weight.numerator * pow(weight.denominator, -1, PRIME)
        made = {x: value.to_bytes(SHARE_BYTES, "big") for x, value in {**three, 2: fourth % PRIME}.items()}
        assert int.from_bytes(combine(made, threshold=4), "big") == other


def test_a_threshold_of_one_is_the_secret_itself_for_everybody() -> None:
    assert split(SECRET, threshold=1, holders=3, draw=SeededEntropy(b"").take) == (bytes(34) + SECRET,) * 3


def test_of_more_shares_the_lowest_count() -> None:
    shares = dict(enumerate(split(SECRET, threshold=3, holders=6, draw=SeededEntropy(b"x").take), 1))
    shares[4] = shares[5] = shares[6] = b"\x00" * SHARE_BYTES
    assert combine(dict(reversed(shares.items())), threshold=3) == SECRET
    del shares[1]
    wrong = {**shares, 4: b"\xff" * SHARE_BYTES}
    with pytest.raises(WireError, match="holder 4 is not below"):
        combine(wrong, threshold=3)


def test_too_few() -> None:
    shares = dict(enumerate(split(SECRET, threshold=3, holders=3, draw=SeededEntropy(b"x").take), 1))
    del shares[2]
    with pytest.raises(WireError, match="needs 3 shares, got 2"):
        combine(shares, threshold=3)


@pytest.mark.parametrize("value", [PRIME, PRIME + 1, 2**528 - 1])
def test_a_share_beyond_the_field(value: int) -> None:
    with pytest.raises(WireError, match="holder 1 is not below"):
        combine({1: value.to_bytes(SHARE_BYTES, "big")}, threshold=1)
    with pytest.raises(WireError, match="holder 9 is not below"):
        check_share(value.to_bytes(SHARE_BYTES, "big"), 9)


@pytest.mark.parametrize("share", [b"", bytes(65), bytes(67)])
def test_a_share_of_another_length(share: bytes) -> None:
    with pytest.raises(WireError, match="holder 1: expected 66 bytes"):
        combine({1: share}, threshold=1)


@pytest.mark.parametrize("value", [2**256, PRIME - 1])
def test_a_secret_that_nobody_shares(value: int) -> None:
    with pytest.raises(WireError, match=r"below 2\^256"):
        combine({1: value.to_bytes(SHARE_BYTES, "big")}, threshold=1)
    assert combine({1: (2**256 - 1).to_bytes(SHARE_BYTES, "big")}, threshold=1) == b"\xff" * 32


def test_coefficients_are_uniform_elements() -> None:
    """The draw of 521 ones, which is no element, is drawn again; the seven bits above are not used."""
    draws = [b"\xff" * SHARE_BYTES, b"\xfe" + bytes(65)]
    shares = split(bytes(32), threshold=2, holders=2, draw=lambda _: draws.pop(0))
    assert draws == []
    assert shares == (bytes(66), bytes(66))


@pytest.mark.parametrize(("secret", "needed", "holders"), [(bytes(31), 1, 1), (bytes(32), 0, 1), (bytes(32), 3, 2)])
def test_mistakes_of_the_caller(secret: bytes, needed: int, holders: int) -> None:
    with pytest.raises(RuntimeError, match="expected a secret of 32 bytes"):
        split(secret, threshold=needed, holders=holders, draw=SeededEntropy(b"").take)


def test_the_holder_zero_would_hold_the_secret() -> None:
    with pytest.raises(RuntimeError, match="counted from 1"):
        combine({0: bytes(66), 1: bytes(66)}, threshold=2)
    with pytest.raises(RuntimeError, match="counted from 1"):
        combine({}, threshold=0)


def test_at_a_hundred_holders() -> None:
    shares = split(SECRET, threshold=67, holders=100, draw=SeededEntropy(b"x").take)
    assert combine(dict(enumerate(shares[33:], 34)), threshold=67) == SECRET
