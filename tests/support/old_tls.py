"""A client that speaks TLS 1.2, which gRPC's own client cannot be told to: just enough HTTP/2 to make one call."""

from __future__ import annotations

import ssl

from shared.tls import TlsPaths
from tests.support.raw_http2 import DATA, EMPTY_MESSAGE, END_STREAM, HEADERS, Connection, call, frame, tls_context


async def call_with_tls12(port: int, paths: TlsPaths, method: str) -> str:
    """Make one unary call with an empty message and read until the other side ends the stream.

    Returns the TLS version that was agreed on; raises ssl.SSLError or OSError when there was no agreement.
    """
    context = tls_context(paths, str(paths.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    connection = await Connection.open(port, context)
    agreed = connection.writer.get_extra_info("ssl_object").version()
    await connection.greet()
    await connection.say(call(1, method), frame(DATA, END_STREAM, 1, EMPTY_MESSAGE))
    while True:
        kind, flags, _, _ = await connection.hear()
        if kind in {DATA, HEADERS} and flags & END_STREAM:
            break
    connection.close()
    return str(agreed)
