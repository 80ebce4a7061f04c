"""Configuration files: strict TOML, a few environment variables on top, frozen models out.

A key that nobody knows is an error and not a no-op: a misspelt `minimum_members` that silently keeps its default is how
a silo's policy gets lost. Each error names the file (or the variable), the key, what was expected and what came.

`CONSILO_<SECTION>__<KEY>` in the environment takes the place of `key` in `[section]`: for containers, where a file is
shared and a port is not. Its value is the text itself where the key takes text, and otherwise what TOML reads there
(`true`, `3`, `["a", "b"]`). Relative paths, wherever they come from, count from the folder of the file. Secrets are
never in a configuration: keys are named by path.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from datetime import date, time
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)

from shared.complaints import first_complaint, known_keys, place_of, shown
from shared.errors import ConfigError
from shared.job import Table
from shared.tls import TlsPaths
from shared.toml import nested_too_deeply, read_toml

CONFIG_MAX_BYTES = 1024 * 1024  # a configuration is written by a person
PORT_MAX = 65535
OFF = "off"  # in the place of an address: no such listener

_VARIABLE = re.compile(r"CONSILO_([A-Z0-9_]+?)__([A-Z0-9_]+)")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
# What an editor is told of an address (deploy/schemas); the number of the port is looked at here alone.
ADDRESS_SCHEMA: dict[str, Any] = {"type": "string", "format": "host:port", "pattern": f"^{_ADDRESS.pattern}$"}

M = TypeVar("M", bound=BaseModel)


def _address(text: str) -> str:
    parts = _ADDRESS.fullmatch(text)
    if parts is None or int(parts[2]) > PORT_MAX:
        raise ValueError(f"expected host:port such as 127.0.0.1:8443 or [::1]:8443, got {text!r}")
    return text


def dialled_address(text: str) -> str:
    """An address that can be dialled: host and port. Raises ValueError."""
    if split_address(_address(text))[1] == 0:
        raise ValueError(f"expected host:port with the port on which the coordinator listens, got {text!r}")
    return text


def _listener_address(text: str) -> str:
    return text if text == OFF else _address(text)


def _path_text(value: object) -> object:
    if value == "" or (isinstance(value, str) and "\0" in value):
        raise ValueError(f"expected the path of a file or a folder, got {shown(value)}")
    return value


def _local(path: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    try:
        return folder / path.expanduser()
    except RuntimeError:
        raise ValueError(f"expected a path, or ~ for the home folder of this user, got {shown(str(path))}") from None


Address = Annotated[str, AfterValidator(_address), WithJsonSchema(ADDRESS_SCHEMA)]
Dialled = Annotated[str, AfterValidator(dialled_address), WithJsonSchema(ADDRESS_SCHEMA)]
ListenerAddress = Annotated[
    str, AfterValidator(_listener_address), WithJsonSchema({"anyOf": [ADDRESS_SCHEMA, {"const": OFF}]})
]
LocalPath = Annotated[Path, BeforeValidator(_path_text), AfterValidator(_local)]


class TlsTable(Table):
    """[tls]: what this process shows on connections. The files are read again when they change."""

    certificate: LocalPath = Field(description="This process's TLS certificate (PEM).")
    key: LocalPath = Field(description="Its private key (PEM, unencrypted, readable by its owner only).")
    ca: LocalPath = Field(description="The consortium's authority, or several while one replaces another (PEM).")

    @property
    def paths(self) -> TlsPaths:
        return TlsPaths(self.certificate, self.key, self.ca)


class SigningTable(Table):
    """[signing]: what this process signs messages with."""

    certificate: LocalPath = Field(description="This process's Ed25519 signing certificate (PEM).")
    key: LocalPath = Field(description="Its private key (PEM, unencrypted, readable by its owner only).")


class LogTable(Table):
    """[log]: lines on standard error."""

    format: Literal["json", "pretty", "auto"] = Field(
        default="auto", description="`json` lines, `pretty` for people, or `auto`: pretty on a terminal."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe level that is printed."
    )


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of an address that was checked."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def load_config(path: Path, model: type[M], *, environment: Mapping[str, str]) -> M:
    """Read `path` into `model`, with the variables of `environment` on top. Raises ConfigError."""
    document = _read(path)
    origins = _override(document, model, environment)
    try:
        _refuse_dates(document, where=f"{path}: ")
        text = json.dumps(document)
    except RecursionError:
        raise nested_too_deeply(str(path)) from None
    try:
        # By way of JSON, because strict JSON is what TOML is: a list may become a tuple, but "3" is not a number.
        return model.model_validate_json(text, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise ConfigError(f"{origins.get(place_of(error)[:2], path)}: {first_complaint(error, model)}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: expected a configuration file, it cannot be read ({error.strerror}): check its path, and that "
            "this user may read it"
        ) from None
    if len(data) > CONFIG_MAX_BYTES:
        raise ConfigError(f"{path}: expected a configuration of at most {CONFIG_MAX_BYTES} bytes, got more")
    return read_toml(data, source=str(path))


def _override(
    document: dict[str, Any], model: type[BaseModel], environment: Mapping[str, str]
) -> dict[tuple[str, ...], str]:
    """Put the variables into `document`; returns which key came from which variable."""
    origins: dict[tuple[str, ...], str] = {}
    for variable, text in sorted(environment.items()):
        parts = _VARIABLE.fullmatch(variable)
        if parts is None:
            continue
        section, key = parts[1].lower(), parts[2].lower()
        fields = _fields_of(model, section)
        if key not in fields:
            raise ConfigError(f"environment variable {variable}: {_no_such_key(model, section, fields)}")
        table = document.setdefault(section, {})
        if isinstance(table, dict):  # otherwise the model complains about the file
            table[key] = _value(text, fields[key])
            origins[section, key] = f"environment variable {variable}"
    return origins


def _fields_of(model: type[BaseModel], section: str) -> dict[str, Any]:
    found = model.model_fields.get(section)
    # A table that may be left out is written as `Table | None`.
    kind: Any = found.annotation if found else None
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    table = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    if table is None:
        return {}
    return {
        name: Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        for name, field in table.model_fields.items()
    }


def _value(text: str, annotation: Any) -> Any:
    """The text itself or what TOML reads there: what the key accepts, or what gives the better complaint."""
    if _trouble(text, annotation) is None:
        return text
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    trouble = _trouble(value, annotation)
    return text if trouble is not None and trouble.endswith("_type") else value


def _trouble(value: Any, annotation: Any) -> str | None:
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        return error.errors()[0]["type"]
    return None


def _no_such_key(model: type[BaseModel], section: str, fields: Mapping[str, object]) -> str:
    if fields:
        return f"no such key; in [{section}] expected {', '.join(sorted(fields))}"
    if section in model.model_fields:
        return f"[{section}] cannot be set by variables: set it in the file"
    return f"no such table; expected one of {', '.join(known_keys(model))}"


def _refuse_dates(table: Mapping[str, Any], *, where: str) -> None:
    """What TOML has and JSON has not, which no key of ours takes. Raises ConfigError."""
    for key, value in table.items():
        _refuse_date(value, where=f"{where}{key}")


def _refuse_date(value: object, *, where: str) -> None:
    if isinstance(value, dict):
        _refuse_dates(value, where=f"{where}.")
    elif isinstance(value, list):
        for entry in value:
            _refuse_date(entry, where=where)
    elif isinstance(value, date | time):
        raise ConfigError(
            f"{where}: expected text, a number, true or false, got the {type(value).__name__} {value}: "
            "write it in quotes"
        )
