"""The Redis engine as the contract tests want it: what was published has arrived when the call returns."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import attrs
import trio

from broker.engines import open_engine
from broker.engines.options import BrokerOptions, EngineOptions, PresenceManagerOptions
from broker.engines.redis.broker import RedisBroker
from broker.engines.redis.engine import Shards
from broker.engines.redis.options import RedisEngineOptions
from broker.engines.redis.presence import RedisPresence
from broker.hub import Deliver, HistoryPage, HistoryQuery, PublishOptions, PublishResult
from broker.protocol import ClientInfo, Publication
from broker.values import Secret
from tests.support.redis import RedisClock, RedisServer

__all__ = ["CaughtUp", "OpenedRedis", "open_redis", "redis_options"]


@final
@attrs.frozen
class OpenedRedis:
    broker: CaughtUp
    presence: RedisPresence
    shards: Shards


@final
class CaughtUp:
    """A `RedisBroker` that has delivered here what it has published, as an engine of one process has.

    A ping on the pub/sub link is answered after the messages before it.
    """

    def __init__(self, inner: RedisBroker, shards: Shards) -> None:
        self.inner = inner
        self._shards = shards

    def attach(self, deliver: Deliver) -> None:
        self.inner.attach(deliver)

    async def _catch_up(self, channel: str) -> None:
        await self._shards.of(channel).pubsub.line.need().call("PING")

    async def publish(self, channel: str, pub: Publication, options: PublishOptions) -> PublishResult:
        result = await self.inner.publish(channel, pub, options)
        await self._catch_up(channel)
        return result

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        await self.inner.publish_join(channel, info)
        await self._catch_up(channel)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        await self.inner.publish_leave(channel, info)
        await self._catch_up(channel)

    async def subscribe(self, channel: str) -> None:
        await self.inner.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        await self.inner.unsubscribe(channel)

    async def history(self, channel: str, query: HistoryQuery, meta_ttl: float) -> HistoryPage:
        return await self.inner.history(channel, query, meta_ttl)

    async def remove_history(self, channel: str) -> None:
        await self.inner.remove_history(channel)


def redis_options(*servers: RedisServer, **options: Any) -> RedisEngineOptions:
    return RedisEngineOptions(address=tuple(Secret(f"redis://{server.address}") for server in servers), **options)


@asynccontextmanager
async def open_redis(server: RedisServer, **options: Any) -> AsyncIterator[OpenedRedis]:
    """The engine on `server`. On a `RedisClock`, time goes for both."""
    engine = EngineOptions(type="redis", redis=redis_options(server, **options))
    async with open_engine(engine, BrokerOptions(), PresenceManagerOptions(), random.Random(1)) as opened:
        (shards,) = opened.shards
        assert isinstance(opened.broker, RedisBroker)
        assert isinstance(opened.presence, RedisPresence)
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, RedisClock):
            clock.server = server
            clock.busy = lambda: any(line.link is None or line.link.waiting for line in shards.lines)
        try:
            yield OpenedRedis(CaughtUp(opened.broker, shards), opened.presence, shards)
        finally:
            if isinstance(clock, RedisClock):
                clock.server = None
