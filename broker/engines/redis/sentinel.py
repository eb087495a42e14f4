"""Sentinels: which server is the master, by the word of most of them.

One Sentinel that is cut off from the others goes on naming the old master. So all are asked at once, and what more
than half of them say is believed at once; where no address has that many, the one that most of those who answer name.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import trio

from broker.engines.redis.address import Server, Shard
from broker.engines.redis.dial import open_link
from broker.engines.redis.line import Line
from broker.hub import EngineUnavailable
from broker.reader import Stage

__all__ = ["find_master", "follow_master"]

_INTERVAL: Final = 2.0
"""Seconds between two questions while all is well: as long may publications go to a master that was replaced."""


async def find_master(shard: Shard, stage: Stage) -> Server:
    """Where the master is.

    Raises:
        EngineUnavailable: no Sentinel answers, or none knows the name.
    """
    votes: Counter[Server] = Counter()
    problems: list[str] = []
    async with trio.open_nursery() as nursery:

        async def ask(sentinel: Server) -> None:
            try:
                master = await _word_of(sentinel, shard, stage)
            except EngineUnavailable as error:
                problems.append(str(error))
                return
            votes[master] += 1
            if votes[master] * 2 > len(shard.servers):
                nursery.cancel_scope.cancel()

        for sentinel in shard.servers:
            nursery.start_soon(ask, sentinel)
    if votes:
        return votes.most_common(1)[0][0]
    raise EngineUnavailable("Sentinels: " + "; ".join(problems))


async def _word_of(sentinel: Server, shard: Shard, stage: Stage) -> Server:
    async with open_link(
        sentinel,
        shard.sentinel_login,
        connect_timeout=shard.connect_timeout,
        io_timeout=shard.connect_timeout,
        stage=stage,
    ) as link:
        reply = await link.call("SENTINEL", "get-master-addr-by-name", shard.master_name)
    if isinstance(reply, list) and len(reply) == 2:
        return Server(reply[0].decode(), int(reply[1]))
    raise EngineUnavailable(f"{sentinel}: knows no master {shard.master_name!r}")


async def follow_master(shard: Shard, stage: Stage, lines: Callable[[], Sequence[Line]]) -> None:
    """Close the links of `lines` that lead to a server which is no longer the master: alive, but replaced. Until
    cancelled."""
    while True:
        await trio.sleep(_INTERVAL * random.uniform(0.8, 1.2))
        try:
            master = await find_master(shard, stage)
        except EngineUnavailable:
            continue  # Redis works without them
        for line in lines():
            if line.link is not None and line.link.server != str(master):
                line.link.close(f"Sentinels name another master, {master}")
