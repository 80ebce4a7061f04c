"""What may be said of the listeners, and what a start makes of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from structlog.testing import capture_logs

from coordinator.settings import CoordinatorSettings
from shared.config import load_config
from shared.errors import ConfigError
from shared.http_answer import HostRule, Query, Reply
from shared.listeners import MetricsTable, StatusTable, check_metrics, serve_metrics, serve_status
from tests.support.credentials import Consortium
from tests.support.http_peers import Scrapers, ask, head, scrape, status_of

MINIMAL = (Path(__file__).parents[3] / "deploy" / "samples" / "coordinator.minimal.toml").read_text()
TLS = 'certificate = "m.crt"\nkey = "m.key"\nclients_ca = "m-ca.crt"\n'
ROUTES = {"/metrics": lambda _query: Reply(body=b"1")}


def _settings(folder: Path, tables: str) -> CoordinatorSettings:
    path = folder / "coordinator.toml"
    path.write_text(f"{MINIMAL}\n{tables}")
    return load_config(path, CoordinatorSettings, environment={})


@pytest.mark.parametrize(
    ("table", "hosts"),
    [
        ('listen = "127.0.0.1:9464"', HostRule.LOOPBACK),
        ('listen = "127.1.2.3:9464"', HostRule.LOOPBACK),
        ('listen = "localhost:9464"', HostRule.LOOPBACK),
        ('listen = "[::1]:9464"', HostRule.LOOPBACK),
        (f'listen = "127.0.0.1:9464"\n{TLS}', HostRule.ANY),
        (f'listen = "0.0.0.0:9464"\n{TLS}', HostRule.ANY),
        ('listen = "10.0.0.1:9464"\ninternal_network = true', HostRule.INTERNAL),
        ('listen = "[::]:9464"\ninternal_network = true', HostRule.INTERNAL),
        ('listen = "off"\ninternal_network = true', HostRule.INTERNAL),
    ],
)
def test_metrics_by_one_way_or_the_other(tmp_path: Path, table: str, hosts: HostRule) -> None:
    metrics = _settings(tmp_path, f"[metrics]\n{table}\n").metrics
    assert metrics.hosts is hosts
    assert (metrics.tls is not None) is ("certificate" in table)
    if metrics.tls is not None:
        assert metrics.tls.clients_ca == tmp_path / "m-ca.crt"


@pytest.mark.parametrize("host", ["0.0.0.1", "[::]", "10.0.0.1", "metrics.example", "localhost.example", "[::2]"])
def test_plain_metrics_away_from_loopback_are_refused_with_both_ways_out(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"clients_ca \(mutual TLS\), or internal_network = true if only your"):
        _settings(tmp_path, f'[metrics]\nlisten = "{host}:9464"\n')


@pytest.mark.parametrize("host", ["0.0.0.1", "[::]", "10.0.0.1", "coordinator.example"])
def test_a_status_page_away_from_loopback_is_refused_always(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"status: listen: expected a loopback address such as 127\.0\.0\.1:9466"):
        _settings(tmp_path, f'[status]\nlisten = "{host}:9466"\n')
    with pytest.raises(ConfigError, match=r"status\.internal_network: unknown key"):
        _settings(tmp_path, f'[status]\nlisten = "{host}:9466"\ninternal_network = true\n')


@pytest.mark.parametrize("left_out", TLS.splitlines())
def test_the_three_keys_of_tls_come_together(tmp_path: Path, left_out: str) -> None:
    some = TLS.replace(f"{left_out}\n", "")
    with pytest.raises(ConfigError, match=rf"or none of them; not given: {left_out.split(maxsplit=1)[0]}"):
        _settings(tmp_path, f'[metrics]\nlisten = "127.0.0.1:9464"\n{some}')


def test_an_internal_network_contradicts_tls_and_loopback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="internal_network = true means plain HTTP"):
        _settings(tmp_path, f'[metrics]\nlisten = "0.0.0.0:9464"\ninternal_network = true\n{TLS}')
    with pytest.raises(ConfigError, match="internal_network = true has no meaning where only this machine"):
        _settings(tmp_path, '[metrics]\nlisten = "127.0.0.1:9464"\ninternal_network = true\n')


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path / "consortium")


def _table(scrapers: Scrapers, listen: str = "127.0.0.1:0") -> MetricsTable:
    tls = scrapers.tls
    return MetricsTable(listen=listen, certificate=tls.certificate, key=tls.key, clients_ca=tls.clients_ca)


def _serve(table: MetricsTable, consortium: Consortium) -> str:
    with serve_metrics(table, ROUTES, consortium_ca=consortium.coordinator().tls.ca) as shown:
        return shown


def test_metrics_are_served_by_mutual_tls(tmp_path: Path, consortium: Consortium) -> None:
    scrapers = Scrapers(tmp_path / "scrapers")
    with serve_metrics(_table(scrapers), ROUTES, consortium_ca=consortium.coordinator().tls.ca) as shown:
        port = int(shown.removeprefix("127.0.0.1:"))
        assert status_of(scrape(port, scrapers.tls.clients_ca, scrapers.prometheus)[0]) == 200
    assert check_metrics(_table(scrapers), consortium_ca=consortium.coordinator().tls.ca).endswith("by mutual TLS")


def test_members_of_the_consortium_are_no_scrapers(tmp_path: Path, consortium: Consortium) -> None:
    scrapers = Scrapers(tmp_path / "scrapers")
    scrapers.tls.clients_ca.write_bytes(scrapers.authority.ca_pem + consortium.ca_pem)
    with pytest.raises(ConfigError, match="is the consortium's authority, so every member could collect"):
        _serve(_table(scrapers), consortium)


def test_members_are_no_scrapers_either_when_the_files_are_replaced(tmp_path: Path, consortium: Consortium) -> None:
    scrapers = Scrapers(tmp_path / "scrapers")
    with (
        capture_logs() as lines,
        serve_metrics(_table(scrapers), ROUTES, consortium_ca=consortium.coordinator().tls.ca) as shown,
    ):
        ours = scrapers.authority.ca_pem
        scrapers.tls.clients_ca.write_bytes(ours + consortium.ca_pem)
        known = tmp_path / "known.crt"
        known.write_bytes(ours)
        port = int(shown.removeprefix("127.0.0.1:"))
        assert status_of(scrape(port, known, scrapers.prometheus)[0]) == 200  # by the files as they were
        with pytest.raises(OSError):
            scrape(port, known, consortium.participant("hospital-a"))
    assert [line["event"] for line in lines].count("http_tls_files_refused") == 1


def test_what_cannot_be_compared_is_not_taken(tmp_path: Path, consortium: Consortium) -> None:
    scrapers = Scrapers(tmp_path / "scrapers")
    consortium_ca = tmp_path / "ca.crt"
    consortium_ca.write_bytes(consortium.ca_pem)
    known = tmp_path / "known.crt"
    known.write_bytes(scrapers.authority.ca_pem)
    with serve_metrics(_table(scrapers), ROUTES, consortium_ca=consortium_ca) as shown:
        consortium_ca.unlink()
        scrapers.tls.clients_ca.write_bytes(scrapers.authority.ca_pem + consortium.ca_pem)
        port = int(shown.removeprefix("127.0.0.1:"))
        with pytest.raises(OSError):
            scrape(port, known, consortium.participant("hospital-a"))
        assert status_of(scrape(port, known, scrapers.prometheus)[0]) == 200
    with pytest.raises(ConfigError, match="cannot be compared with the consortium's authority"):
        check_metrics(_table(scrapers), consortium_ca=consortium_ca)


def test_the_consortiums_key_is_known_under_another_certificate(tmp_path: Path, consortium: Consortium) -> None:
    scrapers = Scrapers(tmp_path / "scrapers")
    key = load_pem_private_key((consortium.folder / "authority" / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    before = x509.load_pem_x509_certificate(consortium.ca_pem)
    again = x509.CertificateBuilder(
        before.issuer, before.subject, before.public_key(), x509.random_serial_number(),
        before.not_valid_before_utc, before.not_valid_after_utc, list(before.extensions),
    ).sign(key, hashes.SHA384())  # fmt: skip
    scrapers.tls.clients_ca.write_bytes(again.public_bytes(Encoding.PEM))
    with pytest.raises(ConfigError, match="is the consortium's authority, so every member could collect"):
        _serve(_table(scrapers), consortium)


def test_the_files_of_tls_are_looked_at_before_anybody_asks(tmp_path: Path, consortium: Consortium) -> None:
    scrapers = Scrapers(tmp_path / "scrapers")
    own, other = scrapers.tls, Scrapers(tmp_path / "other").tls
    spoiled = {
        r"metrics\.certificate: .* cannot be read \(No such file": _with(own, certificate=tmp_path / "none"),
        r"metrics\.certificate: .*: expected a certificate in PEM form": _with(own, certificate=own.key),
        r"metrics\.key: .* cannot be read \(Is a directory": _with(own, key=tmp_path),
        r"expected a private key in PEM form": _with(own, key=own.certificate),
        r"metrics\.key: .* is not the key of .*they were made apart": _with(own, key=other.key),
        r"metrics\.clients_ca: .*is this a leaf certificate\?": _with(own, clients_ca=own.certificate),
    }
    for expected, table in spoiled.items():
        with pytest.raises(ConfigError, match=expected):
            _serve(table, consortium)
        with pytest.raises(ConfigError, match=expected):
            check_metrics(table, consortium_ca=consortium.coordinator().tls.ca)
    own.key.chmod(0o640)
    with pytest.raises(ConfigError, match="expected a key that only its owner can read, got mode 0640"):
        _serve(_table(scrapers), consortium)


def _with(tls: object, **changed: Path) -> MetricsTable:
    kept = {name: getattr(tls, name) for name in ("certificate", "key", "clients_ca")}
    return MetricsTable(listen="127.0.0.1:0", **{**kept, **changed})


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_status_port_that_nobody_chose_may_be_taken(taken: int) -> None:
    table = StatusTable(listen=f"127.0.0.1:{taken}")
    with capture_logs() as lines, serve_status(table, {}, wanted=False) as shown:
        assert shown == "off"
    (line,) = lines
    assert (line["event"], line["log_level"]) == ("status_unavailable", "warning")
    assert f"127.0.0.1:{taken}" in line["reason"]
    with (
        pytest.raises(ConfigError, match=rf"status\.listen: cannot listen on 127\.0\.0\.1:{taken}"),
        serve_status(table, {}, wanted=True),
    ):
        pass


def test_a_status_page_is_wanted_where_the_file_names_it(tmp_path: Path) -> None:
    assert not _settings(tmp_path, "").status_wanted
    assert _settings(tmp_path, '[status]\nlisten = "127.0.0.1:9466"\n').status_wanted
    environment = {"CONSILO_STATUS__LISTEN": "127.0.0.1:9999"}
    assert load_config(tmp_path / "coordinator.toml", CoordinatorSettings, environment=environment).status_wanted


def test_the_status_page_answers_to_names_of_loopback() -> None:
    def page(_query: Query) -> Reply:
        return Reply(body=b"page")

    with serve_status(StatusTable(listen="127.0.0.1:0"), {"/": page}, wanted=True) as shown:
        port = int(shown.rpartition(":")[2])
        assert status_of(ask(port)) == 200
        assert status_of(ask(port, head(host="evil.example"))) == 421
    with serve_status(StatusTable(listen="off"), {"/": page}, wanted=True) as shown:
        assert shown == "off"
