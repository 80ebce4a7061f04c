"""Sets the demo of docker-compose.yml up: an authority, credentials, configurations and rows, each on its own volume.

What a member is given lies on a volume that only its own container sees; the authority's is seen by this one alone. It
runs at each `docker compose up`: what is there stays, and certificates are renewed for the same keys before they end.
In life nobody does all of this: each member makes its own keys and sends a request (docs/guide-silo.md).
"""

# ruff: noqa: INP001 - a script that a container runs, in no package
from __future__ import annotations

import os
import re
import shutil
import sys
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from pathlib import Path
from string import Template

from cryptography import x509

from consilo.demo.data import Dealt, deal, hospital_names, load_tumours, write_rows
from consilo.pki import Authority, create_authority, write_file
from consilo.pki_manifest import MANIFEST, write_manifest
from consilo.pki_request import REQUEST_FILE, RequestedKeys, make_request, read_request
from shared.errors import ConfigError
from shared.identity import Role
from shared.ids import Digest

HERE = Path(__file__).resolve().parent
FEDERATION = Path("/federation")
ROWS = Path("/rows")
CONSORTIUM = "hospitals.example"
HOSPITALS = hospital_names(4)
COORDINATOR_HOSTS = ("coordinator",)  # its name on the network `federation`
SEED = 7
RENEW_BEFORE = timedelta(days=20)
ROUNDS_VARIABLE = "CONSILO_DEMO_ROUNDS"
DONE = "set-up-done"  # on the authority's volume: written last

MEMBERS = (
    (Role.COORDINATOR, "coordinator", COORDINATOR_HOSTS),
    (Role.OPERATOR, "operator", ()),
    *((Role.PARTICIPANT, name, ()) for name in HOSPITALS),
)


def main() -> None:
    now = datetime.now(UTC)
    authority_folder = FEDERATION / "authority"
    if (authority_folder / DONE).exists():
        go_on(Authority.load(authority_folder), now)
        return
    rounds = rounds_asked()
    for _, name, _ in MEMBERS:
        empty(FEDERATION / name)
    empty(authority_folder)  # of a set-up that was cut short: nothing of it is in use
    authority = create_authority(authority_folder, consortium=CONSORTIUM, now=now)
    for role, name, hosts in MEMBERS:
        make_request(FEDERATION / name / "credentials")
        certify(authority, role, name, hosts, now)
    hand_out_allowlist(authority)
    write_configurations(authority, rounds, now)
    write_file(authority_folder / DONE, b"", mode=0o600)
    say(f"set up: a coordinator, an operator and {', '.join(HOSPITALS)}")


def go_on(authority: Authority, now: datetime) -> None:
    """Renew what ends soon of a federation that is there."""
    made = {name: renew(authority, role, name, hosts, now) for role, name, hosts in MEMBERS}
    hand_out_allowlist(authority)
    renewed = [name for name, what in made.items() if what is not Renewed.NOTHING]
    say(f"the federation is there; renewed: {', '.join(renewed) or 'nobody, all certificates last'}")
    restart = [name for name, what in made.items() if what is Renewed.BOTH and name != "operator"]
    if restart:
        signing = FEDERATION / "coordinator" / "credentials" / "signing.crt"
        shutil.copyfile(signing, FEDERATION / "operator" / "credentials" / "coordinator-signing.crt")
        say(f"signing certificates are new too; where these ran on: docker compose restart {' '.join(restart)}")


def rounds_asked() -> int | None:
    """How many rounds the environment asks for; None for what the file says. Raises ConfigError."""
    text = os.environ.get(ROUNDS_VARIABLE, "")
    if text and re.fullmatch(r"[1-9][0-9]{0,5}", text) is None:
        raise ConfigError(f"{ROUNDS_VARIABLE}: expected a number of rounds from 1 to 999999, got {text!r}")
    return int(text) if text else None


def empty(folder: Path) -> None:
    """Remove every file; folders stay, since a volume may be mounted on one."""
    for path in folder.rglob("*"):
        if not path.is_dir():
            path.unlink()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def certify(authority: Authority, role: Role, name: str, hosts: tuple[str, ...], now: datetime) -> None:
    credentials, keys = FEDERATION / name / "credentials", keys_of(name)
    authority.certify(role, name, tls_key=keys.tls, signing_key=keys.signing, out=credentials, now=now, hosts=hosts)


def keys_of(name: str) -> RequestedKeys:
    request = FEDERATION / name / "credentials" / REQUEST_FILE
    return read_request(request, expected=Digest.of(request.read_bytes()))


class Renewed(Enum):
    """What a member's renewal made new."""

    NOTHING = auto()
    TLS = auto()
    BOTH = auto()


def renew(authority: Authority, role: Role, name: str, hosts: tuple[str, ...], now: datetime) -> Renewed:
    """New certificates for the same keys, where the old end soon.

    The signing certificate only when it must be: a daemon that runs has read its own at its start, and with another on
    the allow-list it would be refused until it is restarted. A new TLS certificate it takes up by itself.
    """
    credentials = FEDERATION / name / "credentials"
    if ends(credentials / "signing.crt") - now <= RENEW_BEFORE:
        certify(authority, role, name, hosts, now)
        return Renewed.BOTH
    if ends(credentials / "tls.crt") - now > RENEW_BEFORE:
        return Renewed.NOTHING
    authority.renew_tls(role, name, tls_key=keys_of(name).tls, out=credentials, now=now, hosts=hosts)
    return Renewed.TLS


def ends(certificate: Path) -> datetime:
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


def hand_out_allowlist(authority: Authority) -> None:
    """Whole or not at all: a coordinator that runs follows the file."""
    write_file(FEDERATION / "coordinator" / "allowlist.toml", authority.allowlist_path.read_bytes(), mode=0o644)


def write_configurations(authority: Authority, rounds: int | None, now: datetime) -> None:
    consortium = write_manifest(authority, out=authority.folder / MANIFEST, now=now)
    manifest = consortium.path.read_bytes()
    coordinator, operator = FEDERATION / "coordinator", FEDERATION / "operator"
    for folder in (coordinator, *(FEDERATION / name for name in HOSPITALS)):
        write_file(folder / MANIFEST, manifest, mode=0o644)
    shutil.copyfile(HERE / "coordinator.toml", coordinator / "coordinator.toml")
    shutil.copyfile(HERE / "operator.toml", operator / "operator.toml")
    signing = coordinator / "credentials" / "signing.crt"
    shutil.copyfile(signing, operator / "credentials" / "coordinator-signing.crt")
    job = (HERE / "job.toml").read_text("utf-8")
    if rounds is not None:
        job = re.sub(r"^rounds = \d+$", f"rounds = {rounds}", job, flags=re.MULTILINE)
    (operator / "job.toml").write_text(job, encoding="utf-8")
    tumours = load_tumours()
    dealt = deal(tumours, hospitals=len(HOSPITALS), seed=SEED)
    for hospital in dealt.hospitals:
        write_rows(ROWS / hospital.name / "rows.csv", tumours, train=hospital.train, held_out=hospital.held_out)
        write_participant(hospital.name, dealt, consortium.consortium.digest)


def write_participant(name: str, dealt: Dealt, digest: Digest) -> None:
    template = Template((HERE / "participant.toml.in").read_text("utf-8"))
    text = template.substitute(id=name, digest=digest, mean=list(dealt.mean), std=list(dealt.std))
    (FEDERATION / name / "participant.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, OSError) as error:
        sys.exit(f"error: {error}")
