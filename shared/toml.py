"""Reading TOML that a person wrote, with complaints that a person can act on."""

from __future__ import annotations

import codecs
import tomllib
from typing import Any

from shared.errors import ConfigError


def parse_toml(data: bytes, *, source: str) -> dict[str, Any]:
    """Read TOML; `source` names it in errors. Raises ConfigError."""
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
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: not TOML: {error}") from None
