"""Which channels are occupied on this node, told to backends until they have acknowledged it.

This is no log of what happened but a state that is brought over: of every channel the backend gets the latest state,
and gets it again until it has answered. What came and went before it could be told is not told. So a backend that is
down costs memory for the channels that are occupied, or that it still believes to be, and for no others.

A channel that somebody entered or left is `touch`ed, and looked up a little later in the hub itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final, final

import attrs
import structlog
import trio

from broker.channels import Channels
from broker.hooks.backends import Backends
from broker.hooks.events import ChannelState, StateEvent
from broker.hooks.hook import HookFailed
from broker.hooks.options import StateOptions
from broker.hub import Node
from broker.protocol import codes

__all__ = ["States"]

_log = structlog.get_logger("broker.hooks")

_SHORTEST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 20.0
_LONGEST_LAST_PAUSE: Final = 0.5
"""Seconds between two attempts; when the server ends, there is not much time."""
_SLICE: Final = 256
"""Channels looked up before others get a turn."""


@final
@attrs.define(eq=False)
class _Record:
    """What the backend should know of a channel, and what it does.

    `acknowledged` is whether it last confirmed the channel to be occupied; `doubted` while it may have heard otherwise
    since.
    """

    channel: str
    hook: str
    occupied: bool = False
    time_ms: int = 0
    generation: int = 0
    acknowledged: bool = False
    doubted: bool = False

    @property
    def owed(self) -> bool:
        return self.doubted or self.occupied != self.acknowledged


@final
class _Desk:
    """Everything that one hook is to be told. `owed` are channels, first come first told."""

    def __init__(self) -> None:
        self.owed: OrderedDict[str, None] = OrderedDict()
        self.news = trio.Event()


@final
class States:
    """The states of this node's channels. `run` has to run for as long as it is used."""

    def __init__(
        self,
        node: Node,
        nursery: trio.Nursery,
        backends: Callable[[], Backends],
        channels: Callable[[], Channels],
        options: Callable[[], StateOptions],
        wall_clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._node = node
        self._nursery = nursery
        self._backends = backends
        self._channels = channels
        self._options = options
        self._wall_clock = wall_clock
        self._random = random
        self._records: dict[str, _Record] = {}
        self._desks: dict[str, _Desk] = {}
        self._touched: dict[str, None] = {}
        self._looking = False
        # not vacated yet: since when, by Trio's clock and in Unix milliseconds; the first one first
        self._empty_since: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._generation = 0
        self._news = trio.Event()
        self._ending = trio.Event()
        self._settled: trio.Event | None = None

    @property
    def owed(self) -> int:
        """Channels whose state some backend has yet to acknowledge."""
        return sum(len(desk.owed) for desk in self._desks.values())

    # ---- what changes ---------------------------------------------------------------------------------------------

    def touch(self, channel: str) -> None:
        """Somebody has entered or left this channel. Synchronous."""
        self._touched[channel] = None
        self._news.set()

    def reloaded(self) -> None:
        """Other hooks may be told of any channel, and new code of a hook may know nothing: tell them anew."""
        for channel in self._node.registry.live_channels():
            self._touched[channel.name] = None
        for name, record in self._records.items():
            self._records[name] = attrs.evolve(record, doubted=True)  # another one: the answer of old code is none
            self._touched[name] = None
        self._news.set()

    async def run(self) -> None:
        while True:
            if not self._touched:
                self._news = trio.Event()
                with trio.move_on_at(self._next_vacated()):
                    await self._news.wait()
            if not self._ending.is_set():
                with trio.move_on_after(self._options().batch_max_delay):
                    await self._ending.wait()
            self._looking = True
            await self._look()
            self._looking = False
            self._check_settled()

    def _next_vacated(self) -> float:
        for since, _ in self._empty_since.values():
            return since + self._delay()
        return math.inf

    def _delay(self) -> float:
        return 0.0 if self._ending.is_set() else self._options().vacated_event_delay

    async def _look(self) -> None:
        """See what has become of the channels that were touched, and which of the empty ones are vacated by now."""
        touched, self._touched = self._touched, {}
        for count, channel in enumerate(touched, 1):
            self._look_at(channel)
            if count % _SLICE == 0:
                await trio.lowlevel.checkpoint()
        count = 0
        while self._next_vacated() <= trio.current_time():
            channel, (_, time_ms) = self._empty_since.popitem(last=False)
            if not self._occupied(channel):  # else somebody came a moment ago, and it is looked at next time
                self._turn(self._records[channel], False, time_ms)
            count += 1
            if count % _SLICE == 0:
                await trio.lowlevel.checkpoint()
        for desk in self._desks.values():
            if desk.owed:
                desk.news.set()

    def _look_at(self, channel: str) -> None:
        hook = self._hook_of(channel)
        record = self._records.get(channel)
        if record is not None and record.hook != hook:
            self._forget(record)
            record = None
        if self._occupied(channel):
            self._empty_since.pop(channel, None)
            if record is None and hook is not None:
                record = self._records[channel] = _Record(channel, hook)
            if record is not None and not record.occupied:
                self._turn(record, True, self._now_ms())
            elif record is not None and record.owed:
                self._owe(record)
        elif record is not None and record.occupied and channel not in self._empty_since:
            self._empty_since[channel] = (trio.current_time(), self._now_ms())

    def _occupied(self, channel: str) -> bool:
        local = self._node.registry.channels.get(channel)
        return local is not None and local.occupied

    def _hook_of(self, channel: str) -> str | None:
        resolved = self._channels().resolve(channel)
        if resolved is None or not resolved.options.state_proxy_enabled:
            return None
        return resolved.options.state_proxy_name

    def _turn(self, record: _Record, occupied: bool, time_ms: int) -> None:
        # microseconds: also higher than those of a process before this one, and exact in any JSON reader
        self._generation = max(self._generation + 1, int(self._wall_clock() * 1_000_000))
        record.occupied, record.time_ms, record.generation = occupied, time_ms, self._generation
        if record.owed:
            self._owe(record)
        else:
            self._put_away(record)

    def _owe(self, record: _Record) -> None:
        desk = self._desks.get(record.hook)
        if desk is None:
            desk = self._desks[record.hook] = _Desk()
            self._nursery.start_soon(self._tell, record.hook, desk, name="hooks states")
        desk.owed[record.channel] = None

    def _put_away(self, record: _Record) -> None:
        """Its hook knows all there is. There is a desk: who owes nothing has been told, or was about to be."""
        self._desks[record.hook].owed.pop(record.channel, None)
        if not record.occupied:
            del self._records[record.channel]

    def _forget(self, record: _Record) -> None:
        """Its hook is not told of this channel any more."""
        self._desks[record.hook].owed.pop(record.channel, None)
        self._empty_since.pop(record.channel, None)
        del self._records[record.channel]

    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    # ---- what is told ---------------------------------------------------------------------------------------------

    async def _tell(self, name: str, desk: _Desk) -> None:
        """One batch after another, so that a hook hears of a channel in order; each until it is acknowledged."""
        while True:
            await desk.news.wait()
            desk.news = trio.Event()
            failures = 0
            while desk.owed:
                records = [self._records[channel] for channel in islice(desk.owed, self._options().batch_max_size)]
                told = [(record, record.occupied) for record in records]
                if await self._told(name, records):
                    failures = 0
                    self._acknowledged(told)
                    self._check_settled()
                else:
                    await self._pause(failures)
                    failures += 1

    async def _told(self, name: str, records: list[_Record]) -> bool:
        hook = self._backends().state.get(name)
        if hook is None:
            return False  # a reload has taken it away, and with the next look its channels go, too
        for record in records:
            record.doubted = True  # until it answers, it may have heard this or not
        events = tuple(
            ChannelState(
                channel=record.channel,
                type="occupied" if record.occupied else "vacated",
                time_ms=record.time_ms,
                generation=record.generation,
            )
            for record in records
        )
        try:
            await hook(StateEvent(node=self._node.uid, events=events))
        except (HookFailed, codes.ClientError, codes.Disconnected):
            return False
        return True

    def _acknowledged(self, told: list[tuple[_Record, bool]]) -> None:
        for record, occupied in told:
            if self._records.get(record.channel) is not record:
                continue  # a reload has given the channel to another hook
            record.acknowledged, record.doubted = occupied, False
            if not record.owed:
                self._put_away(record)

    async def _pause(self, failures: int) -> None:
        longest = _LONGEST_LAST_PAUSE if self._ending.is_set() else _LONGEST_PAUSE
        pause = min(longest, _SHORTEST_PAUSE * 2.0 ** min(failures, 16)) * (0.5 + self._random() / 2)
        if self._ending.is_set():
            await trio.sleep(pause)
            return
        with trio.move_on_after(pause):
            await self._ending.wait()

    # ---- the end --------------------------------------------------------------------------------------------------

    async def end(self) -> None:
        """All clients have gone: wait until every channel is vacated, and known to be."""
        self._ending.set()
        self._news.set()
        while not self._all_told:
            self._settled = trio.Event()
            await self._settled.wait()

    @property
    def _all_told(self) -> bool:
        return not self._looking and not self._touched and not self._empty_since and not self.owed

    def _check_settled(self) -> None:
        if self._settled is not None and self._all_told:
            self._settled.set()

    def give_up(self) -> int:
        """How many channels some backend does not know the state of: there is no more time."""
        lost = self.owed + len(self._touched) + len(self._empty_since)
        if lost:
            _log.warning("the server ends before a hook was told", hook="state", events=lost)
        return lost
