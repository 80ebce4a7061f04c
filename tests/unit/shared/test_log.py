"""What reaches the log, and what never does."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.errors import IdentityError
from shared.log import SecretGuard, SecretInLogError, configure_logging, log_context
from shared.secret import Secret

HIDDEN = "do-not-print-me"
KEY_TEXT = f"-----BEGIN PRIVATE KEY-----\n{HIDDEN}\n-----END PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def _configured(style: str = "json", level: str = "info") -> tuple[io.StringIO, SecretGuard]:
    stream = io.StringIO()
    return stream, configure_logging(style=style, level=level, stream=stream)  # type: ignore[arg-type] # plain text in tests


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_carries_its_context() -> None:
    stream, _ = _configured()
    log = structlog.get_logger()
    with log_context(job="heart-1", round=3):
        log.info("round_opened", members=4)
    log.info("idle")
    first, second = _lines(stream)
    assert (first["event"], first["job"], first["round"], first["members"]) == ("round_opened", "heart-1", 3, 4)
    assert first["level"] == "info"
    assert str(first["timestamp"]).endswith("Z")
    assert "job" not in second


def test_levels_and_logs_of_libraries() -> None:
    stream, _ = _configured(level="warning")
    structlog.get_logger().info("too_much")
    structlog.get_logger().warning("enough")
    logging.getLogger("library").info("too much")
    logging.getLogger("library").warning("they said %s", "this")
    assert [line["event"] for line in _lines(stream)] == ["enough", "they said this"]


def test_for_people() -> None:
    stream, _ = _configured("pretty")
    structlog.get_logger().info("round_opened", members=4)
    assert "round_opened" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_auto_is_json_where_nobody_looks() -> None:
    stream, _ = _configured("auto")
    structlog.get_logger().info("event")
    assert len(_lines(stream)) == 1


LEAKS: list[dict[str, object]] = [
    {"value": Secret(HIDDEN.encode())},
    {"values": [1, {"inner": (Secret(HIDDEN.encode()),)}]},
    {"password": HIDDEN},
    {"database_password": HIDDEN},
    {"options": {"api_token": HIDDEN}},
    {"tls_private_key": HIDDEN},
    {"text": KEY_TEXT},
    {"error": [KEY_TEXT]},
]


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("style", ["json", "pretty"])
def test_a_secret_is_replaced_and_counted(leak: dict[str, object], style: str) -> None:
    stream, guard = _configured(style)
    structlog.get_logger().info("slip", **leak)
    assert HIDDEN not in stream.getvalue()
    assert "<refused>" in stream.getvalue()
    assert guard.refused == 1


@pytest.mark.parametrize("leak", LEAKS)
def test_in_tests_a_secret_raises(leak: dict[str, object]) -> None:
    configure_logging(style="json", level="info", stream=io.StringIO(), on_leak="raise")
    with pytest.raises(SecretInLogError) as caught:
        structlog.get_logger().info("slip", **leak)
    assert HIDDEN not in str(caught.value)


def test_bytes_are_only_counted() -> None:
    stream, guard = _configured()
    structlog.get_logger().info("chunk", data=HIDDEN.encode(), view=memoryview(b"123"))
    (line,) = _lines(stream)
    assert (line["data"], line["view"]) == (f"<{len(HIDDEN)} bytes>", "<3 bytes>")
    assert guard.refused == 0


def test_an_ordinary_event_passes() -> None:
    stream, guard = _configured()
    structlog.get_logger().info("ready", tokens_seen=3, shared=True, digests=["a"], token=None, masking="plain")
    assert guard.refused == 0
    assert _lines(stream)[0]["digests"] == ["a"]


def test_a_structure_without_end() -> None:
    stream, _ = _configured()
    endless: list[object] = []
    endless.append(endless)
    structlog.get_logger().info("loop", value=endless)
    assert "<refused>" in stream.getvalue()


def _fail(error: Exception) -> None:
    local_patient_name = HIDDEN
    assert local_patient_name
    raise error


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_errors_of_ours_have_no_traceback(style: str) -> None:
    stream, _ = _configured(style)
    try:
        _fail(IdentityError("who are you"))
    except IdentityError:
        structlog.get_logger().exception("session_refused")
    text = stream.getvalue()
    assert "IdentityError" in text
    assert "who are you" in text
    assert "Traceback" not in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_bugs_have_a_traceback_without_local_variables(style: str) -> None:
    stream, _ = _configured(style)
    try:
        _fail(KeyError("missing"))
    except KeyError as error:
        structlog.get_logger().error("bug", exc_info=error)
    text = stream.getvalue()
    assert "Traceback" in text
    assert "_fail" in text
    assert HIDDEN not in text


def test_a_private_key_in_a_traceback() -> None:
    stream, guard = _configured()
    try:
        _fail(ValueError(KEY_TEXT))
    except ValueError:
        logging.getLogger("library").exception("it failed")
    assert HIDDEN not in stream.getvalue()
    assert guard.refused == 1
