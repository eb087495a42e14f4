"""Whom Sentinels are believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import hiredis
import pytest
import trio

from broker.engines.redis.address import Kind, Login, Server, Shard
from broker.engines.redis.sentinel import find_master
from broker.hub import EngineUnavailable
from broker.reader import open_stage

pytestmark = pytest.mark.virtual_time(idle=0.01)

HERE = "127.0.0.1"
OLD, NEW = Server(HERE, 1), Server(HERE, 2)


@asynccontextmanager
async def sentinels(*words: Server | None) -> AsyncIterator[Shard]:
    """Some that name these masters; None is one that knows none, `Server()` one that never answers."""

    async def serve(word: Server | None, stream: trio.SocketStream) -> None:
        reader = hiredis.Reader()
        async for chunk in stream:
            reader.feed(bytes(chunk))
            while (command := reader.gets()) is not False:
                if command[0] != b"SENTINEL":
                    await stream.send_all(b"+PONG\r\n")
                elif word is None:
                    await stream.send_all(b"*-1\r\n")
                elif word.host:
                    await stream.send_all(hiredis.pack_command((word.host, word.port)))  # a list of texts either way

    async with trio.open_nursery() as nursery:
        servers = []
        for word in words:
            listeners = await nursery.start(partial(trio.serve_tcp, partial(serve, word), 0, host=HERE))
            servers.append(Server(HERE, listeners[0].socket.getsockname()[1]))
        yield Shard(Kind.SENTINEL, tuple(servers), Login(), master_name="main", connect_timeout=0.2)
        nursery.cancel_scope.cancel()


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
    async with open_stage() as stage, sentinels(*words) as shard:
        assert await find_master(shard, stage) == NEW


async def test_nobody_who_never_answers_is_waited_for_when_most_agree() -> None:
    async with open_stage() as stage, sentinels(Server(), NEW, NEW) as shard:
        with trio.fail_after(5.0):
            assert await find_master(attrs.evolve(shard, connect_timeout=60.0), stage) == NEW


async def test_nobody_knows() -> None:
    async with open_stage() as stage, sentinels(None, Server()) as shard:
        with pytest.raises(EngineUnavailable, match=r"^Sentinels: .*knows no master 'main'.*no reply within 0.2 s"):
            await find_master(shard, stage)
