"""A name server for names that a test moves: A and AAAA over UDP, as small as DNS allows.

It answers on port 53 of the loopback interface, so it needs a network namespace of its own (`unshare -n -m`) with a
resolv.conf that names it. Answers may be kept for an hour: whoever keeps them finds the old address.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

TTL_S = 3600
_TYPES = {4: 1, 6: 28}  # A, AAAA
_HEADER = struct.Struct("!6H")
_ANSWER = struct.Struct("!HHHIH")  # the name as a pointer to the question, type, class, seconds, length
_TO_QUESTION = 0xC000 | _HEADER.size
_RESPONSE, _NO_SUCH_NAME = 0x8580, 3


class NameServer:
    """`names` may be changed at any time: the addresses of each name, in lower case."""

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 53)) -> None:
        self.names: dict[str, Sequence[str]] = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendto(b"", self._socket.getsockname())  # an empty question ends it
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._answer(question), asker)

    def _answer(self, question: bytes) -> bytes:
        number, *_ = _HEADER.unpack_from(question)
        labels, place = [], _HEADER.size
        while length := question[place]:
            labels.append(question[place + 1 : place + 1 + length].decode())
            place += 1 + length
        (kind,) = struct.unpack_from("!H", question, place + 1)
        name = ".".join(labels).lower()
        self.asked.append(name)
        addresses = [
            address.packed
            for address in map(ipaddress.ip_address, self.names.get(name, ()))
            if _TYPES[address.version] == kind
        ]
        flags = _RESPONSE if name in self.names else _RESPONSE | _NO_SUCH_NAME
        return b"".join(
            (
                _HEADER.pack(number, flags, 1, len(addresses), 0, 0),
                question[_HEADER.size : place + 5],
                *(_ANSWER.pack(_TO_QUESTION, kind, 1, TTL_S, len(packed)) + packed for packed in addresses),
            )
        )
