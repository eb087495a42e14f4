"""An engine that waits: the memory engine behind calls that take their time, as an engine on another machine does.

Every call says `await own_task()` and then waits as its `Pace` has it: before it is carried out, and again before the
caller hears of it. What happens in channels nobody subscribed to at the engine is not delivered. What is delivered may
come over a `Wire`, later than whoever published has heard of it, and not all of it.

`Pace`s: `Turn` (one checkpoint), `Delays` (virtual time out of a seeded random), `Gates` (held and opened by the
test).
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, final

import attrs
import trio

from broker.eager import own_task
from broker.engines import MemoryController, MemoryPresence, open_memory_engine
from broker.hub import Broker, Deliver, EngineUnavailable, HistoryPage, HistoryQuery, PresenceStats, PublishOptions
from broker.hub import PublishResult as Result
from broker.protocol import ClientInfo, Publication

__all__ = ["Delays", "Gates", "Pace", "SlowEngine", "Turn", "Wire", "slow_engine"]


class Pace(Protocol):
    """How calls wait."""

    async def before(self, call: str, channel: str) -> None:
        """The request is on its way. May raise `EngineUnavailable`."""

    async def after(self, call: str, channel: str) -> None:
        """It was carried out; the answer is on its way."""


@final
class Turn:
    """Every call lets everybody else run once."""

    async def before(self, call: str, channel: str) -> None:
        await trio.lowlevel.checkpoint()

    async def after(self, call: str, channel: str) -> None:
        """Nothing more."""


@final
class Delays:
    """Calls take up to `most` seconds each way; one of `failing` (if given) fails before it is carried out."""

    def __init__(self, rng: random.Random, most: float, *, failing: int = 0) -> None:
        self._rng = rng
        self.most = most
        self.failing = failing

    async def before(self, call: str, channel: str) -> None:
        await self._wait()
        if self.failing and self._rng.randrange(self.failing) == 0:
            raise EngineUnavailable("as the test wants it")

    async def after(self, call: str, channel: str) -> None:
        await self._wait()

    async def _wait(self) -> None:
        # some answer at once, many in the same instant, the others at their own time
        how = self._rng.randrange(4)
        if how == 0:
            await trio.lowlevel.checkpoint()
        elif how == 1:
            await trio.sleep(self.most / 2)
        elif how == 2:
            await trio.sleep(self.most * self._rng.random())


@final
class Gates:
    """Calls wait only where the test holds them: `subscribe` before it is carried out, `subscribe done` after."""

    def __init__(self) -> None:
        self._held: dict[str, trio.Event] = {}
        self._waiting: defaultdict[str, deque[str]] = defaultdict(deque)
        self._came = trio.Event()
        self.failing: set[str] = set()
        """Calls that raise `EngineUnavailable` instead of being carried out."""

    def hold(self, *calls: str) -> None:
        for call in calls:
            self._held[call] = trio.Event()

    def open(self, *calls: str) -> None:
        """Let everybody go who waits at `calls`, and hold nobody there any more."""
        for call in calls:
            self._held.pop(call).set()

    async def wait_until_held(self, call: str, count: int = 1) -> None:
        """Wait until `count` callers wait at `call`."""
        while self.held(call) < count:
            self._came = trio.Event()
            await self._came.wait()

    def held(self, call: str) -> int:
        """How many wait at `call`."""
        return len(self._waiting[call])

    async def before(self, call: str, channel: str) -> None:
        await self._pass(call, channel)
        if call in self.failing:
            raise EngineUnavailable("as the test wants it")

    async def after(self, call: str, channel: str) -> None:
        await self._pass(f"{call} done", channel)

    async def _pass(self, call: str, channel: str) -> None:
        gate = self._held.get(call)
        if gate is None:
            return
        self._waiting[call].append(channel)
        self._came.set()
        try:
            await gate.wait()
        finally:
            self._waiting[call].remove(channel)


@final
@attrs.frozen
class SlowEngine:
    """All parts, and the `pace` of both."""

    broker: SlowBroker
    presence: SlowPresence
    controller: MemoryController
    unready: Sequence[str] = ()


@final
class SlowBroker:
    """`MemoryBroker`, later. `subscribed` is what the node has subscribed to.

    A cancelled call was not made, but for joins and leaves: a link has them on its wire, whoever still waits.
    """

    def __init__(self, inner: Broker, pace: Pace, wire: Wire | None) -> None:
        self.inner = inner
        self._pace = pace
        self.wire = wire
        self.subscribed: set[str] = set()

    def attach(self, deliver: Deliver) -> None:
        if self.wire is not None:
            self.wire.to = deliver
            deliver = self.wire
        self.inner.attach(_Subscribed(self.subscribed, deliver))

    async def publish(self, channel: str, pub: Publication, options: PublishOptions) -> Result:
        await own_task()
        await self._pace.before("publish", channel)
        result = await self.inner.publish(channel, pub, options)
        await self._pace.after("publish", channel)
        return result

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await own_task()
        try:
            await self._pace.before("publish_join", channel)
        except trio.Cancelled:
            await self.inner.publish_join(channel, info)
            raise
        await self.inner.publish_join(channel, info)
        await self._pace.after("publish_join", channel)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await own_task()
        try:
            await self._pace.before("publish_leave", channel)
        except trio.Cancelled:
            await self.inner.publish_leave(channel, info)
            raise
        await self.inner.publish_leave(channel, info)
        await self._pace.after("publish_leave", channel)

    async def subscribe(self, channel: str) -> None:
        await own_task()
        await self._pace.before("subscribe", channel)
        self.subscribed.add(channel)
        await self._pace.after("subscribe", channel)

    async def unsubscribe(self, channel: str) -> None:
        await own_task()
        await self._pace.before("unsubscribe", channel)
        self.subscribed.discard(channel)
        await self._pace.after("unsubscribe", channel)

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        await own_task()
        await self._pace.before("history", channel)
        page = await self.inner.history(channel, query, meta_ttl)
        await self._pace.after("history", channel)
        return page

    async def remove_history(self, channel: str) -> None:
        await own_task()
        await self._pace.before("remove_history", channel)
        await self.inner.remove_history(channel)
        await self._pace.after("remove_history", channel)


@final
class _Subscribed:
    """A `Deliver` that passes on what was subscribed to."""

    def __init__(self, subscribed: set[str], deliver: Deliver) -> None:
        self._subscribed = subscribed
        self._deliver = deliver

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> None:
        if channel in self._subscribed:
            self._deliver.publication(channel, pub, epoch, base)

    def interrupted(self, channels: Collection[str]) -> None:
        self._deliver.interrupted(channels)

    def join(self, channel: str, info: ClientInfo) -> None:
        if channel in self._subscribed:
            self._deliver.join(channel, info)

    def leave(self, channel: str, info: ClientInfo) -> None:
        if channel in self._subscribed:
            self._deliver.leave(channel, info)


@final
class Wire:
    """A `Deliver` whose other end is elsewhere: what goes in comes out in order, up to `most` seconds later.

    One in `losing` never does, if that is given, and nothing while it is `cut`; `mend` tells which channels that
    concerned, as an engine does.
    """

    def __init__(self, rng: random.Random, most: float, *, losing: int = 0) -> None:
        self._rng = rng
        self._most = most
        self.losing = losing
        self.cut = False
        self.to: Deliver | None = None
        self._in, self._out = trio.open_memory_channel[Callable[[Deliver], None]](1 << 20)

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> None:
        self._send(lambda deliver: deliver.publication(channel, pub, epoch, base))

    def join(self, channel: str, info: ClientInfo) -> None:
        self._send(lambda deliver: deliver.join(channel, info))

    def leave(self, channel: str, info: ClientInfo) -> None:
        self._send(lambda deliver: deliver.leave(channel, info))

    def _send(self, event: Callable[[Deliver], None]) -> None:
        if not self.cut and (not self.losing or self._rng.randrange(self.losing)):
            self._in.send_nowait(event)

    def mend(self, channels: Collection[str]) -> None:
        """Deliver again. Synchronous."""
        self.cut = False
        self._in.send_nowait(lambda deliver: deliver.interrupted(channels))

    async def run(self) -> None:
        async for event in self._out:
            if self._rng.randrange(3) == 0:
                await trio.sleep(self._most * self._rng.random())
            assert self.to is not None
            event(self.to)


@final
class SlowPresence:
    """`MemoryPresence`, later."""

    def __init__(self, inner: MemoryPresence, pace: Pace) -> None:
        self.inner = inner
        self._pace = pace

    async def add(self, channel: str, client_id: str, info: ClientInfo) -> None:
        await own_task()
        await self._pace.before("add", channel)
        await self.inner.add(channel, client_id, info)
        await self._pace.after("add", channel)

    async def remove(self, channel: str, client_id: str) -> None:
        await own_task()
        await self._pace.before("remove", channel)
        await self.inner.remove(channel, client_id)
        await self._pace.after("remove", channel)

    async def clients(self, channel: str) -> dict[str, ClientInfo]:
        await own_task()
        await self._pace.before("clients", channel)
        clients = await self.inner.clients(channel)
        await self._pace.after("clients", channel)
        return clients

    async def stats(self, channel: str) -> PresenceStats:
        await own_task()
        await self._pace.before("stats", channel)
        stats = await self.inner.stats(channel)
        await self._pace.after("stats", channel)
        return stats


def slow_engine(
    pace: Pace, wire: Wire | None = None
) -> Callable[[random.Random], AbstractAsyncContextManager[SlowEngine]]:
    """For `open_server(engine=…)`."""

    @asynccontextmanager
    async def open_engine(rng: random.Random) -> AsyncIterator[SlowEngine]:
        async with open_memory_engine(rng) as engine, trio.open_nursery() as nursery:
            if wire is not None:
                nursery.start_soon(wire.run, name="wire of the engine")
            yield SlowEngine(
                SlowBroker(engine.broker, pace, wire), SlowPresence(engine.presence, pace), engine.controller
            )
            nursery.cancel_scope.cancel()

    return open_engine
