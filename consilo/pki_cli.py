"""`consilo pki`: set up a consortium's authority and issue credentials."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from consilo.pki import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_DAYS,
    AUTHORITY_KEY,
    SIGNING_DAYS,
    TLS_DAYS,
    Authority,
    Issued,
    create_authority,
)
from consilo.pki_manifest import MANIFEST, aloud, write_manifest
from consilo.pki_request import REQUEST_FILE, make_request, read_request
from shared.certificates import fingerprint_of
from shared.identity import Allowlist, Role
from shared.ids import Digest
from shared.terminal import emit, facts, json_option, table

_FOLDER = click.Path(file_okay=False, path_type=Path)

_hosts_option = click.option(
    "--dns",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A DNS name or IP address under which the coordinator is dialled; may be repeated.",
)
_out_option = click.option("--out", type=_FOLDER, help="Where the files go.  [default: DIR/issued/ROLE/ID]")
_days_option = click.option("--days", default=TLS_DAYS, show_default=True, help="Life of the TLS certificate.")
_signing_days_option = click.option(
    "--signing-days", default=SIGNING_DAYS, show_default=True, help="Life of the signing certificate."
)


@click.group()
def pki() -> None:
    """Make the consortium's authority and its members' certificates."""


@pki.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--consortium", required=True, help="The consortium's name, like a DNS name: hearts.example")
@click.option("--days", default=AUTHORITY_DAYS, show_default=True, type=click.IntRange(1, 2 * AUTHORITY_DAYS))
@json_option
def init(folder: Path, consortium: str, days: int, *, as_json: bool) -> None:
    """Make a new authority in DIR. An authority that is there already is never replaced."""
    authority = create_authority(folder, consortium=consortium, now=datetime.now(UTC), days=days)
    made = {
        "consortium": consortium,
        "certificate": str(folder / AUTHORITY_CERTIFICATE),
        "key": str(folder / AUTHORITY_KEY),
        "allowlist": str(authority.allowlist_path),
        "sha256": str(fingerprint_of(authority.certificate)),
        "expires": authority.certificate.not_valid_after_utc.isoformat(),
    }
    emit(made, as_json=as_json, render=lambda: facts(made.items()))
    if not as_json:
        click.echo(f"Whoever holds {folder / AUTHORITY_KEY} can admit anybody: keep it off the coordinator.", err=True)


@pki.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.argument("name", metavar="ID")
@_hosts_option
@_out_option
@_days_option
@_signing_days_option
@json_option
def issue(
    *,
    folder: Path,
    role: str,
    name: str,
    hosts: Sequence[str],
    out: Path | None,
    days: int,
    signing_days: int,
    as_json: bool,
) -> None:
    """Make keys and certificates for one member, and put them on DIR's allow-list.

    Older certificates of the same member leave the allow-list. The coordinator follows its copy of the file
    without a restart.
    """
    issued = Authority.load(folder).issue(
        Role(role),
        name,
        out=out or folder / "issued" / role / name,
        now=datetime.now(UTC),
        hosts=hosts,
        tls_days=days,
        signing_days=signing_days,
    )
    _show(issued, folder, as_json=as_json)


@pki.command()
@click.argument("out", metavar="FOLDER", type=_FOLDER)
@json_option
def request(out: Path, *, as_json: bool) -> None:
    """Make a member's keys in FOLDER, where they stay, and a request for certificates.

    Send FOLDER/request.pem to whoever runs the authority, and read its SHA-256 to them over another channel.
    """
    digest = make_request(out)
    made = {"request": str(out / REQUEST_FILE), "sha256": str(digest)}
    emit(made, as_json=as_json, render=lambda: facts(made.items()))


@pki.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.argument("role", type=click.Choice([role.value for role in Role]))
@click.argument("name", metavar="ID")
@click.argument("request_file", metavar="REQUEST", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--sha256", required=True, help="What the member read out: the SHA-256 of its request.")
@_hosts_option
@_out_option
@_days_option
@_signing_days_option
@json_option
def sign(
    *,
    folder: Path,
    role: str,
    name: str,
    request_file: Path,
    sha256: str,
    hosts: Sequence[str],
    out: Path | None,
    days: int,
    signing_days: int,
    as_json: bool,
) -> None:
    """Make certificates for a member's REQUEST, and put them on DIR's allow-list.

    Role and name are what you say here; what the request says of itself is not read.
    """
    try:
        expected = Digest.parse(sha256)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--sha256") from None
    keys = read_request(request_file, expected=expected)
    issued = Authority.load(folder).certify(
        Role(role),
        name,
        tls_key=keys.tls,
        signing_key=keys.signing,
        out=out or folder / "issued" / role / name,
        now=datetime.now(UTC),
        hosts=hosts,
        tls_days=days,
        signing_days=signing_days,
    )
    _show(issued, folder, as_json=as_json)


@pki.command("list")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@json_option
def list_members(folder: Path, *, as_json: bool) -> None:
    """Show who is on DIR's allow-list."""
    allowlist = Allowlist.load(folder / "allowlist.toml")
    rows = [
        (str(entry.identity.role), entry.identity.name, str(entry.tls_fingerprint), str(entry.signing_fingerprint))
        for entry in sorted(allowlist.entries.values(), key=lambda entry: entry.identity)
    ]
    columns = ("role", "id", "tls_sha256", "signing_sha256")
    emit(
        {"consortium": allowlist.consortium, "allowed": [dict(zip(columns, row, strict=True)) for row in rows]},
        as_json=as_json,
        render=lambda: table(columns, rows, title=allowlist.consortium),
    )


@pki.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help=f"Where it goes.  [default: DIR/{MANIFEST}]"
)
@json_option
def manifest(folder: Path, out: Path | None, *, as_json: bool) -> None:
    """Write the manifest of DIR's participants and coordinators, signed by its officer.

    Send the file to every silo and to the coordinator, and read its digest to each silo over another channel: the
    silo pins it in participant.toml. The officer's key is made on first use and stays in DIR.
    """
    written = write_manifest(Authority.load(folder), out=out or folder / MANIFEST, now=datetime.now(UTC))
    consortium = written.consortium
    made = {
        "consortium": consortium.name,
        "manifest": str(written.path),
        "digest": str(consortium.digest),
        "participants": consortium.participants,
        "coordinators": len(consortium.coordinator_keys),
        "officer_sha256": str(written.officer),
        "changed": written.before != consortium.digest,
    }
    shown = {
        **{key: value for key, value in made.items() if key != "changed"},
        "read_aloud": aloud(consortium.digest),
    }
    emit(made, as_json=as_json, render=lambda: facts(shown.items()))
    if not as_json and written.before not in {None, consortium.digest}:
        click.echo(f"It took the place of {written.before}: every silo has to pin the new digest.", err=True)


def _show(issued: Issued, folder: Path, *, as_json: bool) -> None:
    made = {
        "identity": issued.entry.identity.uri,
        "folder": str(issued.folder),
        "tls_sha256": str(issued.entry.tls_fingerprint),
        "tls_expires": issued.tls_expires.isoformat(),
        "signing_sha256": str(issued.entry.signing_fingerprint),
        "signing_expires": issued.signing_expires.isoformat(),
        "allowlist": str(folder / "allowlist.toml"),
    }
    emit(made, as_json=as_json, render=lambda: facts(made.items()))
