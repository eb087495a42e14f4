"""Whether subscribers have everything, asked after deliveries may have been lost.

An engine elsewhere tells which channels it could not hear for a while. Publications that come later would show the
gap; where none comes, nobody would know. So the engine's position is compared with what is held, channel by channel,
and whoever is behind is told to recover.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, final

import trio

from broker.hub.channel import Channel
from broker.hub.ports import Broker, EngineUnavailable, HistoryQuery
from broker.hub.subscription import Subscription
from broker.protocol import StreamPosition

__all__ = ["PositionChecks"]

_AT_ONCE: Final = 64
"""Questions to the engine that are under way."""
_LATER: Final = 1.0
"""Seconds after which a publication that the engine has, and has not delivered here, counts as lost; and after which
a channel is looked at again that could not be judged."""
_TOLD_AT_ONCE: Final = 64
"""Subscribers told between two checkpoints."""

Find = Callable[[str], Channel | None]
Held = Sequence[tuple[Subscription, StreamPosition]]


@final
class PositionChecks:
    """Channels that wait for their check, each once, however often deliveries to it are interrupted.

    Nobody who asks the engine waits for anything else: however many channels are behind, all are told within
    moments of each other.
    """

    def __init__(self, find: Find, broker: Broker) -> None:
        self._find = find
        self._broker = broker
        self._names: dict[str, None] = {}
        self._wanted = trio.Event()
        self._later: deque[tuple[float, str, Channel | None, Held]] = deque()
        self._delayed = trio.Event()

    def add(self, names: Collection[str]) -> None:
        """Check every holder of a position in these channels. Synchronous."""
        self._names.update(dict.fromkeys(names))
        self._wanted.set()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_later, name="positions, looked at again")
            while True:
                await self._wanted.wait()
                self._wanted = trio.Event()
                async with trio.open_nursery() as asking:
                    for _ in range(min(_AT_ONCE, len(self._names))):
                        asking.start_soon(self._ask)

    async def _ask(self) -> None:
        while self._names:
            name = next(iter(self._names))
            del self._names[name]
            await self._check(name)

    async def _check(self, name: str) -> None:
        channel = self._find(name)
        if channel is None:
            return
        held = list(_held(channel))
        if held:
            try:
                page = await self._broker.history(name, HistoryQuery(), max(sub.meta_ttl for sub, _ in held))
            except EngineUnavailable:
                self._delay(name)
                return
            behind = [(sub, position) for sub, position in held if position != page.top]
            if behind:
                self._delay(name, channel, behind)
        if channel.collecting:
            self._delay(name)  # some had no position yet, and may have missed something all the same

    def _delay(self, name: str, channel: Channel | None = None, behind: Held = ()) -> None:
        self._later.append((trio.current_time() + _LATER, name, channel, behind))
        self._delayed.set()

    async def _look_later(self) -> None:
        while True:
            await self._delayed.wait()
            while self._later:
                due, name, channel, behind = self._later.popleft()
                await trio.sleep_until(due)
                if channel is None:
                    self.add([name])
                else:
                    await _judge(name, channel, behind)
            self._delayed = trio.Event()  # no await between the empty queue and this


async def _judge(name: str, channel: Channel, behind: Held) -> None:
    for number, (sub, position) in enumerate(behind, 1):
        if channel.position(sub) == position:  # else it moved, and gaps show by themselves
            sub.subscriber.lost(name)
        if number % _TOLD_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()


def _held(channel: Channel) -> Iterator[tuple[Subscription, StreamPosition]]:
    subs = [sub for group in channel.groups.values() for sub in group.members] + list(channel.joining)
    for sub in subs:
        position = channel.position(sub)
        if position is not None:
            yield sub, position
