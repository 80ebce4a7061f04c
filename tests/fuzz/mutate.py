"""How a valid input is damaged: by bytes, by the structure of protobuf, and by that of text.

Every choice comes from the `Random` that is handed in, so a seed and a number name an input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

INPUT_MAX_BYTES = 64 * 1024  # longer inputs only repeat what shorter ones find; limits have tests of their own
CHANGES_MAX = 6

Mutator = Callable[[bytes, Random], bytes]

_NUMBERS = (0, 1, 2, 3, 31, 32, 33, 63, 64, 127, 128, 255, 256, 1000, 1024, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32)
_HUGE = (*_NUMBERS, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
_TOKENS: tuple[bytes, ...] = tuple(
    token.encode("utf-8", "surrogatepass")
    for token in (
        *'{}[]",:=#\n\r\t \\\0',
        *("null", "true", "false", "NaN", "-Infinity", "1e999", "-0", "1" * 5000, "0.1", "-1", "\ufeff", "\u2028"),
        *("\\ud800", "\ud800", "\\u0000", '"""', "'''", "[[", "]]", "{}", "[]", '""', "'", "__proto__", "\x7f", "é"),
        *("[" * 5000, "{" * 2000, '{"a":' * 2000, "a." * 2000, "1979-05-27T07:32:00Z", "0x" + "f" * 400, "../../etc"),
        *("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----"),
    )
)


def mutated(corpus: Sequence[bytes], random: Random) -> bytes:
    """One of them, changed a few times."""
    data = random.choice(corpus)
    for _ in range(random.randint(1, CHANGES_MAX)):
        data = random.choice(_MUTATORS)(data, random) if random.random() < 0.85 else _spliced(data, corpus, random)
    return data[:INPUT_MAX_BYTES]


# --- bytes ------------------------------------------------------------------------------------------------------------


def _flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.randint(1, 4)):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _overwritten(data: bytes, random: Random) -> bytes:
    at = random.randint(0, len(data))
    new = random.randbytes(random.randint(1, 16))
    return data[:at] + new + data[at + len(new) :]


def _truncated(data: bytes, random: Random) -> bytes:
    return data[: random.randint(0, len(data))]


def _without_a_part(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    return data[:start] + data[end:]


def _with_a_part_twice(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    return data[:end] + data[start:end] * random.choice((1, 1, 2, 50)) + data[end:]


def _with_a_number(data: bytes, random: Random) -> bytes:
    """A fixed-width integer somewhere: the length of a safetensors header, of a frame, of a DER value."""
    width = random.choice((1, 2, 4, 8))
    number = random.choice(_HUGE) % (1 << 8 * width)
    at = random.randint(0, len(data))
    return data[:at] + number.to_bytes(width, random.choice(("little", "big"))) + data[at + width :]


def _spliced(data: bytes, corpus: Sequence[bytes], random: Random) -> bytes:
    other = random.choice(corpus)
    start, end = _range(other, random)
    at = random.randint(0, len(data))
    return data[:at] + other[start:end] + data[random.randint(at, len(data)) :]


# --- protobuf ---------------------------------------------------------------------------------------------------------


def _with_a_field(data: bytes, random: Random) -> bytes:
    """A field that is there twice, unknown, of another type, or with a length that lies."""
    number, kind = random.choice((*range(1, 24), 1000, 2**29 - 1)), random.randrange(8)
    match kind:
        case 0:
            content = _varint(random.choice(_HUGE))
        case 1:
            content = random.randbytes(8)
        case 5:
            content = random.randbytes(4)
        case 2:
            body = data[: random.randint(0, len(data))]
            content = _varint(random.choice((len(body), len(body) + 1, *_HUGE))) + body
        case _:
            content = b""
    new = _varint(number << 3 | kind) + content
    at = random.choice((0, len(data), random.randint(0, len(data))))
    return data[:at] + new + data[at:]


def _with_a_field_again(data: bytes, random: Random) -> bytes:
    """One of its own top-level fields once more, at the end: the last of two counts."""
    fields = _fields(data)
    return data + random.choice(fields) if fields else data + b"\x0a\x00"


def _with_fields_in_another_order(data: bytes, random: Random) -> bytes:
    fields = _fields(data)
    random.shuffle(fields)
    return b"".join(fields)


def _with_a_longer_varint(data: bytes, random: Random) -> bytes:
    """The same number in more bytes than it needs, or one that never ends."""
    at = random.randint(0, len(data))
    head = bytes([data[at] | 0x80]) if at < len(data) else b"\x80"
    return (
        data[:at]
        + head
        + b"\x80" * random.choice((1, 4, 9, 12))
        + random.choice((b"\0", b"\x01", b""))
        + data[at + 1 :]
    )


def _nested(data: bytes, random: Random) -> bytes:
    """The message as a field of itself, some levels deep."""
    for _ in range(random.choice((1, 3, 120))):
        data = _varint(random.randint(1, 12) << 3 | 2) + _varint(len(data)) + data
        if len(data) > INPUT_MAX_BYTES:
            break
    return data


# --- text -------------------------------------------------------------------------------------------------------------


def _with_a_token(data: bytes, random: Random) -> bytes:
    start, end = _range(data, random)
    return data[:start] + random.choice(_TOKENS) + data[random.choice((start, end)) :]


def _with_lines_moved(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data + data
    taken = lines.pop(random.randrange(len(lines)))
    for _ in range(random.choice((0, 1, 1, 2))):
        lines.insert(random.randint(0, len(lines)), taken)
    return b"".join(lines)


_MUTATORS: tuple[Mutator, ...] = (
    _flipped,
    _overwritten,
    _truncated,
    _without_a_part,
    _with_a_part_twice,
    _with_a_number,
    _with_a_field,
    _with_a_field_again,
    _with_fields_in_another_order,
    _with_a_longer_varint,
    _nested,
    _with_a_token,
    _with_lines_moved,
)


def _range(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 32, 64, len(data))))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _fields(data: bytes) -> list[bytes]:
    """The top-level fields, as far as they can be read."""
    found, at = [], 0
    while at < len(data):
        start = at
        key, at = _read_varint(data, at)
        match key & 7:
            case 0:
                _, at = _read_varint(data, at)
            case 1:
                at += 8
            case 2:
                length, at = _read_varint(data, at)
                at += length
            case 5:
                at += 4
            case _:
                break
        found.append(data[start:at])
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return number, at
