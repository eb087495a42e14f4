"""Latencies in a log-linear histogram, as HdrHistogram has them: three digits of precision from microseconds to hours.

The package of that name wants a build tool at run time, so these are the sixty lines of it that are used here. The text
is the one its plotters read (https://hdrhistogram.github.io/HdrHistogram/plotFiles.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

__all__ = ["PERCENTILES", "Histogram"]

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "p99.99": 99.99}

_BITS = 11
_HALF = 1 << (_BITS - 1)
_MOST_MISSING = 100_000


@final
class Histogram:
    """Counts of whole microseconds. Values below 2,048 µs are exact, those above to within a thousandth."""

    __slots__ = ("_counts", "highest", "total")

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0
        self.highest = 0.0
        """Seconds, exactly."""
        self.record(seconds)

    def record(self, seconds: Iterable[float]) -> None:
        """Count values; what is below zero counts as zero."""
        counts = self._counts
        for value in seconds:
            index = _index(max(round(value * 1e6), 0))
            counts[index] = counts.get(index, 0) + 1
            self.total += 1
            self.highest = max(self.highest, value)

    def merge(self, other: Histogram) -> None:
        for index, count in other._counts.items():
            self._counts[index] = self._counts.get(index, 0) + count
        self.total += other.total
        self.highest = max(self.highest, other.highest)

    def corrected(self, interval: float) -> Histogram:
        """As if the next request had not waited for a slow answer but had been sent every `interval` seconds: a value
        of ten intervals stands for nine more, each an interval shorter, which nobody sent (HdrHistogram's correction
        for coordinated omission)."""
        made = Histogram()
        made.merge(self)
        counts = made._counts
        for index, count in self._counts.items():
            value = _highest(index) / 1e6
            for missing in range(1, min(int(value / interval), _MOST_MISSING) if interval > 0 else 0):
                place = _index(round((value - missing * interval) * 1e6))
                counts[place] = counts.get(place, 0) + count
                made.total += count
        return made

    def percentile(self, percent: float) -> float:
        """Seconds which `percent` of the values do not exceed; 0 where there is no value."""
        return next((value for value, share in self._ascending() if 100 * share >= percent - 1e-9), 0.0)

    def figures(self) -> dict[str, float]:
        """Milliseconds by title, nothing where there is no value."""
        if not self.total:
            return {}
        found = {f"{title} ms": 1000 * self.percentile(percent) for title, percent in PERCENTILES.items()}
        return found | {"max ms": 1000 * self.highest}

    def curve(self) -> list[tuple[float, float]]:
        """Percentile -> milliseconds, twenty steps for each halving of what is left above."""
        steps = [100 * (1 - 2 ** (-step / 20)) for step in range(20 * max(self.total.bit_length(), 1))]
        points, values, at = [], list(self._ascending()), 0
        for percent in steps:
            while at < len(values) - 1 and 100 * values[at][1] < percent:
                at += 1
            if values:
                points.append((percent, 1000 * values[at][0]))
        return points

    def text(self) -> str:
        """The percentile distribution in milliseconds (`.hgrm`)."""
        lines = [f"{'Value(ms)':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>16}", ""]
        for value, share in self._ascending():
            count = round(share * self.total)
            rest = f"{1 / (1 - share):>16.2f}" if count < self.total else f"{'inf':>16}"
            lines.append(f"{1000 * value:>12.3f} {share:>14.12f} {count:>10} {rest}")
        lines.append(f"#[Max = {1000 * self.highest:.3f}, Total count = {self.total}]")
        return "\n".join(lines) + "\n"

    def as_json(self) -> list[list[float]]:
        counts: list[list[float]] = [[index, count] for index, count in sorted(self._counts.items())]
        return [[self.highest, self.total], *counts]

    @classmethod
    def from_json(cls, rows: list[list[float]]) -> Histogram:
        histogram = cls()
        histogram.highest, histogram.total = rows[0][0], int(rows[0][1])
        histogram._counts = {int(index): int(count) for index, count in rows[1:]}
        return histogram

    def _ascending(self) -> Iterator[tuple[float, float]]:
        """Seconds, and the share of the values that do not exceed them."""
        seen = 0
        for index in sorted(self._counts):
            seen += self._counts[index]
            yield min(_highest(index) / 1e6, self.highest), seen / self.total


def _index(value: int) -> int:
    shift = max(value.bit_length() - _BITS, 0)
    return (value >> shift) + shift * _HALF


def _highest(index: int) -> int:
    """The highest value that is counted at `index`."""
    shift = max(index // _HALF - 1, 0)
    return ((index - shift * _HALF + 1) << shift) - 1
