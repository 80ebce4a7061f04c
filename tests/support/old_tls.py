"""A client that speaks TLS 1.2, which gRPC's own client cannot be told to: just enough HTTP/2 to make one call."""

from __future__ import annotations

import asyncio
import ssl

from shared.tls import TlsPaths

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_EMPTY_MESSAGE = bytes(5)  # not compressed, of length 0


async def call_with_tls12(port: int, paths: TlsPaths, method: str) -> str:
    """Make one unary call with an empty message and read until the other side falls silent.

    Returns the TLS version that was agreed on; raises ssl.SSLError or OSError when there was no agreement.
    """
    context = ssl.create_default_context(cafile=str(paths.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(str(paths.certificate), str(paths.key))
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context, server_hostname="localhost")
    agreed = writer.get_extra_info("ssl_object").version()
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
    writer.write(_frame(_HEADERS, _END_HEADERS, 1, b"".join(_literal(*pair) for pair in headers.items())))
    writer.write(_frame(_DATA, _END_STREAM, 1, _EMPTY_MESSAGE))
    await writer.drain()
    await _read_until_stream_ends(reader)
    writer.close()
    return str(agreed)


async def _read_until_stream_ends(reader: asyncio.StreamReader) -> None:
    while True:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if head[3] in {_DATA, _HEADERS} and head[4] & _END_STREAM:
            return


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _literal(name: str, value: str) -> bytes:
    """A header field as HPACK spells it without tables (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
