"""`operator.toml`: which coordinator an operator dials, and with which credentials.

    [operator]
    coordinator = "coordinator.hearts.example:8443"
    coordinator_certificate = "coordinator-signing.crt"   # only to verify the audit log

    [tls]
    certificate = "credentials/tls.crt"
    key = "credentials/tls.key"
    ca = "credentials/ca.crt"

It is looked for where `--config` says, then where CONSILO_OPERATOR_CONFIG says, then in the working folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from shared.config import Dialled, LocalPath, SigningTable, TlsTable, load_config
from shared.errors import ConfigError
from shared.job import Table

CONFIG_VARIABLE = "CONSILO_OPERATOR_CONFIG"
DEFAULT_CONFIG = Path("operator.toml")
OWN_VARIABLES = ("CONSILO_OPERATOR__", "CONSILO_TLS__")


class OperatorTable(Table):
    """[operator]: whom to dial."""

    coordinator: Dialled = Field(description="host:port of the coordinator.")
    coordinator_certificate: LocalPath | None = Field(
        default=None, description="The coordinator's signing certificate (PEM), with which its audit log is verified."
    )


class OperatorSettings(Table):
    """The whole file."""

    operator: OperatorTable = Field(description="Whom to dial.")
    tls: TlsTable = Field(description="Credentials for connections.")
    signing: SigningTable | None = Field(default=None, description="Credentials for messages; not used yet.")


def load_operator(path: Path, *, environment: Mapping[str, str]) -> OperatorSettings:
    """Read an operator's configuration. Raises ConfigError.

    Of the environment only this file's own variables count: on a machine that also runs a daemon, the daemon's are
    none of an operator's business.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: expected an operator's configuration (coordinator and credentials), found none: give --config, "
            f"set {CONFIG_VARIABLE}, or run this in the folder of operator.toml"
        )
    own = {name: value for name, value in environment.items() if name.startswith(OWN_VARIABLES)}
    return load_config(path, OperatorSettings, environment=own)
