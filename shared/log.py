"""Logging: fixed event names with key-values, as JSON lines or for people, on standard error.

Theory of operation. Everything goes through one chain, our own events (structlog) and those of libraries (logging):
context is merged in, then `SecretGuard` looks at every value, then the line is rendered. Of our own events, what is
over a peer's budget of lines is left out first (`shared.log_budget`). A daemon's standard error is bounded below all of
this (`shared.log_sink`); how many lines were lost there is said by the next event that is written.

The guard is the last thing between a slip and a file that is shipped to somebody else's cluster: a `Secret`, private
key text, or a key named like a secret never gets through. In tests it raises; in production it replaces the value and
counts, because a training run of days must not die of a log line, and the count is a metric that has to stay at zero.

Rendering shows no local variables, in tracebacks neither: a frame holds keys and patient data. An error of our own tree
says everything in its message, so only that is logged; a traceback means a bug.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, TextIO

import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from shared.errors import FederationError
from shared.log_budget import LineBudget
from shared.log_sink import sink_of
from shared.secret import Secret

REFUSED = "<refused>"
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_SECRET_NAME = re.compile(r"(^|_)(secret|password|passphrase|private_key|signing_key|token|mask|share)s?$")
_PRIVATE_KEY_TEXT = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_DEEPEST = 6  # values nested deeper than this are no log event, and a cycle ends here


class SecretInLogError(RuntimeError):
    """Somebody tried to log a secret: a bug."""


class SecretGuard:
    """The processor that lets no secret through. `refused` counts what it stopped."""

    def __init__(self, *, on_leak: Literal["raise", "replace"]) -> None:
        self.refused = 0
        self._on_leak = on_leak

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {key: self._checked(key, value, depth=0) for key, value in event.items()}

    def _checked(self, key: str, value: object, *, depth: int) -> object:
        if isinstance(value, Secret) or depth > _DEEPEST or (_SECRET_NAME.search(key) and value is not None):
            return self._refuse(key)
        if isinstance(value, str):
            return self._refuse(key) if _PRIVATE_KEY_TEXT.search(value) else value
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"  # raw bytes are keys, shares or tensors: none belongs in a log
        if isinstance(value, Mapping):
            return {str(name): self._checked(str(name), inner, depth=depth + 1) for name, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._checked("", inner, depth=depth + 1) for inner in value]
        return value

    def _refuse(self, key: str) -> str:
        self.refused += 1
        if self._on_leak == "raise":
            raise SecretInLogError(f"the value of {key!r} is a secret, or named like one, and must not be logged")
        return REFUSED


def configure_logging(
    *,
    style: Literal["json", "pretty", "auto"],
    level: Literal["debug", "info", "warning", "error"],
    stream: TextIO | None = None,
    on_leak: Literal["raise", "replace"] = "replace",
) -> SecretGuard:
    """Set up logging for the process. Call it once, from a composition root; returns the guard for its count."""
    stream = stream or sys.stderr
    guard = SecretGuard(on_leak=on_leak)
    pretty = style == "pretty" or (style == "auto" and stream.isatty())
    chain: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        render_own_errors,
        *([] if (sink := sink_of(stream)) is None else [sink.say_lost]),
        guard,  # last: what an exception says is looked at as well
    ]
    renderers = _for_people(stream) if pretty else _for_machines()
    structlog.configure(
        processors=[merge_contextvars, LineBudget(), *chain, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,  # loggers made at import time follow a later configuration
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[merge_contextvars, *chain],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(LEVELS[level], logging.WARNING))  # libraries are asked for trouble only
    return guard


def log_context(**values: str | int) -> AbstractContextManager[Any]:
    """Bind `job`, `round`, `participant`... to every event inside the `with` block."""
    return bound_contextvars(**values)


def render_own_errors(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """An error of our tree becomes its type and message; any other keeps its traceback, without local variables."""
    found = event.pop("exc_info", None)
    if not found:
        return event
    error = found if isinstance(found, BaseException) else found[1] if isinstance(found, tuple) else sys.exc_info()[1]
    if error is None:
        return event
    event["error"] = type(error).__name__
    if isinstance(error, FederationError):
        event["reason"] = str(error)
    else:
        event["exception"] = structlog.processors.format_exc_info(logger, method, {"exc_info": error}).get("exception")
    return event


def _for_machines() -> list[Processor]:
    return [structlog.processors.JSONRenderer(default=str)]


def _for_people(stream: TextIO) -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)]
