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
    create_authority,
)
from shared.certificates import fingerprint_of
from shared.identity import Allowlist, Role
from shared.terminal import emit, facts, json_option, table

_FOLDER = click.Path(file_okay=False, path_type=Path)


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
@click.option(
    "--dns",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A DNS name or IP address under which the coordinator is dialled; may be repeated.",
)
@click.option("--out", type=_FOLDER, help="Where the files go.  [default: DIR/issued/ROLE/ID]")
@click.option("--days", default=TLS_DAYS, show_default=True, help="Life of the TLS certificate.")
@click.option("--signing-days", default=SIGNING_DAYS, show_default=True, help="Life of the signing certificate.")
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
