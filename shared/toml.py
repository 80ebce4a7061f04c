"""Reading TOML that a person wrote: what is none is a ConfigError that a person can act on, however it fails to be."""

from __future__ import annotations

import codecs
import tomllib
from typing import Any

from shared.errors import ConfigError


def read_toml(data: bytes, *, source: str) -> dict[str, Any]:
    """The tables of a file; `source` names it in errors. Raises ConfigError."""
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{source}: not TOML: it begins with a byte order mark: save it as UTF-8 without one")
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{source}: not TOML: expected UTF-8, line {line} has a byte 0x{data[error.start]:02x} that is none: "
            "save it as UTF-8"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from None
    except RecursionError:
        raise nested_too_deeply(source) from None


def nested_too_deeply(source: str) -> ConfigError:
    """Python's reader recurses, so that a few kilobytes of brackets are more than it can do."""
    return ConfigError(f"{source}: expected what a person can read, got arrays or tables that are nested too deeply")
