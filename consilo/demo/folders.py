"""The demo's federation on disk: everything that its daemons read, in the folder of whom it belongs to.

    consortium/authority/      the authority of `consilo pki`, and the manifest; in life on a machine of its own
    consortium/coordinator/    coordinator.toml, credentials, allow-list, manifest, data
    consortium/operator/       operator.toml, credentials, job.toml, initial.safetensors
    hospitals/hospital-a/      participant.toml, credentials, manifest, rows.csv, data
    comparison/                what no federation has: the common test rows, and everybody's rows in one file
    logs/                      what the daemons said

A daemon's configuration names files of its own folder only. The data is named by its whole path, because what is in a
task's options is the task's own business; to move the folder, change these.
"""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from consilo.demo.data import Dealt, Tumours, deal, load_tumours, write_rows
from consilo.demo.protection import Mode, Protection
from consilo.demo.readme import readme
from consilo.pki import Authority, create_authority
from consilo.pki_manifest import MANIFEST, write_manifest
from consilo.pki_request import REQUEST_FILE, make_request, read_request
from shared.errors import ConfigError
from shared.identity import Role
from shared.ids import Digest
from shared.job import canonical_json

CONSORTIUM = "hospitals.example"
LOOPBACK = "127.0.0.1"
HOSTS = (LOOPBACK, "localhost")
TASK = "tumour"
JOB_NAME = "tumour"
# Enough steps for both sides of the comparison to settle: fewer epochs leave the federation behind, and smaller batches
# make either of them jump by a few test rows from one round to the next.
LOCAL_EPOCHS = 8
BATCH_SIZE = 32
LEARNING_RATE = 0.1
DEADLINE_S = 120


@dataclass(frozen=True, slots=True)
class Ports:
    """On loopback: the coordinator's, and of each daemon one for its metrics and one for its status page."""

    coordinator: int
    coordinator_metrics: int
    coordinator_status: int
    participant_metrics: tuple[int, ...]
    participant_status: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Federation:
    """Where everything of one demo lies."""

    root: Path
    hospitals: tuple[str, ...]
    rounds: int
    seed: int
    ports: Ports
    mode: Mode = "masked"

    @property
    def protection(self) -> Protection:
        return Protection(self.mode, len(self.hospitals))

    @property
    def coordinator(self) -> Path:
        return self.root / "consortium" / "coordinator"

    @property
    def operator(self) -> Path:
        return self.root / "consortium" / "operator"

    @property
    def comparison(self) -> Path:
        return self.root / "comparison"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def hospital(self, name: str) -> Path:
        return self.root / "hospitals" / name

    @property
    def coordinator_config(self) -> Path:
        return self.coordinator / "coordinator.toml"

    @property
    def operator_config(self) -> Path:
        return self.operator / "operator.toml"

    def participant_config(self, name: str) -> Path:
        return self.hospital(name) / "participant.toml"

    @property
    def job_file(self) -> Path:
        return self.operator / "job.toml"

    @property
    def initial_model(self) -> Path:
        return self.operator / "initial.safetensors"

    @property
    def audit_log(self) -> Path:
        return self.coordinator / "data" / "audit.log"


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of loopback that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listening in sockets:
            listening.bind((LOOPBACK, 0))
        return tuple(int(listening.getsockname()[1]) for listening in sockets)


def claim_folder(folder: Path) -> None:
    """Make `folder`, or take an empty one. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder}: expected a folder that is new or empty, got one with files in it")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror})") from None


def lay_out(root: Path, *, hospitals: int, rounds: int, seed: int, now: datetime, mode: Mode = "masked") -> Federation:
    """Write a whole federation, except its initial model, into an empty folder. Raises ConfigError."""
    tumours = load_tumours()
    dealt = deal(tumours, hospitals=hospitals, seed=seed)
    coordinator, metrics, status, *others = free_ports(3 + 2 * hospitals)
    names = tuple(hospital.name for hospital in dealt.hospitals)
    ports = Ports(coordinator, metrics, status, tuple(others[:hospitals]), tuple(others[hospitals:]))
    federation = Federation(root, names, rounds, seed, ports, mode)
    try:
        authority = _write_credentials(federation, now)
        manifest = _write_manifest(federation, authority, now)
        _write_data(federation, tumours, dealt)
        _write_configurations(federation, dealt, manifest)
        (root / "README.txt").write_text(readme(federation.hospitals, coordinator_hosts=HOSTS), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{root} cannot be written ({error.strerror})") from None
    return federation


def _write_credentials(federation: Federation, now: datetime) -> Authority:
    authority: Authority = create_authority(
        federation.root / "consortium" / "authority", consortium=CONSORTIUM, now=now
    )
    members = [
        (Role.COORDINATOR, "coordinator", federation.coordinator, HOSTS),
        (Role.OPERATOR, "operator", federation.operator, ()),
        *((Role.PARTICIPANT, name, federation.hospital(name), ()) for name in federation.hospitals),
    ]
    for role, name, folder, hosts in members:
        # By requests, as in life: signing one again renews the certificates and keeps the keys.
        credentials = folder / "credentials"
        digest = make_request(credentials)
        keys = read_request(credentials / REQUEST_FILE, expected=digest)
        authority.certify(role, name, tls_key=keys.tls, signing_key=keys.signing, out=credentials, now=now, hosts=hosts)
    # Each gets a copy: the authority is on another machine in life.
    (federation.coordinator / "allowlist.toml").write_bytes(authority.allowlist_path.read_bytes())
    signing = federation.coordinator / "credentials" / "signing.crt"
    (federation.operator / "credentials" / "coordinator-signing.crt").write_bytes(signing.read_bytes())
    return authority


def _write_manifest(federation: Federation, authority: Authority, now: datetime) -> Digest:
    """Who is a member; the digest that every hospital pins. In life an officer says it over another channel."""
    written = write_manifest(authority, out=authority.folder / MANIFEST, now=now)
    for folder in (federation.coordinator, *map(federation.hospital, federation.hospitals)):
        (folder / MANIFEST).write_bytes(written.path.read_bytes())
    return written.consortium.digest


def _write_data(federation: Federation, tumours: Tumours, dealt: Dealt) -> None:
    federation.comparison.mkdir()
    federation.logs.mkdir()
    everything = np.concatenate([hospital.train for hospital in dealt.hospitals])
    write_rows(federation.comparison / "rows.csv", tumours, train=everything, held_out=dealt.test)
    (federation.comparison / "constants.json").write_bytes(
        canonical_json({"mean": list(dealt.mean), "std": list(dealt.std)})
    )
    for hospital in dealt.hospitals:
        rows = federation.hospital(hospital.name) / "rows.csv"
        write_rows(rows, tumours, train=hospital.train, held_out=hospital.held_out)


def _write_configurations(federation: Federation, dealt: Dealt, manifest: Digest) -> None:
    ports = federation.ports
    federation.coordinator_config.write_text(
        f"""\
[coordinator]
id = "coordinator"
listen = "{LOOPBACK}:{ports.coordinator}"
data_dir = "data"
{_CREDENTIALS}
[access]
allowlist = "allowlist.toml"

[consortium]
manifest = "{MANIFEST}"

[metrics]
listen = "{LOOPBACK}:{ports.coordinator_metrics}"

[status]
listen = "{LOOPBACK}:{ports.coordinator_status}"
""",
        encoding="utf-8",
    )
    federation.operator_config.write_text(
        f"""\
[operator]
coordinator = "{LOOPBACK}:{ports.coordinator}"
coordinator_certificate = "credentials/coordinator-signing.crt"
{_CREDENTIALS}""",
        encoding="utf-8",
    )
    for name in federation.hospitals:
        text = _participant(federation, name, dealt, manifest)
        federation.participant_config(name).write_text(text, encoding="utf-8")
    federation.job_file.write_text(_job(federation), encoding="utf-8")


_CREDENTIALS = """
[tls]
certificate = "credentials/tls.crt"
key = "credentials/tls.key"
ca = "credentials/ca.crt"

[signing]
certificate = "credentials/signing.crt"
key = "credentials/signing.key"
"""


def _participant(federation: Federation, name: str, dealt: Dealt, manifest: Digest) -> str:
    folder, place = federation.hospital(name), federation.hospitals.index(name)
    return f"""\
[participant]
id = "{name}"
coordinators = ["{LOOPBACK}:{federation.ports.coordinator}"]
data_dir = "data"
{_CREDENTIALS}
# Who the members are, and by which keys they sign. In life an officer of the consortium reads the digest out, and it is
# neither the coordinator nor whoever brings the file.
[consortium]
manifest = "{MANIFEST}"
digest = "{manifest}"

[tasks.{TASK}]
entry = "consilo.demo.task:TumourTask"
threads = 1

[tasks.{TASK}.options]
rows = {json.dumps(str(folder / "rows.csv"))}
# Constants that the hospitals agreed on, so that all of them standardise in the same way.
mean = {list(dealt.mean)}
std = {list(dealt.std)}

{federation.protection.policy_table()}
[metrics]
listen = "{LOOPBACK}:{federation.ports.participant_metrics[place]}"

[status]
listen = "{LOOPBACK}:{federation.ports.participant_status[place]}"
"""


def _job(federation: Federation) -> str:
    return f"""\
name = "{JOB_NAME}"
task = "{TASK}"
members = {json.dumps(federation.hospitals)}
rounds = {federation.rounds}
seed = {federation.seed}
initial = "initial.safetensors"
metrics = ["loss", "accuracy"]

[round]
quorum = {len(federation.hospitals)}
deadline_s = {DEADLINE_S}

[strategy]
name = "fedavg"

{federation.protection.job_table()}
[training]
local_epochs = {LOCAL_EPOCHS}
batch_size = {BATCH_SIZE}
learning_rate = {LEARNING_RATE}
"""
