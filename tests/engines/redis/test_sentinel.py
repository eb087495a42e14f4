"""Whom Sentinels are believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from broker.engines.redis.address import Kind, Login, Server, Shard
from broker.engines.redis.sentinel import find_master
from broker.hub import EngineUnavailable
from broker.reader import open_stage
from tests.support.sentinels import HERE, sentinels

pytestmark = pytest.mark.virtual_time(idle=0.01)

OLD, NEW = Server(HERE, 1), Server(HERE, 2)


@asynccontextmanager
async def shard_of(*words: Server | None) -> AsyncIterator[Shard]:
    async with sentinels(words) as servers:
        yield Shard(Kind.SENTINEL, tuple(servers), Login(), master_name="main", connect_timeout=0.2)


@pytest.mark.parametrize(
    "words",
    [
        (NEW,),
        (OLD, NEW, NEW),
        (NEW, OLD, NEW),
        (None, NEW, None),
        (Server(), NEW, NEW),
        (Server(), Server(), NEW),
        (OLD, NEW, Server(), NEW, OLD, NEW, Server()),
    ],
)
async def test_what_most_of_them_say(words: tuple[Server | None, ...]) -> None:
    async with open_stage() as stage, shard_of(*words) as shard:
        assert await find_master(shard, stage) == NEW


async def test_nobody_who_never_answers_is_waited_for_when_most_agree() -> None:
    async with open_stage() as stage, shard_of(Server(), NEW, NEW) as shard:
        with trio.fail_after(5.0):
            assert await find_master(attrs.evolve(shard, connect_timeout=60.0), stage) == NEW


async def test_nobody_knows() -> None:
    async with open_stage() as stage, shard_of(None, Server()) as shard:
        with pytest.raises(EngineUnavailable, match=r"^Sentinels: .*knows no master 'main'.*no reply within 0.2 s"):
            await find_master(shard, stage)
