"""What a daemon tells the service manager that started it: that it serves, and that it is ending.

systemd names a socket in NOTIFY_SOCKET for a unit of `Type=notify` (sd_notify(3)); then `systemctl start` returns when
the daemon serves, and not when its process is there. Without that variable nobody asked, and nothing is told. It is
taken out of the environment, so that a task's processes do not speak for the daemon. A manager that does not listen is
no reason to end a daemon that works: it is logged.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final, Literal

import structlog

NOTIFY_VARIABLE: Final = "NOTIFY_SOCKET"
SEND_LIMIT_S: Final = 1.0  # a full socket must not hold the event loop

_log = structlog.get_logger(__name__)

State = Literal["READY=1", "STOPPING=1"]


class ServiceManager:
    """Whoever listens at the socket that the environment names; nobody, where it names none."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop(NOTIFY_VARIABLE, "")

    def ready(self) -> None:
        """Say that the daemon serves."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Say that it was told to end, and does."""
        self._tell("STOPPING=1")

    def _tell(self, state: State) -> None:
        if not self._address:
            return
        # An @ stands for the zero byte of Linux's abstract names.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
                told.settimeout(SEND_LIMIT_S)
                told.sendto(state.encode(), address)
        except (OSError, ValueError) as error:
            _log.warning("service_manager_not_told", state=state, address=self._address, reason=str(error))
