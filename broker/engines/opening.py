"""Opening what the configuration names: one engine, or a broker and a presence of two kinds."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, final

import attrs

from broker.engines.memory import MemoryEngine, open_memory_engine
from broker.engines.options import BrokerOptions, EngineOptions, PresenceManagerOptions
from broker.engines.redis.options import PrefixedRedisOptions, RedisPresenceOptions
from broker.hub import Broker, Controller, EngineUnavailable, Presence
from broker.reader import Stage

if TYPE_CHECKING:
    from broker.engines.redis.engine import Shards

__all__ = ["Opened", "open_engine"]


@final
@attrs.frozen
class Opened:
    """The parts of an engine, whatever they are made of. Nodes talk through what carries publications."""

    broker: Broker
    presence: Presence
    controller: Controller
    shards: Sequence[Shards] = ()

    @property
    def unready(self) -> Sequence[str]:
        """What the engine waits for; empty while it can do its work."""
        return [reason for each in self.shards for reason in each.unready]


@asynccontextmanager
async def open_engine(
    engine: EngineOptions, broker: BrokerOptions, presence: PresenceManagerOptions, rng: random.Random, stage: Stage
) -> AsyncIterator[Opened]:
    """The engine stage. Links to services are read in `stage`.

    Raises:
        EngineUnavailable: a service is missing; which one, where it was looked for, and why.
    """
    broker_type = broker.type if broker.enabled else engine.type
    presence_type = presence.type if presence.enabled else engine.type
    broker_redis = broker.redis if broker.enabled else engine.redis
    presence_redis = presence.redis if presence.enabled else engine.redis
    shards: list[Shards] = []
    async with AsyncExitStack() as stack:
        memory: MemoryEngine | None = None
        if "memory" in (broker_type, presence_type):
            memory = await stack.enter_async_context(open_memory_engine(rng))
        if broker_type == "redis":
            where = "broker.redis" if broker.enabled else "engine.redis"
            needs = _needs(presence_redis) if presence_type == "redis" and not presence.enabled else ()
            fence = not broker_redis.fence_disabled
            shards.append(await _shards(stack, where, broker_redis, stage, hears=True, fence=fence, needs=needs))
        if presence_type == "redis" and (broker_type != "redis" or presence.enabled or broker.enabled):
            where = "presence_manager.redis" if presence.enabled else "engine.redis"
            shards.append(await _shards(stack, where, presence_redis, stage, hears=False, needs=_needs(presence_redis)))
        if not shards:
            assert memory is not None
            yield Opened(memory.broker, memory.presence, memory.controller)
            return
        from broker.engines.redis.engine import (  # only where it is asked for
            RedisBroker,
            RedisController,
            RedisPresence,
        )

        yield Opened(
            memory.broker if memory and broker_type == "memory" else RedisBroker(shards[0], rng),
            memory.presence if memory and presence_type == "memory" else RedisPresence(shards[-1], presence_redis),
            memory.controller if memory and broker_type == "memory" else RedisController(shards[0]),
            shards,
        )


def _needs(options: RedisPresenceOptions) -> Sequence[str]:
    return ("HEXPIRE",) if options.presence_hash_field_ttl else ()


async def _shards(
    stack: AsyncExitStack,
    where: str,
    options: PrefixedRedisOptions,
    stage: Stage,
    *,
    hears: bool,
    fence: bool = False,
    needs: Sequence[str] = (),
) -> Shards:
    try:
        from broker.engines.redis.engine import open_shards  # only where it is asked for
    except ModuleNotFoundError as error:
        if error.name != "hiredis":
            raise
        raise EngineUnavailable(f"{where}: Redis needs one more package: pip install 'trio-broker[redis]'") from None
    try:
        return await stack.enter_async_context(open_shards(options, stage, hears=hears, fence=fence, needs=needs))
    except EngineUnavailable as error:
        raise EngineUnavailable(f"{where}: {error}") from None
