"""Several nodes in one process: one memory engine for all of them, and a bus between them that loses and repeats.

    async with open_fleet(3, options(HISTORY), bus=Bus(rng, losing=10)) as (a, b, c):
        ...                                     # houses, as `open_house` gives one

What is published anywhere reaches every node in the order of its channel; messages between nodes go over the bus.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, final

import attrs
import trio

from broker.app import open_server
from broker.engines import MemoryBroker, MemoryPresence, open_memory_engine
from broker.hub import Deliver, EngineUnavailable, HistoryPage, HistoryQuery, PublishOptions, PublishResult
from broker.protocol import ClientInfo, Publication
from tests.support.peers import House, WallClock, assert_nothing_left, configured
from tests.support.slow_engine import Pace, SlowBroker, SlowPresence, Wire

__all__ = ["Bus", "Fleet", "open_fleet"]


@final
class Bus:
    """Carries control messages: each takes up to `most` seconds; one of `losing` is lost, one of `repeating` comes
    twice. Nodes in `deaf` hear nothing, those in `mute` are not heard, those in `broken` cannot even send."""

    def __init__(self, rng: random.Random, *, most: float = 0.0, losing: int = 0, repeating: int = 0) -> None:
        self._rng = rng
        self._most = most
        self._losing = losing
        self._repeating = repeating
        self._members: dict[str, Callable[[bytes], None]] = {}
        self.deaf: set[str] = set()
        self.mute: set[str] = set()
        self.broken: set[str] = set()
        self.nursery: trio.Nursery | None = None

    def connect(self) -> BusController:
        return BusController(self)

    def join(self, node: str, received: Callable[[bytes], None]) -> None:
        self._members[node] = received

    def send(self, sender: str, data: bytes, node: str) -> None:
        """To one node or to all, the sender among them."""
        if sender in self.broken:
            raise EngineUnavailable("as the test wants it")
        if sender in self.mute:
            return
        for to in [node] if node else list(self._members):
            for _ in range(self._copies()):
                assert self.nursery is not None
                self.nursery.start_soon(self._carry, to, data)

    def _copies(self) -> int:
        if self._losing and self._rng.randrange(self._losing) == 0:
            return 0
        return 2 if self._repeating and self._rng.randrange(self._repeating) == 0 else 1

    async def _carry(self, to: str, data: bytes) -> None:
        await trio.sleep(self._rng.random() * self._most)
        if to in self._members and to not in self.deaf:
            self._members[to](data)


@final
@attrs.define
class BusController:
    """A node's end of the bus."""

    bus: Bus
    node: str = ""

    def attach(self, node: str, received: Callable[[bytes], None]) -> None:
        self.node = node
        self.bus.join(node, received)

    async def publish_control(self, data: bytes, node: str = "") -> None:
        self.bus.send(self.node, data, node)


@final
@attrs.frozen
class SharedBroker:
    """A node's view of the broker that all share."""

    inner: MemoryBroker
    everybody: _Everybody

    def attach(self, deliver: Deliver) -> None:
        self.everybody.nodes.append(deliver)

    async def publish(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        return await self.inner.publish(channel, pub, options)

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await self.inner.publish_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await self.inner.publish_leave(channel, info)

    async def subscribe(self, channel: str) -> None:
        await self.inner.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Others may be subscribed; what comes here finds no channel."""

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        return await self.inner.history(channel, query, meta_ttl)

    async def remove_history(self, channel: str) -> None:
        await self.inner.remove_history(channel)


@final
@attrs.frozen
class _Everybody:
    """Hands what the broker delivers to every node."""

    nodes: list[Deliver] = attrs.field(factory=list)

    def publication(self, channel: str, pub: Publication, epoch: str, base: Publication | None) -> None:
        for node in self.nodes:
            node.publication(channel, pub, epoch, base)

    def join(self, channel: str, info: ClientInfo) -> None:
        for node in self.nodes:
            node.join(channel, info)

    def leave(self, channel: str, info: ClientInfo) -> None:
        for node in self.nodes:
            node.leave(channel, info)


@final
@attrs.frozen
class _Engine:
    broker: SharedBroker | SlowBroker
    presence: MemoryPresence | SlowPresence
    controller: BusController
    unready: Sequence[str] = ()


@final
class Fleet:
    """Nodes that come and go over one engine and one bus."""

    def __init__(
        self,
        broker: MemoryBroker,
        presence: MemoryPresence,
        bus: Bus,
        options: Mapping[str, Any],
        pace: Pace | None = None,
        wire: Callable[[], Wire | None] = lambda: None,
    ) -> None:
        self._broker = broker
        self._presence = presence
        self._everybody = _Everybody()
        broker.attach(self._everybody)
        self.bus = bus
        self._options = options
        self._pace = pace
        self._wire = wire
        self._count = 0

    @asynccontextmanager
    async def node(self) -> AsyncIterator[House]:
        """One more node; it leaves at the end, in good order."""
        self._count += 1

        @asynccontextmanager
        async def engine(rng: random.Random) -> AsyncIterator[_Engine]:
            shared = SharedBroker(self._broker, self._everybody)
            if self._pace is None:
                yield _Engine(shared, self._presence, self.bus.connect())
                return
            wire = self._wire()
            async with trio.open_nursery() as nursery:
                if wire is not None:
                    nursery.start_soon(wire.run, name="wire of the engine")
                broker = SlowBroker(shared, self._pace, wire)
                yield _Engine(broker, SlowPresence(self._presence, self._pace), self.bus.connect())
                nursery.cancel_scope.cancel()

        async with (
            open_server(
                configured({**self._options, "node": {**self._options.get("node", {}), "name": f"node{self._count}"}}),
                wall_clock=WallClock(),
                rng=random.Random(self._count),
                engine=engine,
                listen=False,
            ) as server,
            trio.open_nursery() as nursery,
        ):
            yield House(server, nursery)


@asynccontextmanager
async def open_fleet(
    count: int,
    options: Mapping[str, Any],
    *,
    bus: Bus | None = None,
    pace: Pace | None = None,
    wire: Callable[[], Wire | None] = lambda: None,
) -> AsyncIterator[tuple[Fleet, list[House]]]:
    """`count` nodes that know each other; at the end their clients leave, and nothing of them may remain.

    With a `pace` the engine waits, and with a `wire` for each node it delivers late (slow_engine.py).
    """
    bus = bus or Bus(random.Random(1))
    async with open_memory_engine(random.Random(1)) as engine, trio.open_nursery() as nursery:
        bus.nursery = nursery
        fleet = Fleet(engine.broker, engine.presence, bus, options, pace, wire)
        async with AsyncExitStack() as stack:
            houses = [await stack.enter_async_context(fleet.node()) for _ in range(count)]
            await trio.sleep(20)  # as long as it takes on a bus that loses
            yield fleet, houses
            for house in houses:
                for client in house.clients:
                    await client.leave()
            await trio.sleep(8)
            for house in houses:
                assert_nothing_left(house)
        nursery.cancel_scope.cancel()
