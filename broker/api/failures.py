"""Calls that the engine failed, in the log: while it is away all do, and a line for each would fill the disk."""

from __future__ import annotations

import math
from typing import Final, final

import structlog
import trio

from broker.hub import EngineUnavailable

__all__ = ["EngineFailures"]

_log = structlog.get_logger("broker.api")

_QUIET: Final = 10.0
"""Seconds between two lines."""


@final
class EngineFailures:
    """The first is told at once; what follows within seconds is told with the next line, by its number."""

    def __init__(self) -> None:
        self._told_at = -math.inf
        self._untold = 0

    def add(self, method: str, error: EngineUnavailable) -> None:
        """One more. The metric `centrifugo_api_command_errors_count` has each of them."""
        self._untold += 1
        now = trio.current_time()
        if now - self._told_at < _QUIET:
            return
        calls, self._untold = self._untold, 0
        self._told_at = now
        _log.error("the engine failed an API call", method=method, error=str(error), calls_since_last_told=calls)
