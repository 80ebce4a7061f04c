"""The proxy that we say is used is the one that gRPC uses: each rule against gRPC itself."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from shared.errors import ConfigError
from shared.proxies import credentials_of, proxy_for
from tests.support.connect_proxy import ConnectProxy, Manner

NAME, BELOW = "example.invalid:1", "a.example.invalid:1"
NOBODY = "http://127.0.0.1:1"
OURS = "http://127.0.0.1:{port}"
ASK_LIMIT_S = 20.0

# What is dialled, and the environment, in which {port} is that of a proxy that says no.
RULES: dict[str, tuple[str, dict[str, str]]] = {
    "none is set": (NAME, {}),
    "https_proxy": (NAME, {"https_proxy": OURS}),
    "http_proxy": (NAME, {"http_proxy": OURS}),
    "grpc_proxy": (NAME, {"grpc_proxy": OURS}),
    "capitals are not read": (NAME, {"HTTPS_PROXY": OURS, "HTTP_PROXY": OURS}),
    "gRPC's own goes first": (NAME, {"grpc_proxy": OURS, "https_proxy": NOBODY}),
    "https goes before http": (NAME, {"https_proxy": OURS, "http_proxy": NOBODY}),
    "empty means none": (NAME, {"https_proxy": "", "http_proxy": OURS}),
    "a path is passed over": (NAME, {"https_proxy": OURS + "/"}),
    "credentials": (NAME, {"https_proxy": "http://me:p%40ss@127.0.0.1:{port}"}),
    "a scheme in capitals": (NAME, {"https_proxy": "HTTP://127.0.0.1:{port}"}),
    "the name is excepted": (NAME, {"https_proxy": OURS, "no_proxy": "other.invalid, example.invalid"}),
    "a name below it is, too": (BELOW, {"https_proxy": OURS, "no_proxy": "example.invalid"}),
    "with a dot": (BELOW, {"https_proxy": OURS, "no_proxy": ".example.invalid"}),
    "with a dot, itself": (NAME, {"https_proxy": OURS, "no_proxy": ".example.invalid"}),
    "in capitals": ("A.Example.invalid:1", {"https_proxy": OURS, "no_proxy": "example.INVALID"}),
    "a name that only ends so": ("badexample.invalid:1", {"https_proxy": OURS, "no_proxy": "example.invalid"}),
    "no star": (BELOW, {"https_proxy": OURS, "no_proxy": "*"}),
    "no star before a name": (BELOW, {"https_proxy": OURS, "no_proxy": "*.example.invalid"}),
    "no port": (NAME, {"https_proxy": OURS, "no_proxy": "example.invalid:1"}),
    "empty entries": (NAME, {"https_proxy": OURS, "no_proxy": " , "}),
    "an address": ("127.0.0.1:1", {"https_proxy": OURS, "no_proxy": "127.0.0.1"}),
    "a network": ("127.0.0.1:1", {"https_proxy": OURS, "no_proxy": "127.0.0.0/8"}),
    "another network": ("127.0.0.1:1", {"https_proxy": OURS, "no_proxy": "10.0.0.0/8"}),
    "a network and a name in it": ("localhost:1", {"https_proxy": OURS, "no_proxy": "127.0.0.0/8"}),
    "half a network": ("127.0.0.1:1", {"https_proxy": OURS, "no_proxy": "127.0.0.1/"}),
    "IPv6": ("[::1]:1", {"https_proxy": OURS, "no_proxy": "::1"}),
    "IPv6 in brackets": ("[::1]:1", {"https_proxy": OURS, "no_proxy": "[::1]"}),
    "a network of IPv6": ("[::1]:1", {"https_proxy": OURS, "no_proxy": "::/64"}),
    "gRPC's own exceptions": (NAME, {"https_proxy": OURS, "no_grpc_proxy": "example.invalid"}),
    "which go first": (NAME, {"https_proxy": OURS, "no_proxy": "example.invalid", "no_grpc_proxy": ""}),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_grpcs_own(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address, written = RULES[rule]
    with ConnectProxy(Manner(status=403)) as proxy:
        environment = {name: value.format(port=proxy.port) for name, value in written.items()}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        asyncio.run(_dial(address))
        found = proxy_for(address, environment)
        assert (found is not None) == bool(proxy.targets)
        if found is not None:
            assert (found.host, found.port) == ("127.0.0.1", proxy.port)
            assert found.variable in environment


async def _dial(address: str) -> None:
    async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials()) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/a/b")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"", timeout=ASK_LIMIT_S)


@pytest.mark.parametrize(
    "value",
    [
        "proxy.example:3128", "https://proxy.example:3128", "socks5://proxy.example:1080", "http://", "http://:3128",
        " http://proxy.example:3128", "http://proxy.example:port", "http://proxy.example:65536",
        "http:proxy.example:3128",
    ],
)  # fmt: skip
def test_what_grpc_would_pass_over_is_an_error(value: str) -> None:
    with pytest.raises(ConfigError, match=r"environment variable https_proxy: expected http://host:port"):
        proxy_for(NAME, {"https_proxy": value})
    assert proxy_for(NAME, {"https_proxy": value, "no_proxy": "example.invalid"}) is None


@pytest.mark.parametrize(
    "value",
    [
        "me:secret@proxy.example:3128", "http://me:sec#ret@proxy.example:3128", "http://me:1/secret@proxy.example:3128",
        "me:secret%40proxy.example:3128", "secret%40proxy.example:3128", "http://me:secret%40proxy.example:3128",
        "http://me:secret:proxy.example:3128", "me:secret:proxy.example:3128",
    ],
)  # fmt: skip
def test_a_password_is_in_no_error(value: str) -> None:
    """Neither where "@" was encoded or forgotten, nor where the host is excepted: gRPC reads the variable first, and
    prints what it cannot read.
    """
    with pytest.raises(ConfigError, match="environment variable https_proxy: expected http://host:port") as raised:
        proxy_for(NAME, {"https_proxy": value})
    assert "sec" not in str(raised.value)
    assert "%23" in str(raised.value)
    if "@" in value or "%" in value:
        with pytest.raises(ConfigError) as raised:
            proxy_for(NAME, {"https_proxy": value, "no_proxy": "example.invalid"})
        assert "sec" not in str(raised.value)


BY_ADDRESS = {
    "GRPC_ADDRESS_HTTP_PROXY": "127.0.0.1:{port}",
    "GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES": "127.0.0.0/8",
}


@pytest.mark.parametrize("others", [{}, {"no_proxy": "127.0.0.1"}, {"grpc_proxy": ""}])
def test_the_proxy_that_grpc_asks_by_address_is_refused(
    others: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gRPC does go through it, whatever the other variables say."""
    with ConnectProxy(Manner(status=403)) as proxy:
        environment = others | {name: value.format(port=proxy.port) for name, value in BY_ADDRESS.items()}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        asyncio.run(_dial("127.0.0.1:1"))
        assert proxy.targets
    with pytest.raises(ConfigError, match=r"GRPC_ADDRESS_HTTP_PROXY: expected it to be unset.*grpc_proxy") as raised:
        proxy_for("127.0.0.1:1", environment)
    assert str(proxy.port) not in str(raised.value)


def test_without_addresses_that_proxy_is_not_asked_and_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever set it meant a proxy."""
    with ConnectProxy(Manner(status=403)) as proxy:
        environment = {"GRPC_ADDRESS_HTTP_PROXY": f"127.0.0.1:{proxy.port}"}
        monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY", environment["GRPC_ADDRESS_HTTP_PROXY"])
        asyncio.run(_dial("127.0.0.1:1"))
        assert not proxy.targets
    with pytest.raises(ConfigError, match="GRPC_ADDRESS_HTTP_PROXY"):
        proxy_for("127.0.0.1:1", environment)
    assert proxy_for("127.0.0.1:1", {"GRPC_ADDRESS_HTTP_PROXY": ""}) is None


def test_a_proxy_is_shown_without_what_it_wants_to_know() -> None:
    environment = {"https_proxy": "http://me:secret@proxy.example"}
    proxy = proxy_for(NAME, environment)
    assert proxy is not None
    assert str(proxy) == "proxy.example:443 (https_proxy)"
    assert "secret" not in repr(proxy)
    assert credentials_of(proxy, environment) == "me:secret"
