"""One shard at work, and all of them: which channel is where."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import final

import attrs

from broker.engines.redis.commands import Commands
from broker.engines.redis.line import Line
from broker.engines.redis.names import Names, shard_index
from broker.engines.redis.pubsub import PubSub

__all__ = ["Redis", "Shards"]


@final
@attrs.frozen(eq=False)
class Redis:
    """One shard: its names, its commands, its pub/sub, which is not connected unless it `hears`."""

    names: Names
    commands: Commands
    pubsub: PubSub
    hears: bool

    @property
    def up(self) -> bool:
        """Whether commands and messages have a way, as far as is known."""
        return all(line.link is not None for line in self.lines)

    @property
    def lines(self) -> Sequence[Line]:
        """All links of this shard."""
        return (*self.commands.lines, self.pubsub.line) if self.hears else self.commands.lines


@final
class Shards:
    """All shards, in the order of the configuration."""

    def __init__(self, shards: Sequence[Redis]) -> None:
        self.all = shards
        self._index = functools.lru_cache(4096)(shard_index)

    def of(self, channel: str) -> Redis:
        """Where `channel` is."""
        if len(self.all) == 1:
            return self.all[0]
        return self.all[self._index(channel, len(self.all))]

    @property
    def lines(self) -> Sequence[Line]:
        """All links of all shards."""
        return [line for redis in self.all for line in redis.lines]

    @property
    def unready(self) -> Sequence[str]:
        """What is away, and why: texts without secrets."""
        away = [line.why for line in self.lines if line.link is None]
        return away + [why for redis in self.all if (why := redis.pubsub.deaf)]
