"""A server that says what a test tells it to say, over memory streams."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, final

import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from broker.client import Backoff, Client, connect

CONNECTED = {"client": "c1", "version": "scripted", "ping": 25, "pong": True}
SOON = Backoff(least=1.0, most=1.0)


@final
class Peer:
    """The server's side of one connection. Commands and replies are objects of the JSON protocol."""

    def __init__(self, ws: WebSocketConnection) -> None:
        self.ws = ws
        self._lines: list[str] = []

    async def command(self) -> dict[str, Any]:
        """The next command; pongs included, as `{}`."""
        while not self._lines:
            message = await self.ws.get_message()
            assert isinstance(message, str)
            self._lines = message.split("\n")
        command: dict[str, Any] = json.loads(self._lines.pop(0))
        return command

    async def expect(self, method: str) -> dict[str, Any]:
        """The next command, which has to be of this kind: its id under `id`, its request's members beside it."""
        command = await self.command()
        assert list(command) == ["id", method], command
        return {"id": command["id"], **command[method]}

    async def say(self, *replies: dict[str, Any]) -> None:
        """Send replies in one frame."""
        await self.ws.send_message("\n".join(json.dumps(reply) for reply in replies))

    async def push(self, channel: str, **what: Any) -> None:
        await self.say({"push": {"channel": channel, **what}})

    async def answer(self, method: str, result: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Take a command of this kind and answer it with a result, or with `error=…`."""
        request = await self.expect(method)
        await self.say({"id": request["id"], **(more or {method: result or {}})})
        return request

    async def accept(self, **result: Any) -> dict[str, Any]:
        """Answer connect."""
        return await self.answer("connect", CONNECTED | result)

    async def close(self, code: int, reason: str = "") -> None:
        await self.ws.aclose(code, reason)

    async def gone(self) -> int:
        """Wait until the client has closed; its code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.ws.get_message()
        assert self.ws.closed is not None
        return self.ws.closed.code


Script = Callable[[Peer], Awaitable[Any]]


@final
class ScriptedServer:
    """Runs a script for each connection: the first for the first, and so on; a connection too many is refused."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scripts: list[Script] = []
        self.dials = 0
        self.done: list[trio.Event] = []

    def script(self, script: Script) -> Script:
        """Decorator: what to do with the next connection."""
        self._scripts.append(script)
        self.done.append(trio.Event())
        return script

    async def dial(self) -> trio.abc.Stream:
        number = self.dials
        self.dials += 1
        if number >= len(self._scripts):
            raise ConnectionRefusedError("there is no script for it")
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self._serve, ours, number)
        return theirs

    async def _serve(self, stream: trio.abc.Stream, number: int) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)  # type: ignore[arg-type]
            ws = await request.accept()
            await self._scripts[number](Peer(ws))
            self.done[number].set()
            await ws.aclose()
            nursery.cancel_scope.cancel()

    def connect(self, **options: Any) -> AbstractAsyncContextManager[Client]:
        return connect("ws://test/connection/websocket", dial=self.dial, **({"backoff": SOON} | options))

    @asynccontextmanager
    async def finished(self) -> AsyncIterator[None]:
        """Leave only when every script has run to its end."""
        yield
        with trio.fail_after(60):
            for event in self.done:
                await event.wait()
