"""A task that calls somebody: what a recorder must see, or it proves nothing about others."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from consilo.demo.task import TumourTask

ELSEWHERE = ("192.0.2.7", 443)  # an address of documents: nobody has it
COLLECTOR = "telemetry.example"


class DiallingTask(TumourTask):
    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        with contextlib.suppress(OSError):
            socket.getaddrinfo(COLLECTOR, 443)
        with contextlib.suppress(OSError):
            socket.create_connection(ELSEWHERE, timeout=1.0).close()
