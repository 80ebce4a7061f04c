"""The C library is told once; elsewhere nothing happens."""

from __future__ import annotations

import platform

from shared.allocator import keep_memory


def test_glibc_takes_all_settings_and_others_none() -> None:
    assert keep_memory() == (platform.libc_ver()[0] == "glibc")
