"""How the C library keeps memory: set first, before a daemon starts its threads.

Every chunk of a transfer is a fresh allocation of 1 MiB. As glibc comes, each is mapped from the kernel and given back,
and every byte of a transfer lands in a page touched for the first time: measured, half of the throughput. With these
three settings freed memory stays with the process and is used again; the price is that it stays.
"""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024  # the most that glibc takes; chunks are 1 MiB
TRIM_THRESHOLD_BYTES = 512 * 1024 * 1024
ARENAS = 2  # of the settings measured equally fast, the one with the lowest peak


def keep_memory() -> bool:
    """Tune the allocator of this process. False on a C library other than glibc, where nothing is changed."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = (
        (_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES),
        (_M_ARENA_MAX, ARENAS),
    )
    return sum(int(mallopt(name, value)) for name, value in settings) == len(settings)
