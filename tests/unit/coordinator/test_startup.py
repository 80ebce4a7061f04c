"""What lies in a data folder is opened by the key that began its log, and by no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.startup import open_records
from shared.clock import SystemClock
from shared.errors import ConfigError
from tests.support.rounds import key_of


def test_another_signing_key_is_refused_before_it_writes_a_line(tmp_path: Path) -> None:
    clock = SystemClock()
    with open_records(tmp_path / "data", signing_key=key_of("coordinator"), clock=clock) as records:
        entry = records.audit.entry("coordinator_started", {})
        records.store.append_audit(entry)
        records.audit.accept(entry)
        records.catch_up()
    log = (tmp_path / "data" / "audit.log").read_bytes()
    with (
        pytest.raises(ConfigError, match="signed with another key"),
        open_records(tmp_path / "data", signing_key=key_of("renewed"), clock=clock),
    ):
        pass
    with open_records(tmp_path / "data", signing_key=key_of("coordinator"), clock=clock) as records:
        assert records.audit.size == 1
    assert (tmp_path / "data" / "audit.log").read_bytes() == log
