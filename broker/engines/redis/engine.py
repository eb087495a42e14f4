"""The Redis engine stage: its nursery holds the links of all shards."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from broker.engines.redis.address import Kind, Server, Shard, shards_of
from broker.engines.redis.broker import RedisBroker
from broker.engines.redis.cluster import Cluster
from broker.engines.redis.commands import Commands, OneServer, load_scripts
from broker.engines.redis.controller import RedisController
from broker.engines.redis.dial import open_master, read_slots
from broker.engines.redis.line import Line, OnUp
from broker.engines.redis.link import Link
from broker.engines.redis.names import Names
from broker.engines.redis.options import PrefixedRedisOptions
from broker.engines.redis.presence import RedisPresence
from broker.engines.redis.pubsub import PubSub
from broker.engines.redis.sentinel import find_master, follow_master
from broker.engines.redis.shard import Redis, Shards
from broker.hub import EngineUnavailable
from broker.reader import Stage

__all__ = ["RedisBroker", "RedisController", "RedisPresence", "Shards", "open_shards"]


@asynccontextmanager
async def open_shards(
    options: PrefixedRedisOptions, stage: Stage, *, hears: bool, fence: bool = False, needs: Sequence[str] = ()
) -> AsyncIterator[Shards]:
    """Links to everything that `options` name, for as long as the block lives.

    Args:
        options: the section of one Redis.
        stage: where the links are read.
        hears: whether pub/sub is wanted; presence alone needs none.
        fence: whether scripts are told which run of the server they are on.
        needs: commands that not every version has.

    Raises:
        EngineUnavailable: one of them cannot be used now; which one, and why.
    """
    shards = [await _looked_at(shard, stage) for shard in shards_of(options)]
    on_up = partial(_prepare, fence=fence)
    failure: EngineUnavailable | None = None
    async with trio.open_nursery() as nursery:
        try:
            running = Shards(
                [await _start(shard, options.prefix, stage, nursery, on_up, hears=hears) for shard in shards]
            )
            for redis in running.all:
                await redis.commands.check(needs)
        except EngineUnavailable as error:
            failure = error  # raised outside of the nursery, which would wrap it
        else:
            yield running
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _looked_at(shard: Shard, stage: Stage) -> Shard:
    """Whether somebody is there who will do. A plain address may turn out to be one of a Cluster."""
    if shard.kind is Kind.CLUSTER:
        await read_slots(shard, shard.servers, stage)
        return shard
    master = await find_master(shard, stage) if shard.kind is Kind.SENTINEL else shard.servers[0]
    async with open_master(shard, master, stage) as (_, about):
        return attrs.evolve(shard, kind=Kind.CLUSTER) if about.cluster else shard


async def _prepare(link: Link, *, fence: bool) -> None:
    if not fence:
        link.identity = b""
    await load_scripts(link)


async def _start(shard: Shard, prefix: str, stage: Stage, nursery: trio.Nursery, on_up: OnUp, *, hears: bool) -> Redis:
    names = Names(prefix, cluster=shard.kind is Kind.CLUSTER)
    probe = names.probe + uuid.uuid4().hex.encode()
    if shard.kind is Kind.CLUSTER:
        cluster = Cluster(shard, stage, nursery, on_up)
        commands = Commands(cluster, shard.io_timeout)
        pubsub = PubSub(shard, commands, probe, cluster.any_master, stage)
        cluster.changed = pubsub.doubt
        await cluster.refresh()
        nursery.start_soon(cluster.run, name="redis cluster slots")
    else:
        where = partial(find_master, shard, stage) if shard.kind is Kind.SENTINEL else partial(_only, shard.servers[0])
        line = Line(shard, "commands", where, on_up, stage)
        nursery.start_soon(line.run, name="redis commands")
        commands = Commands(OneServer(line), shard.io_timeout)
        pubsub = PubSub(shard, commands, probe, where, stage)
    if hears:
        nursery.start_soon(pubsub.run, name="redis pub/sub")
    redis = Redis(names, commands, pubsub, hears)
    if shard.kind is Kind.SENTINEL:
        nursery.start_soon(follow_master, shard, stage, lambda: redis.lines, name="redis sentinels")
    with trio.move_on_after(shard.connect_timeout + shard.io_timeout):
        for line in redis.lines:
            await line.up.wait()
        return redis
    raise EngineUnavailable(next((line.why for line in redis.lines if not line.up.is_set()), f"{shard}: not reached"))


async def _only(server: Server) -> Server:
    return server
