"""Messages between nodes, through the pub/sub of Redis: one name for all, one for each node (server API §5.4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import final

from broker.engines.redis.shard import Shards

__all__ = ["RedisController"]


@final
class RedisController:
    """Every node hears every shard; what is sent goes through one of them, in turn."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._turn = itertools.cycle(shards.all)

    def attach(self, node: str, received: Callable[[bytes], None]) -> None:
        for redis in self._shards.all:
            redis.pubsub.listen(redis.names.control, received)
            redis.pubsub.listen(redis.names.node(node), received)

    async def publish_control(self, data: bytes, node: str = "") -> None:
        redis = next(self._turn)
        name = redis.names.node(node) if node else redis.names.control
        await redis.commands.call(name, b"PUBLISH", name, data)
