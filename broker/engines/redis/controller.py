"""Messages between nodes, through the pub/sub of Redis: one name for all, one for each node (server API §5.4)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import final

import trio

from broker.eager import own_task
from broker.engines.redis.link import Call
from broker.engines.redis.names import shard_index
from broker.engines.redis.shard import Shards
from broker.hub import EngineUnavailable

__all__ = ["RedisController"]


@final
class RedisController:
    """Every node hears every shard, and what is sent goes through one that is there: what is for all always through the
    same, and so what is for one node, so that it comes in order. (Centrifugo takes them in turn.)"""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._beginning: list[Call] = []
        self._begun: trio.Event | None = None

    def attach(self, node: str, received: Callable[[bytes], None]) -> None:
        for redis in self._shards.all:
            self._beginning.append(redis.pubsub.listen(redis.names.control, received))
            self._beginning.append(redis.pubsub.listen(redis.names.node(node), received))

    async def publish_control(self, data: bytes, node: str = "") -> None:
        await self._listening()
        there = [redis for redis in self._shards.all if redis.up] or self._shards.all
        redis = there[shard_index(node, len(there)) if node else 0]
        name = redis.names.node(node) if node else redis.names.control
        await redis.commands.call(name, b"PUBLISH", name, data)

    async def _listening(self) -> None:
        """Who says hello before it listens does not hear who answers."""
        if self._begun is None:
            self._begun = trio.Event()
            try:
                for call in self._beginning:
                    with suppress(EngineUnavailable):  # the link is dialled again, and then it listens
                        await call.wait()
            finally:
                self._begun.set()
        elif not self._begun.is_set():
            await own_task()
            await self._begun.wait()
