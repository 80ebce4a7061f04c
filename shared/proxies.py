"""Which HTTP proxy gRPC dials through, read from the environment as gRPC itself reads it.

gRPC takes its proxy from lower-case variables and says little when it cannot use one: a value that it does not
understand is passed over, and it dials directly. Whoever set a proxy meant it, so such a value is an error here, before
anything is dialled. gRPC would also print it as it stands, with the password in it; an error of ours shows nothing of
it, because where a password begins in a value that is no URL, nobody knows.

Each rule below was tried with grpcio 1.85.1, and a test holds them against it: the first variable that is set counts,
also when it is empty, which means "no proxy"; only `http://` is spoken, and without a port 443 is meant; the list of
exceptions has names (which cover what is below them), addresses and networks, and knows no `*` and no ports.

ADDRESS_VARIABLE names a proxy of another kind: gRPC goes through it to the addresses in one more variable, be they the
coordinator's or those of the proxy above, without regard to the exceptions. Nothing here would see it, so it is an
error as well.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass

from shared.config import PORT_MAX, split_address
from shared.errors import ConfigError

PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
EXCEPTION_VARIABLES = ("no_grpc_proxy", "no_proxy")
ADDRESS_VARIABLE = "GRPC_ADDRESS_HTTP_PROXY"
DEFAULT_PORT = 443

_URL = re.compile(
    r"http://(?:(?P<credentials>[^@/?#]+)@)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?:/[^@]*)?",
    re.IGNORECASE,
)
_WITH_A_PASSWORD = re.compile("[@%]")  # which gRPC would print, also where the host is excepted


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy as the environment names it. What it wants to know of us is never printed."""

    variable: str
    host: str
    port: int
    has_credentials: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} ({self.variable})"


def proxy_for(address: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy between here and `address` (host:port); None when it is dialled directly. Raises ConfigError."""
    if environment.get(ADDRESS_VARIABLE):
        raise ConfigError(
            f"environment variable {ADDRESS_VARIABLE}: expected it to be unset, because a proxy in it is checked by "
            "nothing here. Unset it, and name the proxy in grpc_proxy or https_proxy"
        )
    variable = next((name for name in PROXY_VARIABLES if name in environment), None)
    value = environment[variable] if variable else ""
    if variable is None or not value:
        return None
    parts = _URL.fullmatch(value)
    excepted = _is_excepted(split_address(address)[0], environment)
    if excepted and (parts is not None or not _WITH_A_PASSWORD.search(value)):
        return None
    if parts is None or int(parts["port"] or DEFAULT_PORT) > PORT_MAX:
        raise ConfigError(
            f"environment variable {variable}: expected http://host:port or http://user:password@host:port, got a "
            "value that gRPC does not take for a proxy (in a password, write / ? # @ and % as %2F %3F %23 %40 %25; the "
            "@ before the host stays). Mend it, or set grpc_proxy to nothing to dial directly"
        )
    return Proxy(
        variable, parts["host"].strip("[]"), int(parts["port"] or DEFAULT_PORT), parts["credentials"] is not None
    )


def credentials_of(proxy: Proxy, environment: Mapping[str, str]) -> str | None:
    """What the proxy wants to know of us, still percent-encoded; None where the variable says nothing of it."""
    parts = _URL.fullmatch(environment.get(proxy.variable, ""))
    return parts["credentials"] if parts else None


def _is_excepted(host: str, environment: Mapping[str, str]) -> bool:
    variable = next((name for name in EXCEPTION_VARIABLES if name in environment), None)
    entries = environment[variable].split(",") if variable else ()
    return any(_covers(entry.strip().lower(), host.lower()) for entry in entries)


def _covers(entry: str, host: str) -> bool:
    if not entry:
        return False
    return host == entry.removeprefix(".") or host.endswith("." + entry.removeprefix(".")) or _within(entry, host)


def _within(network: str, host: str) -> bool:
    if "/" not in network:
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
