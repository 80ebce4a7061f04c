"""Just enough HTTP/2 to say what gRPC's own client never would: frames by hand over TLS, or over nothing."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Self

from shared.tls import TlsPaths

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
EMPTY_MESSAGE = bytes(5)  # not compressed, of length 0


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def field(name: str, value: str) -> bytes:
    """A header field as HPACK spells it without tables (RFC 7541, 6.2.2)."""
    return b"\0" + _text(name) + _text(value)


def call(stream: int, method: str, *, flags: int = END_HEADERS, more: bytes = b"") -> bytes:
    """The headers of one gRPC call, with more fields after its own."""
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return frame(HEADERS, flags, stream, b"".join(field(*pair) for pair in headers.items()) + more)


def tls_context(paths: TlsPaths | None, ca: str) -> ssl.SSLContext:
    """What a client brings: its certificate, or none."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    if paths is not None:
        context.load_cert_chain(str(paths.certificate), str(paths.key))
    return context


@dataclass(slots=True)
class Connection:
    """One connection on which nothing is said that a test does not say."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext | None) -> Self:
        name = None if context is None else "localhost"
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name))

    async def say(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))
        await self.writer.drain()

    async def greet(self) -> None:
        """The preface, and settings that change nothing."""
        await self.say(PREFACE, frame(SETTINGS, 0, 0))

    async def hear(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream and body. Raises IncompleteReadError or OSError at the end."""
        head = await self.reader.readexactly(9)
        body = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:9], "big"), body

    async def until_closed(self) -> list[tuple[int, int, int, bytes]]:
        """Everything that the other side says until it closes. Settings and pings are acknowledged on the way."""
        heard = []
        try:
            while True:
                said = await self.hear()
                heard.append(said)
                if said[0] in {SETTINGS, PING} and not said[1] & ACK:
                    await self.say(frame(said[0], ACK, 0, said[3] if said[0] == PING else b""))
        except (asyncio.IncompleteReadError, OSError):
            return heard

    async def until_eof(self) -> None:
        """Read without a word until the other side closes."""
        try:
            while await self.reader.read(65536):
                pass
        except OSError:
            pass

    def close(self) -> None:
        """At once: a TLS farewell would wait for an answer."""
        self.writer.transport.abort()


def _text(text: str) -> bytes:
    """A string literal without Huffman coding; its length in the prefix integers of RFC 7541, 5.1."""
    raw = text.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest, length = len(raw) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + raw
