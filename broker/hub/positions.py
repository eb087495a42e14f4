"""Whether subscribers have everything, asked after deliveries may have been lost.

An engine elsewhere tells which channels it could not hear for a while. Publications that come later would show the
gap; where none comes, nobody would know. So the engine's position is compared with what is held, channel by channel,
and whoever is behind is told to recover.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Final

import trio

from broker.hub.channel import Channel
from broker.hub.ports import Broker, EngineUnavailable, HistoryQuery
from broker.hub.subscription import Subscription
from broker.protocol import StreamPosition

__all__ = ["check_positions"]

_AT_ONCE: Final = 64
_AGAIN: Final = 0.5
_ON_ITS_WAY: Final = 1.0
"""Seconds after which a publication that the engine has, and has not delivered here, counts as lost."""

Find = Callable[[str], Channel | None]


async def check_positions(names: Collection[str], find: Find, broker: Broker) -> None:
    """Check every holder of a position in these channels. Ends when all are checked, however long the engine takes."""
    rest = iter(names)

    async def work() -> None:
        for name in rest:
            await _check(name, find, broker)

    async with trio.open_nursery() as nursery:
        for _ in range(min(_AT_ONCE, len(names))):
            nursery.start_soon(work)


async def _check(name: str, find: Find, broker: Broker) -> None:
    while True:
        channel = find(name)
        if channel is None:
            return
        held = list(_held(channel))
        if held:
            try:
                page = await broker.history(name, HistoryQuery(), max(sub.meta_ttl for sub, _ in held))
            except EngineUnavailable:
                await trio.sleep(_AGAIN)
                continue
            behind = [(sub, position) for sub, position in held if position != page.top]
            if behind:
                await trio.sleep(_ON_ITS_WAY)
                for sub, position in behind:
                    if channel.position(sub) == position:  # else it moved, and gaps show by themselves
                        sub.subscriber.lost(name)
        if find(name) is not channel or not channel.collecting:
            return
        await trio.sleep(_AGAIN)  # some had no position yet, and may have missed something all the same


def _held(channel: Channel) -> Iterator[tuple[Subscription, StreamPosition]]:
    subs = [sub for group in channel.groups.values() for sub in group.members] + list(channel.joining)
    for sub in subs:
        position = channel.position(sub)
        if position is not None:
            yield sub, position
