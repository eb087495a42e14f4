"""What is noted while the load is on, as cheaply as can be, and made into figures afterwards."""

from __future__ import annotations

import time
from array import array
from typing import final

from broker.bench.histogram import Histogram

__all__ = ["Latencies", "Ticks"]

_ROWS = 200


@final
class Latencies:
    """When something was done, and how long it had taken since it was meant to begin."""

    __slots__ = ("ended", "took")

    def __init__(self) -> None:
        self.ended = array("d")
        self.took = array("d")

    def add(self, now: float, began: float) -> None:
        self.ended.append(now)
        self.took.append(now - began)

    def clear(self) -> None:
        del self.ended[:], self.took[:]

    def histogram(self) -> Histogram:
        return Histogram(self.took)


@final
class Ticks:
    """How far a counter had come, every few milliseconds."""

    __slots__ = ("_next", "counts", "times")
    _EVERY = 0.02

    def __init__(self) -> None:
        self.times = array("d")
        self.counts = array("q")
        self._next = 0.0

    def note(self, count: int) -> None:
        now = time.perf_counter()
        if now >= self._next:
            self.times.append(now)
            self.counts.append(count)
            self._next = now + self._EVERY

    def timeline(self, begin: float, end: float, latencies: Latencies) -> list[tuple[float, float, float, float]]:
        """Second, things per second, median and highest latency in milliseconds, in equal steps from begin to end."""
        seconds = end - begin
        steps = max(min(_ROWS, int(seconds / 0.1)), 1)
        width = seconds / steps
        took: list[list[float]] = [[] for _ in range(steps)]
        for at, value in zip(latencies.ended, latencies.took, strict=True):
            if begin <= at <= end:
                took[min(int((at - begin) / width), steps - 1)].append(value)
        rows, place, before = [], 0, None
        for step in range(steps):
            until = begin + (step + 1) * width
            while place < len(self.times) and self.times[place] <= until:
                place += 1
            count = self.counts[place - 1] if place else 0
            if before is None:
                before = next((c for t, c in zip(self.times, self.counts, strict=True) if t >= begin), count)
            values = sorted(took[step])
            median, highest = (values[len(values) // 2], values[-1]) if values else (0.0, 0.0)
            rows.append(((step + 0.5) * width, (count - before) / width, 1000 * median, 1000 * highest))
            before = count
        return rows
