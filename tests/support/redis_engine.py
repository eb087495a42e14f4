"""The Redis engine as the contract tests want it: what was published has arrived when the call returns."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, final

import attrs
import trio

from broker.config import configure
from broker.engines import open_engine
from broker.engines.options import BrokerOptions, PresenceManagerOptions
from broker.engines.redis.broker import RedisBroker
from broker.engines.redis.engine import Shards
from broker.engines.redis.presence import RedisPresence
from broker.hub import Deliver, HistoryPage, HistoryQuery, PublishOptions, PublishResult
from broker.protocol import ClientInfo, Publication
from broker.reader import open_stage
from tests.support.redis import RedisClock, RedisServer

__all__ = ["CaughtUp", "OpenedRedis", "open_redis"]


@final
@attrs.frozen
class OpenedRedis:
    broker: CaughtUp
    presence: RedisPresence
    shards: Shards


@final
class CaughtUp:
    """A `RedisBroker` that has delivered here what it has published, as an engine of one process has.

    A mark is sent after it, from the same server: in a Cluster, messages of one master keep their order and no others.
    """

    def __init__(self, inner: RedisBroker, shards: Shards) -> None:
        self.inner = inner
        self._shards = shards
        self._numbers = itertools.count()
        self._awaited: dict[bytes, trio.Event] = {}
        self._mark = b"mark.of.tests"
        for redis in shards.all:
            self._mark = redis.names.probe + b"mark"
            redis.pubsub.listen(self._mark, self._marked)

    @property
    def waits(self) -> bool:
        """Whether a mark is on its way."""
        return bool(self._awaited)

    def attach(self, deliver: Deliver) -> None:
        self.inner.attach(deliver)

    async def catch_up(self, channel: str) -> None:
        """Until everything published to `channel` before has arrived."""
        number = b"%d" % next(self._numbers)
        event = self._awaited[number] = trio.Event()
        redis = self._shards.of(channel)
        try:
            while not event.is_set():  # a mark is lost where pub/sub does not hear it yet, or is away
                await redis.commands.call(redis.names.message(channel), b"PUBLISH", self._mark, number)
                with trio.move_on_after(0.2):
                    await event.wait()
        finally:
            del self._awaited[number]

    def _marked(self, number: bytes) -> None:
        if number in self._awaited:
            self._awaited[number].set()

    async def publish(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        result = await self.inner.publish(channel, pub, options)
        await self.catch_up(channel)
        return result

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await self.inner.publish_join(channel, info)
        await self.catch_up(channel)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await self.inner.publish_leave(channel, info)
        await self.catch_up(channel)

    async def subscribe(self, channel: str) -> None:
        await self.inner.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        await self.inner.unsubscribe(channel)

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        return await self.inner.history(channel, query, meta_ttl)

    async def remove_history(self, channel: str) -> None:
        await self.inner.remove_history(channel)


@asynccontextmanager
async def open_redis(*servers: RedisServer, **options: Any) -> AsyncIterator[OpenedRedis]:
    """The engine on `servers`, addressed by TCP unless `options` (of the section engine.redis) say otherwise. On a
    `RedisClock`, time goes for both."""
    section: Mapping[str, Any] = {"address": [server.address for server in servers], **options}
    if "cluster_address" in options or "sentinel_address" in options:
        section = options
    engine = configure({"engine": {"type": "redis", "redis": section}}).engine
    async with (
        open_stage() as stage,
        open_engine(engine, BrokerOptions(), PresenceManagerOptions(), random.Random(1), stage) as opened,
    ):
        (shards,) = opened.shards
        assert isinstance(opened.broker, RedisBroker)
        assert isinstance(opened.presence, RedisPresence)
        broker = CaughtUp(opened.broker, shards)
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, RedisClock):
            clock.servers = servers
            clock.busy = lambda: (
                broker.waits
                or any(redis.pubsub.waits for redis in shards.all)
                or any(line.link is None or line.link.waiting for line in shards.lines)
            )
        try:
            yield OpenedRedis(broker, opened.presence, shards)
        finally:
            if isinstance(clock, RedisClock):
                clock.servers = ()
