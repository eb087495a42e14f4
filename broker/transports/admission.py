"""How many connections a node takes, and how fast: `client.connection_limit`, `client.connection_rate_limit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

__all__ = ["Admission"]


@final
class Admission:
    """A token bucket of `rate` tokens that gains one per second, and a limit on connections at one time.

    Args:
        limit, rate: 0 for none.
        connected: how many connections there are.
        clock: seconds of a clock that never jumps.
    """

    def __init__(self, limit: int, rate: int, connected: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit
        self._rate = rate
        self._connected = connected
        self._clock = clock
        self._tokens = float(rate)
        self._at = clock()

    def admit(self) -> bool:
        """Whether one more may come now."""
        if self._limit and self._connected() >= self._limit:
            return False
        if self._rate:
            now = self._clock()
            self._tokens = min(self._tokens + now - self._at, float(self._rate))
            self._at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
        return True
