"""When a worker is started again, and when one that says nothing is given up."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

__all__ = ["Pauses", "deaf"]

_FIRST: Final = 0.2
_LONGEST: Final = 15.0
_GOOD: Final = 30.0
"""Seconds of life after which the next crash counts as the first one."""

_ASK_EVERY: Final = 5.0
DEAF_AFTER: Final = 30.0


@final
class Pauses:
    """Seconds from a crash to the next start: twice as long each time, up to 15, and less by up to a half by chance."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._next = _FIRST

    def after(self, lived: float) -> float:
        """The pause after a life of so many seconds."""
        if lived >= _GOOD:
            self._next = _FIRST
        pause, self._next = self._next, min(2 * self._next, _LONGEST)
        return pause * self._rng.uniform(0.5, 1.0)


async def deaf(ask: Callable[[], Awaitable[object]]) -> None:
    """Returns when what is asked every 5 s has not been answered within 30: an event loop that stands still."""
    while True:
        with trio.move_on_after(DEAF_AFTER) as patience:
            await ask()
        if patience.cancelled_caught:
            return
        await trio.sleep(_ASK_EVERY)
