"""One timer wheel for all connections: pings, pong checks, presence refreshes, expiries.

A task per connection for each of these would cost more memory than the connection itself.
"""

from __future__ import annotations

import heapq
import math
from typing import Protocol, final

import trio

__all__ = ["Timed", "TimerWheel"]

_TICK = 0.05
"""Seconds per slot: how late a timer may be."""


class Timed(Protocol):
    """Who is woken. `slot` belongs to the wheel: the slot armed for, or None."""

    slot: int | None

    def on_timer(self, now: float) -> None:
        """The time asked for has come. Synchronous; arm again from here if there is more to do."""

    def crashed(self) -> None:
        """Called within an `except`: `on_timer` raised. Whoever owns this wall ends, and nobody else."""


@final
class TimerWheel:
    """Wakes each `Timed` once, at or shortly after the time it asked for, and those of one tick in the order in which
    they asked. Times are Trio's clock, in seconds."""

    __slots__ = ("_changed", "_fired", "_heap", "_next", "_slots")

    def __init__(self) -> None:
        self._slots: dict[int, dict[Timed, None]] = {}
        self._heap: list[int] = []
        self._next = math.inf  # the slot the task sleeps for
        self._fired: float = -math.inf  # up to here everything was woken
        self._changed = trio.Event()

    def __len__(self) -> int:
        return sum(len(slot) for slot in self._slots.values())

    def arm(self, timed: Timed, when: float) -> None:
        """Wake `timed` at `when`, instead of any earlier appointment; infinity is never.

        A time that is over is the next tick: who arms again from `on_timer` cannot keep the others waiting.
        """
        slots = self._slots
        if timed.slot is not None:
            slot = slots.get(timed.slot)
            if slot is not None:
                slot.pop(timed, None)
            timed.slot = None
        if when == math.inf:
            return
        number = math.ceil(when / _TICK)
        if number <= self._fired:
            number = int(self._fired) + 1
        slot = slots.get(number)
        if slot is None:
            slot = slots[number] = {}
            heapq.heappush(self._heap, number)
            if number < self._next:
                self._changed.set()
        slot[timed] = None
        timed.slot = number

    def disarm(self, timed: Timed) -> None:
        """Forget `timed`; nothing of it remains here."""
        if timed.slot is not None:
            slot = self._slots.get(timed.slot)
            if slot is not None:
                slot.pop(timed, None)
            timed.slot = None

    async def run(self) -> None:
        """Runs in the hub stage for as long as it lives."""
        while True:
            self._changed = trio.Event()
            self._next = self._heap[0] if self._heap else math.inf
            with trio.move_on_at(self._next * _TICK):
                await self._changed.wait()
            await self._fire(trio.current_time())

    async def _fire(self, now: float) -> None:
        self._fired = current = math.floor(now / _TICK + 1e-6)
        while self._heap and self._heap[0] <= current:
            number = heapq.heappop(self._heap)
            for count, timed in enumerate(self._slots.pop(number), 1):
                if timed.slot == number:  # else it was disarmed by one before it
                    timed.slot = None
                    try:
                        timed.on_timer(now)
                    except Exception:
                        timed.crashed()
                if count % 64 == 0:
                    await trio.lowlevel.checkpoint()
