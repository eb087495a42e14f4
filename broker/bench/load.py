"""A round's load: connections opened and subscribed, publications posted, deliveries waited for."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import attrs

from broker.bench import usage
from broker.bench.api import ApiPool, Publications, request_to
from broker.bench.clients import Audience, Subscriber
from broker.bench.figures import Figures, Outcome, Settings, rates
from broker.bench.journal import Journal, Wrong
from broker.bench.opening import Opening, Replies, Stream, connect, subscribe
from broker.bench.records import Latencies, Ticks
from broker.bench.sockets import Poll, Sock, Stuck, dialler
from broker.bench.stall import Stall
from broker.bench.target import Target
from broker.bench.tokens import make_token
from broker.bench.wire import Command, wire_of

__all__ = ["Clock", "Load", "Say", "calm", "pace"]

OPENING_AT_ONCE = 128
"""Connections whose handshake is under way: fewer than any server's accept queue holds."""
SAYING_AT_ONCE = 8
"""Requests to `/emulation` under way."""
PROBES = 10
"""Subscribers of a channel whose latencies are taken, spread evenly among the others."""

Say = Callable[[str, float], None]
"""Told what is being done, and how much of it has been, from 0 to 1."""


@final
@attrs.define
class Clock:
    """Wall and CPU seconds of the stretch that `Load.timed` covers, and what else was seen in it."""

    begin: float = 0.0
    wall: float = 0.0
    cpu: float = 0.0
    extra: Figures = attrs.field(factory=dict)


@final
class Load:
    """All sockets of one round. Open it with `with`: leaving closes them."""

    def __init__(self, target: Target, settings: Settings, say: Say = lambda what, share: None) -> None:
        self.target, self.settings, self.say = target, settings, say
        self.poll = Poll()
        self.wire = wire_of(target.codec)
        self.audience = Audience(self.wire)
        self.ticks = Ticks()
        self.journals: list[Journal] = []
        self._dial = dialler(target, target.link)
        self._emulation: ApiPool | None = None

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.poll.close()

    # ---- opening ----------------------------------------------------------------------------------------------

    def open_links(
        self,
        numbers: Sequence[int],
        commands: Callable[[int], list[Command]],
        use: Callable[[int, Sock, Stream | None, Replies, bytes], None],
    ) -> None:
        """Open one connection for each of `numbers` and send `commands(n)` on it, in one frame.

        `use(n, …)` is called as soon as all commands of connection n are answered; it has to `poll.replace`.
        """
        under_way: set[int] = set()

        def opened(number: int, *link: Any) -> None:
            under_way.remove(number)
            use(number, *link)

        for done, number in enumerate(numbers):
            under_way.add(number)
            self.open_link(commands(number), partial(opened, number))
            if len(under_way) >= OPENING_AT_ONCE:
                self.say("opening connections", done / len(numbers))
                self.poll.turn_until(lambda: len(under_way) < OPENING_AT_ONCE, "handshakes")
        self.poll.turn_until(lambda: not under_way, "handshakes")

    def open_link(self, commands: list[Command], use: Callable[[Sock, Stream | None, Replies, bytes], None]) -> None:
        """Begin to open one connection; `use` is called when its commands are answered, and has to `poll.replace`."""
        opening = Opening(self._dial(), self.target, self.wire, commands, use, self._say_by_request)
        self.poll.add(opening)
        opening.begin()

    def _say_by_request(self, body: bytes) -> None:
        """What the client of a stream says; the answer says nothing, what is answered comes on the stream."""
        address = self.target.emulation
        if self._emulation is None:
            dial = dialler(self.target, address)
            self._emulation = ApiPool(self.poll, [dial() for _ in range(SAYING_AT_ONCE)])
        request = request_to(address, self.target.content_type, body)
        self._emulation.post((request, time.perf_counter(), None))

    def connect(self, number: int) -> Command:
        """The connect command of a client."""
        if not self.settings.jwt:
            return connect()
        if not self.target.token_secret:
            raise ValueError("clients need tokens, and there is no secret to sign them with")
        return connect(make_token(f"user_{number}", self.target.token_secret))

    def subscribe(self, numbers: Sequence[int], *, probes: int = 0) -> None:
        """Open connections, each subscribed to the channel of its number; `probes` of them take latencies."""
        settings = self.settings
        every = max(len(numbers) // probes, 1) if probes else 0

        def commands(number: int) -> list[Command]:
            return [self.connect(number), subscribe(settings.channel(settings.channel_of(number)))]

        def use(number: int, sock: Sock, stream: Stream | None, _: Replies, __: bytes) -> None:
            journal = self.journals[settings.channel_of(number)]
            timed = bool(every) and number % every == 0
            self.poll.replace(Subscriber(sock, stream, self.audience, journal, timed=timed))

        self.open_links(numbers, commands, use)

    def add_journals(self, count: int) -> None:
        self.journals += [Journal(channel) for channel in range(len(self.journals), len(self.journals) + count)]

    def open_api(self, count: int) -> ApiPool:
        dial = dialler(self.target, self.target.api)
        return ApiPool(self.poll, [dial() for _ in range(count)])

    def publications(self) -> Publications:
        """To all channels that have a journal."""
        names = [self.settings.channel(number) for number in range(len(self.journals))]
        made = Publications(self.target.api, self.target.api_key, self.journals, names, self.settings.size)
        self.audience.sent_at = made.sent_at
        return made

    # ---- measuring --------------------------------------------------------------------------------------------

    @contextmanager
    def timed(self, count: Callable[[], int], seconds: float) -> Iterator[Clock]:
        """The clock of a stretch of load; drain within it, so that work which is still to do counts.

        Args:
            count: how many things have been done, for the timeline.
            seconds: how long it is meant to last, for those who wait.
        """
        clock, pids = Clock(), self.target.pids
        with Stall(self.target if self.settings.stall else None) as stall:
            clock.begin = time.perf_counter()
            told = 0.0
            kernel = usage.kernel_socket_bytes()

            def on_turn() -> None:
                nonlocal told, kernel
                self.ticks.note(count())
                passed = time.perf_counter() - clock.begin
                if passed - told > 0.2:
                    told = passed
                    kernel = max(kernel, usage.kernel_socket_bytes())
                    self.say("load", min(passed / seconds, 1.0) if seconds else 1.0)

            self.poll.on_turn = on_turn
            cpu = usage.cpu_seconds(pids)
            yield clock
            clock.cpu = usage.cpu_seconds(pids) - cpu
            clock.wall = time.perf_counter() - clock.begin
            self.poll.on_turn = None
            self.ticks.note(count())
            clock.extra = stall.figures()
            if pids:
                clock.extra["kernel MiB"] = kernel / (1 << 20)

    def drain(self, api: ApiPool | None, deliveries: Callable[[], int], expected: Callable[[], int]) -> None:
        """Wait until every request is answered and all expected deliveries are read.

        Raises:
            Stuck: fewer arrived.
            Wrong: more arrived.
        """
        try:
            self.poll.turn_until(lambda: (api is None or api.idle) and deliveries() >= expected(), "deliveries")
        except Stuck as error:
            raise Stuck(f"{error}: {deliveries():,} of {expected():,} were read") from None
        self.poll.turn(0)
        if deliveries() != expected():
            raise Wrong(f"{deliveries()} deliveries were read where {expected()} are due")

    def verify(self) -> None:
        """Every publication was read, once, and in one order.

        Raises:
            Wrong: it is not so.
        """
        for journal in self.journals:
            journal.verify()

    def outcome(self, what: str, count: int, clock: Clock, latencies: Latencies, *, in_flight: int = 0) -> Outcome:
        """The usual figures: rates, latencies, and what else the clock saw.

        Args:
            in_flight: of a closed loop whose latencies are those of its answers, how many were under way at any moment.
                Each is meant to be followed by the next after the mean time that one takes; where it took longer,
                those that were not sent count as well.
        """
        histogram = latencies.histogram()
        if in_flight and histogram.total:
            histogram = histogram.corrected(clock.wall * in_flight / histogram.total)
        figures = rates(what, count, clock.wall, clock.cpu) | histogram.figures() | clock.extra
        if self.target.pids:
            figures["RSS MiB"] = usage.resident(self.target.pids) / (1 << 20)
        timeline = self.ticks.timeline(clock.begin, clock.begin + clock.wall, latencies)
        return Outcome(figures, histogram, timeline)


def pace(load: Load, interval: float, count: int, do: Callable[[float], None]) -> None:
    """Call `do(due)` every `interval` seconds, `count` times, late ones at once; between them, read."""
    begin = time.perf_counter()
    for number in range(count):
        due = begin + number * interval
        while (left := due - time.perf_counter()) > 0:
            load.poll.turn(left)
        do(due)
        if not number % 64:
            load.poll.turn(0)  # also while everything is late


@contextmanager
def calm() -> Iterator[None]:
    """No garbage collection in the load while it lasts."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
