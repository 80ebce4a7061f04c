"""How many files this process may have open."""

from __future__ import annotations

import resource

import structlog

_log = structlog.get_logger(__name__)


def raise_open_files() -> None:
    """Let this process open as many files as it is allowed to: a round has one for each member when it is folded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            _log.warning("open_files_not_raised", limit=soft, wanted=hard, reason=str(error))
            return
    _log.info("open_files", limit=hard, before=soft)
