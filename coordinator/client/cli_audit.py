"""`consilo audit`: read and verify the audit log, without trusting the coordinator.

What is needed is a copy of the log and the coordinator's signing certificate. With the consortium's authority
(`--ca`) the certificate is checked too; without it the reader vouches for the certificate. Its dates are not held
against it: a log is read years after the certificate has expired.

Without `--log` the log is asked from the running coordinator, as operator.toml says; what comes is verified in the same
way, with the certificate and the authority that stand there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from coordinator.audit import AuditRecord, Verified, read_entries, verify_lines
from coordinator.client.connection import dial, operator_options, operator_settings
from shared.certificates import read_der
from shared.errors import AuditError, ConfigError, IdentityError
from shared.identity import Role, VerifyingKey, verify_signing_certificate
from shared.ids import Digest
from shared.job import canonical_json
from shared.terminal import emit, emit_line, facts, json_option, stdout_console, table, warn

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_LOG = "The audit log, or a copy of it.  [default: ask the running coordinator]"
_CERTIFICATE = "The coordinator's signing certificate (PEM or DER)."
_CA = "The consortium's authority (ca.crt): the certificate must be one of its."
_WHO_SIGNED = (
    "which coordinator signed the log? Give its signing certificate with --certificate, or as "
    "operator.coordinator_certificate in operator.toml"
)
_UNPROVEN = "the tail is unproven: lines may be missing at the end. Keep the head, and give it with --head next time"


class HeadType(click.ParamType[Digest]):
    """A head as `verify` prints it."""

    name = "head"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Digest:
        try:
            return Digest.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.group()
def audit() -> None:
    """Read and verify the coordinator's audit log."""


@audit.command()
@click.option("--log", "log_path", type=_FILE, help=_LOG)
@click.option("--certificate", type=_FILE, help=f"{_CERTIFICATE} Needed with --log.")
@click.option("--ca", type=_FILE, help=_CA)
@click.option("--head", type=HeadType(), help="A head kept from before, which must be in the log.")
@operator_options
@json_option
def verify(
    *,
    log_path: Path | None,
    certificate: Path | None,
    ca: Path | None,
    head: Digest | None,
    config: Path,
    address: str | None,
    as_json: bool,
) -> None:
    """Check every line of the log: signatures, order, nothing changed, and with --head that its tail was not cut."""
    with _source(log_path, certificate, ca, config=config, address=address) as (lines, key):
        if key is None:
            raise click.UsageError(_WHO_SIGNED)
        report_verification(lines, verifying_key=key, head=head, as_json=as_json)


@audit.command()
@click.option("--log", "log_path", type=_FILE, help=_LOG)
@click.option("--certificate", type=_FILE, help=f"{_CERTIFICATE} Without it nothing is verified.")
@click.option("--ca", type=_FILE, help=_CA)
@click.option("--job", help="Only entries about this job.")
@click.option("--kind", help="Only entries of this kind, such as round_committed.")
@operator_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def show(
    *,
    log_path: Path | None,
    certificate: Path | None,
    ca: Path | None,
    job: str | None,
    kind: str | None,
    config: Path,
    address: str | None,
    as_json: bool,
) -> None:
    """Print the entries of the log."""
    with _source(log_path, certificate, ca, config=config, address=address) as (lines, key):
        if key is None:
            warn("without --certificate nothing was verified: this shows what the log says")
        show_entries(lines, verifying_key=key, job=job, kind=kind, as_json=as_json)


@contextmanager
def _source(
    log_path: Path | None, certificate: Path | None, ca: Path | None, *, config: Path, address: str | None
) -> Iterator[tuple[Iterable[bytes], VerifyingKey | None]]:
    """The log's lines and the key that must have signed them: from a file, or from the running coordinator."""
    if log_path is not None:
        key = None if certificate is None else load_verifying_key(certificate, ca=ca)
        with _opened(log_path) as log:
            yield log, key
        return
    settings = operator_settings(config, address)
    certificate = certificate or settings.operator.coordinator_certificate
    key = None if certificate is None else load_verifying_key(certificate, ca=ca or settings.tls.ca)
    with dial(settings) as operations:
        yield operations.audit_lines(), key


def report_verification(
    log: bytes | Iterable[bytes], *, verifying_key: VerifyingKey, head: Digest | None, as_json: bool
) -> None:
    """Verify and print the outcome; ends the command with exit code 1 when the log does not verify."""
    try:
        verified = verify_lines(log, verifying_key=verifying_key, head=head)
    except AuditError as error:
        if as_json:
            emit({"verified": False, "error": str(error)}, as_json=True, render=lambda: facts([]))
        raise AuditError(f"the audit log does not verify: {error}") from None
    outcome = {
        "verified": True,
        "entries": verified.size,
        "head": str(verified.head),
        "tail_proven": verified.tail_proven,
        "entries_after_head": verified.entries_after_head,
    }
    emit(outcome, as_json=as_json, render=lambda: facts(_as_facts(verified), title="The audit log verifies"))
    if not verified.tail_proven:
        warn(_UNPROVEN)


def show_entries(
    log: bytes | Iterable[bytes],
    *,
    verifying_key: VerifyingKey | None,
    job: str | None,
    kind: str | None,
    as_json: bool,
) -> None:
    """Print the entries that match; what stands before a line that does not verify is printed before the error."""
    chosen = _chosen(read_entries(log, verifying_key=verifying_key), job, kind)
    rows: list[tuple[object, ...]] = []
    try:
        for record in chosen:
            if as_json:
                emit_line(_as_json(record), as_json=True, text="")
            else:
                rows.append((record.seq, record.time, record.kind, canonical_json(record.data).decode()))
    except AuditError as error:
        raise AuditError(f"the audit log does not verify: {error}") from None
    finally:
        if not as_json:
            stdout_console().print(table(("seq", "time", "kind", "data"), rows))


def load_verifying_key(certificate: Path, *, ca: Path | None) -> VerifyingKey:
    """The key in the coordinator's signing certificate. Raises ConfigError or IdentityError."""
    parsed = _read_certificate(certificate)
    if ca is not None:
        der = parsed.public_bytes(Encoding.DER)
        now = parsed.not_valid_before_utc  # it may have expired since
        try:
            checked = verify_signing_certificate(der, ca_pem=_read(ca), now=now)
        except ConfigError as error:
            raise ConfigError(f"{ca}: {error}") from None
        except IdentityError as error:
            raise IdentityError(f"{certificate}: {error}") from None
        if checked.identity.role is not Role.COORDINATOR:
            raise IdentityError(
                f"{certificate}: expected the coordinator's certificate, got that of {checked.identity}"
            )
        return checked.verifying_key
    key = parsed.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"{certificate}: expected a signing certificate (Ed25519), got another kind: is this the TLS certificate?"
        )
    try:
        return VerifyingKey(key.public_bytes_raw())
    except ValueError as error:
        raise ConfigError(f"{certificate}: {error}") from None


def _read_certificate(path: Path) -> x509.Certificate:
    data = _read(path)
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            data = x509.load_pem_x509_certificate(data).public_bytes(Encoding.DER)
        return read_der(data)
    except (ValueError, IdentityError):
        raise ConfigError(f"{path}: expected a certificate in PEM or DER form, got something else") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as log:
            yield log
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _chosen(records: Iterable[AuditRecord], job: str | None, kind: str | None) -> Iterator[AuditRecord]:
    for record in records:
        if (job is None or record.data.get("job") == job) and (kind is None or record.kind == kind):
            yield record


def _as_json(record: AuditRecord) -> dict[str, object]:
    return {"seq": record.seq, "time": record.time, "kind": record.kind, "data": record.data, "head": str(record.head)}


def _as_facts(verified: Verified) -> list[tuple[str, object]]:
    shown: list[tuple[str, object]] = [("entries", verified.size), ("head", verified.head)]
    if verified.tail_proven:
        shown.append(("entries after the given head", verified.entries_after_head))
    return shown
