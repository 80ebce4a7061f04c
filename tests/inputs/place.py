"""A folder in which everything is right, for a row of the table to spoil one thing in.

It holds what the machines of a small consortium hold between them: an authority, credentials, the configurations of a
coordinator, a participant and an operator, a job and its initial model, a task. It is made once and copied for each
row, so that a row may break whatever it likes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_pem_private_key as load_key

from consilo.pki import Authority, create_authority
from consilo.pki_manifest import write_manifest
from coordinator.startup import open_records
from participant.journal import SqliteJournal
from participant.marker import take_into_use
from shared.certificates import SERVER_AUTH
from shared.clock import SystemClock
from shared.identity import Role, SigningKey
from shared.tensors import write_model_file
from shared.update import DType, ModelManifest, TensorSpec
from tests.support.credentials import CONSORTIUM
from tests.support.models import random_tensors

KNOWN_JOB = "known"
MEMBERS = ("hospital-a", "hospital-b", "hospital-c")
MODEL = ModelManifest.of([TensorSpec("bias", DType.F32, (2,)), TensorSpec("weight", DType.F32, (2, 3))])

COORDINATOR = """\
[coordinator]
id = "coordinator"
listen = ["127.0.0.1:0"]
data_dir = "coordinator-data"
[tls]
certificate = "coordinator/tls.crt"
key = "coordinator/tls.key"
ca = "coordinator/ca.crt"
[signing]
certificate = "coordinator/signing.crt"
key = "coordinator/signing.key"
[access]
allowlist = "pki/allowlist.toml"
[consortium]
manifest = "pki/consortium.json"
[metrics]
listen = "off"
"""

PARTICIPANT = """\
[participant]
id = "hospital-a"
coordinators = ["127.0.0.1:1"]
data_dir = "hospital-a-data"
[tls]
certificate = "hospital-a/tls.crt"
key = "hospital-a/tls.key"
ca = "hospital-a/ca.crt"
[signing]
certificate = "hospital-a/signing.crt"
key = "hospital-a/signing.key"
[consortium]
manifest = "pki/consortium.json"
digest = "{pin}"
[policy]
minimum_members = 3
[metrics]
listen = "off"
"""

OPERATOR = """\
[operator]
coordinator = "{address}"
coordinator_certificate = "coordinator/signing.crt"
[tls]
certificate = "operator/tls.crt"
key = "operator/tls.key"
ca = "operator/ca.crt"
"""

JOB = """\
name = "heart"
task = "heart"
members = ["hospital-a", "hospital-b", "hospital-c"]
rounds = 2
initial = "initial.safetensors"
metrics = ["loss"]
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The folder, and the verbs with which rows spoil it."""

    folder: Path
    held: list[int] = field(default_factory=list)
    """Descriptors with locks, as another daemon would hold them."""

    def path(self, name: str) -> Path:
        return self.folder / name

    def read(self, name: str) -> str:
        return self.path(name).read_text()

    def write(self, name: str, content: str | bytes) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def replace(self, name: str, old: str, new: str) -> None:
        """Change a text that must be there: a row that spoils nothing would assert nothing."""
        text = self.read(name)
        assert old in text, (name, old)
        self.write(name, text.replace(old, new))

    def add(self, name: str, text: str) -> None:
        self.write(name, self.read(name) + text)

    def remove(self, name: str) -> None:
        path = self.path(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def copy(self, source: str, target: str) -> None:
        """Of a file, with its mode."""
        shutil.copy2(self.path(source), self.path(target))

    def make_folder_of(self, name: str) -> None:
        """A folder where a file is expected."""
        self.path(name).unlink(missing_ok=True)
        self.path(name).mkdir()

    def encrypt(self, name: str) -> None:
        """A private key with a passphrase, as another tool may write one."""
        key = load_key(self.path(name).read_bytes(), password=None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
        self.write(name, pem)

    @property
    def authority(self) -> Authority:
        return Authority.load(self.path("pki"))

    def issue(self, role: Role, name: str, *, into: str, days_from_now: int = 0) -> None:
        """New credentials in a folder, made `days_from_now`: the TLS certificate lives 30 days, the other 365."""
        now = SystemClock().now() + timedelta(days=days_from_now)
        hosts = ("localhost",) if role is Role.COORDINATOR else ()
        self.authority.issue(role, name, out=self.path(into), now=now, hosts=hosts)

    def issue_for_being_dialled(self, into: str) -> None:
        """A coordinator's TLS certificate in the place of its own that is for being dialled and nothing else."""
        now, key = SystemClock().now(), load_key(self.path(f"{into}/tls.key").read_bytes(), password=None)
        leaf = self.authority.sign_leaf(
            key.public_key(),  # type: ignore[arg-type] # the authority made it
            uris=[f"spiffe://{CONSORTIUM}/coordinator/coordinator"],
            hosts=["localhost"],
            purposes=[SERVER_AUTH],
            start=now,
            end=now + timedelta(days=30),
        )
        self.write(f"{into}/tls.crt", leaf.public_bytes(Encoding.PEM))

    def keep_records(self) -> None:
        """The data folder of a coordinator that ran: a database and an audit log with one entry."""
        key = SigningKey.load(self.path("coordinator/signing.key"))
        with open_records(self.path("coordinator-data"), signing_key=key, clock=SystemClock()) as records:
            entry = records.audit.entry("coordinator_started", {"version": "0"})
            records.store.append_audit(entry)
            records.audit.accept(entry)
            records.catch_up()

    def keep_journal(self) -> None:
        """The data folder of a participant that ran."""
        self.path("hospital-a-data").mkdir(mode=0o700)
        journal = SqliteJournal(self.path("hospital-a-data/journal.sqlite"))
        take_into_use(journal, self.path("hospital-a/signing.key"))
        journal.close()


Spoil = Callable[[Place], object]


def nothing(_place: Place) -> None:
    """For rows whose command is the mistake."""


def several(*spoils: Spoil) -> Spoil:
    def spoil(place: Place) -> None:
        for each in spoils:
            each(place)

    return spoil


def replacing(name: str, old: str, new: str) -> Spoil:
    return partial(Place.replace, name=name, old=old, new=new)


def adding(name: str, text: str) -> Spoil:
    return partial(Place.add, name=name, text=text)


def writing(name: str, content: str | bytes) -> Spoil:
    return partial(Place.write, name=name, content=content)


def removing(name: str) -> Spoil:
    return partial(Place.remove, name=name)


def copying(source: str, target: str) -> Spoil:
    return partial(Place.copy, source=source, target=target)


def a_folder(name: str) -> Spoil:
    return partial(Place.make_folder_of, name=name)


def mode(name: str, bits: int) -> Spoil:
    def spoil(place: Place) -> None:
        place.path(name).chmod(bits)

    return spoil


def encrypting(name: str) -> Spoil:
    return partial(Place.encrypt, name=name)


def issuing(role: Role, name: str, *, into: str, days_from_now: int = 0) -> Spoil:
    return partial(Place.issue, role=role, name=name, into=into, days_from_now=days_from_now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One mistake, and what whoever makes it is told."""

    name: str
    spoil: Spoil = nothing
    command: str
    """As it is typed in the folder; in braces what is known only when a coordinator runs."""
    says: str
    """The error, whole, or the warning of a command that goes on; `...` stands for what differs from run to run."""
    code: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    long: bool = False
    """It starts a task's process, which takes seconds."""
    leaves: tuple[str, ...] = ()
    """What the command may leave behind although it failed, as patterns of paths in the folder."""


def make_place(folder: Path, *, address: str) -> Place:
    """A folder with nothing wrong in it, whose operator dials `address`."""
    place, now = Place(folder), SystemClock().now()
    for name, consortium in (("pki", CONSORTIUM), ("other-pki", "lungs.example")):
        create_authority(place.path(name), consortium=consortium, now=now - timedelta(days=2 * 365))
    for member in MEMBERS:
        place.issue(Role.PARTICIPANT, member, into=member)
    place.issue(Role.COORDINATOR, "coordinator", into="coordinator")
    place.issue(Role.OPERATOR, "operator", into="operator")
    manifest = write_manifest(place.authority, out=place.path("pki/consortium.json"), now=now)
    place.write("coordinator.toml", COORDINATOR)
    place.write("participant.toml", PARTICIPANT.format(pin=manifest.consortium.digest))
    place.write("operator.toml", OPERATOR.format(address=address))
    place.write("job.toml", JOB)
    write_model_file(place.path("initial.safetensors"), MODEL, {}, random_tensors(MODEL, 1))
    return place
