"""What a round is asked for and what it gives."""

from __future__ import annotations

from typing import Any, final

import attrs

from broker.bench.histogram import Histogram

__all__ = ["Figures", "Outcome", "Settings", "rates"]

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
    subscriptions: int = 0
    """Of each client, beside what the shape itself needs (W11)."""
    size: int = 128
    """Bytes of a publication's data."""
    seconds: float = 3.0
    """How long the load is on, without warm-up and drain."""
    in_flight: int = 1
    """API requests under way at any moment."""
    rate: float = 0.0
    """Deliveries a second of a paced load."""
    batch: int = 1
    """Publications in one API request."""
    namespace: str = ""
    """Put before every channel, with a colon: the namespace whose history and positions are wanted."""
    jwt: bool = False
    """Whether clients connect with a token."""
    processes: int = 0
    """That subscribers are spread over; 0 leaves it to their number."""
    flood: int = 0
    """Clients that connect at once beside the load (W13)."""
    stall: bool = False
    """Whether a probe looks for the longest time in which the server answers nobody."""

    def channel(self, number: int) -> str:
        """The name of channel `number`."""
        name = f"load_{number}"
        return f"{self.namespace}:{name}" if self.namespace else name

    def channel_of(self, connection: int) -> int:
        """The channel of a connection, by its number."""
        return connection % self.channels if self.channels else connection


@final
@attrs.define
class Outcome:
    """What one round gave."""

    figures: Figures
    latency: Histogram = attrs.field(factory=Histogram)
    timeline: list[tuple[float, float, float, float]] = attrs.field(factory=list)
    """Second since the load began, things per second, median and highest latency in milliseconds."""

    def as_json(self) -> dict[str, Any]:
        return {"figures": self.figures, "latency": self.latency.as_json(), "timeline": self.timeline}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Outcome:
        timeline = [tuple(row) for row in values["timeline"]]
        return cls(values["figures"], Histogram.from_json(values["latency"]), timeline)


def rates(what: str, count: int, wall: float, cpu: float) -> Figures:
    """`count` of something per CPU-second and per second of wall time."""
    figures = {f"{what}/CPU-s": count / cpu} if cpu else {}
    return figures | {f"{what}/s": count / wall} | ({"CPU %": 100 * cpu / wall} if cpu else {})
