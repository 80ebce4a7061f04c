"""A process whose memory is never written to a file when it dies.

The secrets of an attempt are in memory so that they end with their process. A core file would keep them, and the
update before masking beside them.
"""

from __future__ import annotations

import resource


def forbid_core_dumps() -> None:
    """No core files of this process and of those that it starts; it cannot be taken back.

    Where the kernel hands dumps to a program (`kernel.core_pattern` begins with a pipe), that program decides, and is
    only told of this limit.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
