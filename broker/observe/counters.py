"""What the server counts while it works: plain numbers that the metrics endpoint reads.

Only what no structure can tell is counted here; gauges (clients, subscriptions, channels) are read from the
registry itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import Final, final

__all__ = ["COMMAND_BUCKETS", "Calls", "Counters", "Durations", "Traffic"]

COMMAND_BUCKETS: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds of `*_duration_seconds` histograms."""
_FIRST: Final = COMMAND_BUCKETS[0]
"""Most calls take less."""


@final
class Durations:
    """A histogram: `buckets[i]` counts what took at most `COMMAND_BUCKETS[i]`, the last one everything longer."""

    __slots__ = ("buckets", "count", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(COMMAND_BUCKETS) + 1)
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total += seconds
        self.buckets[0 if seconds <= _FIRST else bisect_left(COMMAND_BUCKETS, seconds)] += 1


@final
class Traffic:
    """What came in over one transport."""

    __slots__ = ("frames", "size")

    def __init__(self) -> None:
        self.frames = self.size = 0

    def add(self, frame: bytes) -> None:
        self.frames += 1
        self.size += len(frame)


@final
class Calls:
    """Calls of one hook: `inflight` are those under way now. `loop_seconds` is the time that a hook in the same process
    had the loop to itself, `loop_longest` the longest time without a pause."""

    __slots__ = ("durations", "errors", "inflight", "loop_longest", "loop_seconds")

    def __init__(self) -> None:
        self.durations = Durations()
        self.errors = 0
        self.inflight = 0
        self.loop_seconds = self.loop_longest = 0.0


@final
class Counters:
    """One per node. Keys are names from the code or the configuration, never a client's text."""

    def __init__(self) -> None:
        self.sent: defaultdict[str, int] = defaultdict(int)  # by kind: publication, join, leave, control
        self.received: defaultdict[str, int] = defaultdict(int)
        self.control_ignored: defaultdict[str, int] = defaultdict(int)  # messages of other nodes, by why
        self.actions: defaultdict[str, int] = defaultdict(int)
        self.suppressed: defaultdict[str, int] = defaultdict(int)  # by reason
        self.commands: defaultdict[str, Durations] = defaultdict(Durations)  # by client command
        self.reply_errors: defaultdict[tuple[str, int], int] = defaultdict(int)  # by command, code
        self.server_disconnects: defaultdict[int, int] = defaultdict(int)
        self.server_unsubscribes: defaultdict[int, int] = defaultdict(int)
        self.recovered: defaultdict[tuple[bool, bool], int] = defaultdict(int)  # by success, had publications
        self.accepted: defaultdict[tuple[str, bool, bool], int] = defaultdict(int)  # by transport, named, versioned
        self.subscribed = 0
        self.received_from: defaultdict[str, Traffic] = defaultdict(Traffic)  # by transport
        self.transport_closed: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.ping_pong: defaultdict[str, Durations] = defaultdict(Durations)  # by transport
        self.api_commands: defaultdict[tuple[str, str], Durations] = defaultdict(Durations)  # by protocol, method
        self.api_errors: defaultdict[tuple[str, str, str], int] = defaultdict(int)  # by protocol, method, error
        self.hooks: defaultdict[tuple[str, str, str], Calls] = defaultdict(Calls)  # by protocol, type, name
        self.pauses = 0  # times that an engine was told to wait, because a channel was full
        self.events_dropped: defaultdict[tuple[str, str], int] = defaultdict(int)  # by event of hooks, why
        self.deliveries = 0  # of channels that are gone; living ones count their own
        self.connection_limit = 0
        self.connection_crashes = 0
        self.http_refused: defaultdict[int, int] = defaultdict(int)  # by status: heads that were not HTTP enough
