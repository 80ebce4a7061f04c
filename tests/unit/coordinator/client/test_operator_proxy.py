"""An operator's commands behind a proxy: it is named where there is no connection, and never passed over."""

from __future__ import annotations

import pytest

from coordinator.client.rpc import OperationsChannel
from shared.errors import ConfigError, UnreachableError
from tests.support.connect_proxy import ConnectProxy, Manner
from tests.support.credentials import Consortium

ADDRESS = "coordinator.invalid:8443"


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("pki"))


def test_a_proxy_on_the_way_is_named(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConnectProxy(Manner(status=403)) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        channel = OperationsChannel(address=ADDRESS, tls=consortium.operator().tls)
        with channel, pytest.raises(UnreachableError) as raised:
            channel.ask("ListJobs", b"")
        assert proxy.targets == [ADDRESS]
    said = f"no connection to the coordinator at {ADDRESS} by way of the proxy 127.0.0.1:{proxy.port} (https_proxy)"
    assert str(raised.value).startswith(said)
    assert "HTTP proxy returned response code 403" in str(raised.value)


def test_a_proxy_that_grpc_would_pass_over_is_an_error(consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://proxy.invalid:1080")
    with pytest.raises(ConfigError, match="https_proxy: expected http://host:port"):
        OperationsChannel(address=ADDRESS, tls=consortium.operator().tls)
