"""The doctor against a coordinator that works: all is well, it refuses this silo, or a daemon runs beside it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from participant.cli import participant
from participant.doctor.device import device_found
from participant.doctor.dialling import Caller, Dialling
from participant.doctor.rows import NEXT, findings, in_reserve
from participant.membership import check_consortium
from participant.settings import ParticipantSettings
from participant.startup import check_identity, lock_folder
from participant.tasks.accelerators import Accelerators, Device
from participant.tasks.contract import DeviceRequest
from shared.clock import SystemClock
from shared.config import load_config
from shared.errors import ConfigError
from shared.findings import Caution, Finding
from shared.ids import JobId
from tests.support.connect_proxy import ConnectProxy, Manner
from tests.support.credentials import Consortium, Credentials
from tests.support.federation import CONSILO, free_port
from tests.support.live_coordinator import live_coordinator

LIMIT_S = 60.0
ALL_WELL = {
    "proxy": "none is set",
    "name": r"127\.0\.0\.1 \(IPv4\)",
    "connection": r"127\.0\.0\.1: in [0-9.]+ ms",
    "TLS": "TLSv1.3, h2, signed by 'CN=Consilo authority,O=hearts.example'",
    "clock": r"the coordinator's certificate is of .*, so it is not behind that\. Nothing here tells more",
    "certificate": r"spiffe://hearts\.example/coordinator/coordinator for localhost, 127\.0\.0\.1, ::1; valid until",
    "our certificate": "takes it in the handshake",
    "session": r"opened and ended in [0-9.]+ ms; test, protocol 1, heartbeats every 4 s",
}


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path / "pki")


def configured(
    folder: Path, tls: Credentials, *, signing: Credentials | None = None, addresses: tuple[str, ...] = ("localhost:1",)
) -> Path:
    signing = signing or tls
    config = folder / "participant.toml"
    config.write_text(
        f'[participant]\nid = "hospital-a"\ncoordinators = {json.dumps(addresses)}\ndata_dir = "data"\n'
        f'[tls]\ncertificate = "{tls.tls.certificate}"\nkey = "{tls.tls.key}"\nca = "{tls.tls.ca}"\n'
        f'[signing]\ncertificate = "{signing.signing_certificate}"\nkey = "{signing.signing_key_path}"\n'
    )
    return config


def dialled(config: Path, address: str, environment: Mapping[str, str]) -> dict[str, Finding]:
    settings = load_config(config, ParticipantSettings, environment={})
    checked = check_identity(settings)
    caller = Caller(
        settings=settings,
        environment=environment,
        clock=SystemClock(),
        checked=checked,
        consortium=check_consortium(settings, checked.signing),
    )
    return {row.name.removesuffix(f" {address}"): row for row in Dialling(caller, address).rows()}


def against_a_coordinator(
    consortium: Consortium,
    folder: Path,
    config: Path,
    *,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Finding]:
    async def scenario() -> dict[str, Finding]:
        async with live_coordinator(consortium, folder) as live:
            return await asyncio.to_thread(dialled, config, f"localhost:{live.port}", environment or {})

    return asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


def test_all_is_well(consortium: Consortium, tmp_path: Path) -> None:
    config = configured(tmp_path, consortium.participant("hospital-a"))
    rows = against_a_coordinator(consortium, tmp_path, config)
    assert rows.keys() == ALL_WELL.keys()
    for step, said in ALL_WELL.items():
        assert rows[step].result == "ok"
        assert re.search(said, rows[step].detail), rows[step]


@pytest.mark.parametrize(("password", "written"), [("p@ss", "p%40ss"), ("p\udcfcss", "p%FCss")], ids=["text", "bytes"])
def test_all_is_well_through_a_proxy(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str, written: str
) -> None:
    config = configured(tmp_path, consortium.participant("hospital-a"))
    with ConnectProxy(Manner(credentials=f"me:{password}")) as proxy:
        url = proxy.url.replace(password, written)
        monkeypatch.setenv("https_proxy", url)
        rows = against_a_coordinator(consortium, tmp_path, config, environment={"https_proxy": url})
        assert [row.name for row in rows.values() if row.result != "ok"] == []
        assert rows["name"].detail == "the proxy looks up localhost, not this machine"
        assert "the proxy connects us" in rows["connection"].detail
        assert len(proxy.targets) == 4  # connection, TLS, our certificate, and gRPC's own for the session


def test_all_is_well_over_ipv6(consortium: Consortium, tmp_path: Path) -> None:
    config = configured(tmp_path, consortium.participant("hospital-a"))

    async def scenario() -> dict[str, Finding]:
        async with live_coordinator(consortium, tmp_path, listen="[::1]:0") as live:
            return await asyncio.to_thread(dialled, config, f"[::1]:{live.port}", {})

    rows = asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))
    assert [row.name for row in rows.values() if row.result != "ok"] == []
    assert rows["name"].detail == "::1 is an address"


def test_no_round_begins_because_the_doctor_called(consortium: Consortium, tmp_path: Path) -> None:
    """A member that offered its task would be counted as there, and is gone again before it could train."""
    config = configured(tmp_path, consortium.participant("hospital-a"))

    async def scenario() -> None:
        async with live_coordinator(consortium, tmp_path) as live:
            model, _ = await live.add_model(4)
            await live.submit("study-1", ["hospital-a"], model)
            rows = await asyncio.to_thread(dialled, config, f"localhost:{live.port}", {})
            assert rows["session"].result == "ok"
            assert not live.store.rounds(JobId("study-1"))

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


def test_a_daemon_that_runs_keeps_its_session(consortium: Consortium, tmp_path: Path) -> None:
    config = configured(tmp_path, consortium.participant("hospital-a"))
    with lock_folder(tmp_path / "data"):
        rows = against_a_coordinator(consortium, tmp_path, config)
    assert rows["our certificate"].result == "ok"
    assert rows["session"].result == "skipped"
    assert "a daemon runs here" in rows["session"].detail


def test_no_task_is_loaded_beside_a_daemon_that_runs(consortium: Consortium, tmp_path: Path) -> None:
    config = configured(tmp_path, consortium.participant("hospital-a"))
    with config.open("a") as file:
        file.write('[tasks.digits]\nentry = "a_module_that_is_nowhere:Task"\n')
    settings = load_config(config, ParticipantSettings, environment={})
    with lock_folder(tmp_path / "data"):
        found = next(row for row in findings(settings, {}) if row.name == "task digits")
    assert found.skipped
    assert "beside the daemon that runs: see its log" in found.detail


def test_who_is_not_on_the_allow_list_reads_what_the_operator_needs(consortium: Consortium, tmp_path: Path) -> None:
    member = consortium.participant("hospital-a")
    listed = consortium.allowlist.read_text()
    consortium.coordinator()
    consortium.allowlist.write_text(consortium.allowlist.read_text().replace('"hospital-a"', '"hospital-z"'))
    rows = against_a_coordinator(consortium, tmp_path, configured(tmp_path, member))
    assert rows["our certificate"].result == "ok"
    assert rows["session"].result == "FAILED"
    assert "not on the coordinator's allow-list" in rows["session"].detail
    named = re.search("tls_sha256 ([0-9a-f]{64}), signing_sha256 ([0-9a-f]{64})$", rows["session"].detail)
    assert named is not None
    assert all(digest in listed for digest in named.groups())


def test_an_older_signing_certificate_is_refused_by_its_name(consortium: Consortium, tmp_path: Path) -> None:
    member = consortium.participant("hospital-a")
    listed = re.findall('signing_sha256 = "([0-9a-f]{64})"', consortium.allowlist.read_text())
    consortium.allowlist.write_text(consortium.allowlist.read_text().replace(listed[0], "0" * 64))
    rows = against_a_coordinator(consortium, tmp_path, configured(tmp_path, member))
    assert rows["session"].result == "FAILED"
    assert "signing_identity: the signing certificate" in rows["session"].detail


def dialled_with(consortium: Consortium, folder: Path, **tls: Path) -> list[Finding]:
    """Other files under [tls] than those that this side checked."""
    settings = load_config(
        configured(folder, consortium.participant("hospital-a")), ParticipantSettings, environment={}
    )
    caller = Caller(
        settings=settings.model_copy(update={"tls": settings.tls.model_copy(update=tls)}),
        environment={}, clock=SystemClock(), checked=check_identity(settings), consortium=None,
    )  # fmt: skip

    async def scenario() -> list[Finding]:
        async with live_coordinator(consortium, folder) as live:
            dialling = Dialling(caller, f"localhost:{live.port}")
            return await asyncio.to_thread(lambda: list(dialling.rows()))

    return asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))


@pytest.mark.parametrize("whose", ["expired", "other"])
def test_a_certificate_that_the_coordinator_refuses(whose: str, consortium: Consortium, tmp_path: Path) -> None:
    """gRPC says "socket closed" of both. This side's own checks are left out: the clocks or authorities differ."""
    shown = consortium.expired() if whose == "expired" else Consortium(tmp_path / "other").participant("hospital-a")
    *_, ours, session = dialled_with(consortium, tmp_path, certificate=shown.tls.certificate, key=shown.tls.key)
    assert not ours.ok
    assert "when it saw this silo's TLS certificate: it does not know the authority" in ours.detail
    assert session.skipped


def test_a_key_that_went_away_is_not_the_lines_fault(consortium: Consortium, tmp_path: Path) -> None:
    *_, ours, session = dialled_with(consortium, tmp_path, key=tmp_path / "gone.key")
    assert not ours.ok
    assert re.match(r"\[tls\]: .*gone\.key cannot be used together \(No such file or directory\)", ours.detail)
    assert session.skipped


# --- several addresses ------------------------------------------------------------------------------------------------


def _rows(address: str, **failed: str) -> list[Finding]:
    return [Finding(f"{step} {address}", ok=step not in failed, detail=failed.get(step, "")) for step in ALL_WELL]


def test_an_address_in_reserve_that_is_away_is_a_warning_where_another_one_works() -> None:
    away, works = _rows("a:1", connection="refused"), _rows("b:1")
    found = list(in_reserve([away, works]))
    assert all(row.ok for row in found)
    assert [(row.name, row.advice) for row in found if row.warning] == [("connection a:1", NEXT)]


def test_an_address_where_somebody_else_answers_is_wrong_in_any_case() -> None:
    found = list(in_reserve([_rows("a:1", TLS="another"), _rows("b:1")]))
    assert [row.name for row in found if not row.ok] == ["TLS a:1"]


def test_addresses_that_are_all_away_are_all_wrong() -> None:
    found = list(in_reserve([_rows("a:1", connection="refused"), _rows("b:1", name="none")]))
    assert [row.name for row in found if not row.ok] == ["connection a:1", "name b:1"]


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_ends_with_1_and_says_each_row(consortium: Consortium, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    config = configured(tmp_path, consortium.participant("hospital-a"), addresses=(address,))
    done = CliRunner().invoke(participant, ["doctor", "--config", str(config), "--json"])
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert list(rows)[:9] == [
        "credentials", "clock", "consortium", "data folder", "journal", "journal marker", "metrics", "status", "device",
    ]  # fmt: skip
    assert [name for name, row in rows.items() if not row["ok"]] == [f"connection {address}"]
    assert rows[f"session {address}"]["skipped"]
    assert f"with PyTorch {version('torch')}" in rows["device"]["detail"]  # asked in a process of its own


def test_a_proxy_that_grpc_would_pass_over_ends_a_start_before_it_dials(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(configured(tmp_path, consortium.participant("hospital-a")))
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    started = subprocess.run(
        [*CONSILO, "participant", "run", "--config", config],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert started.returncode == 1
    assert started.stderr.startswith("error: environment variable https_proxy: expected http://host:port")
    assert not (tmp_path / "data").exists()
    checked = CliRunner().invoke(participant, ["check", "--config", config, "--json"])
    (row,) = [row for row in json.loads(checked.stdout) if row["check"] == "proxy"]
    assert (checked.exit_code, row["ok"]) == (1, False)
    monkeypatch.setenv("no_proxy", "localhost")
    assert CliRunner().invoke(participant, ["check", "--config", config]).exit_code == 0


def test_credentials_that_cannot_be_used_are_one_row_and_are_shown_to_nobody(
    consortium: Consortium, tmp_path: Path
) -> None:
    member = consortium.participant("hospital-a")
    config = configured(tmp_path, member)
    member.signing_key_path.chmod(0o644)
    settings = load_config(config, ParticipantSettings, environment={})

    async def scenario() -> list[Finding]:
        async with live_coordinator(consortium, tmp_path) as live:
            dialling = Dialling(
                Caller(settings=settings, environment={}, clock=SystemClock(), checked=None, consortium=None),
                f"localhost:{live.port}",
            )
            return await asyncio.to_thread(lambda: list(dialling.rows()))

    found = asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))
    assert [row.result for row in found] == ["ok"] * 6 + ["skipped"] * 2
    assert all("needs the rows 'credentials'" in row.detail for row in found[-2:])


# --- devices ----------------------------------------------------------------------------------------------------------

NONE = Accelerators(torch="2.13.0+cpu", built_for_cuda=None, devices=(), mps=False, complaint="", nvidia_driver="")
BUILT = replace(NONE, torch="2.13.0", built_for_cuda="12.8")
GPU = replace(BUILT, devices=(Device("NVIDIA H200", 140_000_000_000, 150_000_000_000),), nvidia_driver="NVRM 570")


@pytest.mark.parametrize(
    ("request_", "seen", "said"),
    [
        (DeviceRequest.AUTO, NONE, "cpu, with PyTorch 2.13.0+cpu"),
        (DeviceRequest.AUTO, BUILT, "cpu, with PyTorch 2.13.0"),
        (DeviceRequest.AUTO, GPU, "cuda, with PyTorch 2.13.0: NVIDIA H200, 140.0 of 150.0 GB free"),
        (DeviceRequest.AUTO, replace(NONE, mps=True), "mps, with PyTorch 2.13.0+cpu"),
        (DeviceRequest.CPU, GPU, "cpu, with PyTorch 2.13.0"),
        (DeviceRequest.CUDA, GPU, "cuda, with PyTorch 2.13.0: NVIDIA H200"),
    ],
)
def test_the_device_that_tasks_run_on(request_: DeviceRequest, seen: Accelerators, said: str) -> None:
    found = device_found(request_, seen)
    assert isinstance(found, str)
    assert found.startswith(said)


@pytest.mark.parametrize(
    ("seen", "why", "advice"),
    [
        (replace(NONE, nvidia_driver="NVRM 570"), "was built without CUDA", "install the build with CUDA"),
        (replace(BUILT, complaint="driver too old"), "PyTorch, built for CUDA 12.8, says: driver too old", "driver"),
        (replace(BUILT, nvidia_driver="NVRM 570"), "sees no GPU", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_is_there_and_not_used_is_a_warning(seen: Accelerators, why: str, advice: str) -> None:
    found = device_found(DeviceRequest.AUTO, seen)
    assert isinstance(found, Caution)
    assert why in found.detail
    assert advice in found.advice


@pytest.mark.parametrize(("seen", "why"), [(NONE, "without CUDA"), (BUILT, "no NVIDIA driver is loaded")])
def test_a_gpu_that_was_asked_for_and_is_not_there_is_a_failure(seen: Accelerators, why: str) -> None:
    with pytest.raises(ConfigError, match=f'device is cuda, and PyTorch sees none: .*{why}.*"auto" or "cpu"'):
        device_found(DeviceRequest.CUDA, seen)
