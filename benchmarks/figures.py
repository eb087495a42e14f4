"""What a round measures, and the clocks it is measured with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import final

import attrs

from benchmarks.servers import Server

Figures = dict[str, float]
"""Title of a column -> value. A value that could not be taken is missing."""


@final
@attrs.frozen
class Settings:
    """Size and length of a round. A shape uses what concerns it."""

    connections: int = 0
    """Subscribers, idle clients or callers."""
    channels: int = 1
    """Channels that they are spread over; 0 gives each connection its own."""
    size: int = 128
    """Bytes of a publication's data."""
    seconds: float = 3.0
    """How long the load is on, without warm-up and drain."""
    in_flight: int = 1
    """Requests under way at any moment."""
    rate: float = 20_000.0
    """Deliveries a second of a paced load."""

    def channel(self, number: int) -> str:
        """The channel of connection `number`."""
        return f"load_{number % self.channels if self.channels else number}"


@final
@attrs.frozen
class Shape:
    """A load shape of docs/benchmarking.md."""

    name: str
    about: str
    defaults: Settings
    measure: Callable[[Server, Settings], Figures]
    figure: str
    """The column that counts: servers are compared by it."""
    more_is_better: bool = True
    has_floor: bool = False


@final
@attrs.define
class Clock:
    """Wall and CPU seconds of the stretch that `timed` covers."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def timed(server: Server) -> Iterator[Clock]:
    """The clock of a stretch of load; drain within it, so that work which is still to do counts."""
    clock = Clock()
    wall, cpu = time.perf_counter(), server.cpu_seconds()
    yield clock
    clock.cpu = server.cpu_seconds() - cpu
    clock.wall = time.perf_counter() - wall


def rates(what: str, count: int, clock: Clock) -> Figures:
    """`count` of something per CPU-second and per second of wall time."""
    figures = {f"{what}/CPU-s": count / clock.cpu} if clock.cpu else {}
    return figures | {f"{what}/s": count / clock.wall, "CPU %": 100 * clock.cpu / clock.wall}


def latencies(seconds: Sequence[float]) -> Figures:
    """Percentiles in milliseconds."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    last = len(ordered) - 1
    ranks = {"p50 ms": 0.5, "p99 ms": 0.99, "max ms": 1.0}
    return {title: 1000 * ordered[round(rank * last)] for title, rank in ranks.items()}
