"""Sentinels that say what the test wants them to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import hiredis
import trio

from broker.engines.redis.address import Server

__all__ = ["HERE", "sentinels"]

HERE = "127.0.0.1"


@asynccontextmanager
async def sentinels(words: Sequence[Server | None]) -> AsyncIterator[list[Server]]:
    """One for each of `words`, the master that it names, which may change; None is one that knows none, `Server()` one
    that never answers."""

    async def serve(number: int, stream: trio.SocketStream) -> None:
        reader = hiredis.Reader()
        async for chunk in stream:
            reader.feed(bytes(chunk))
            while (command := reader.gets()) is not False:
                word = words[number]
                if command[0] != b"SENTINEL":
                    await stream.send_all(b"+PONG\r\n")
                elif word is None:
                    await stream.send_all(b"*-1\r\n")
                elif word.host:
                    await stream.send_all(hiredis.pack_command((word.host, word.port)))  # a list of texts either way

    async with trio.open_nursery() as nursery:
        servers = []
        for number in range(len(words)):
            listeners = await nursery.start(partial(trio.serve_tcp, partial(serve, number), 0, host=HERE))
            servers.append(Server(HERE, listeners[0].socket.getsockname()[1]))
        yield servers
        nursery.cancel_scope.cancel()
