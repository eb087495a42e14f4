"""What parent and worker say to each other: questions and answers in both directions, one JSON object a line.

The line is a Unix socket that the worker was born with. Its end is a message, too: who reads it knows that the other
one has gone, or wants it to go.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, final

import trio

__all__ = ["Gone", "Handler", "Talk"]

Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Answers a question."""

_RECEIVE: Final = 65536


class Gone(Exception):
    """The other side ended before it answered."""


@final
class Talk:
    """One end. `handlers` answer what the other end asks, by the word of the question, each in a task of its own."""

    def __init__(self, stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
        self._stream = stream
        self._handlers = handlers
        self._send, self._unsent = trio.open_memory_channel[bytes](math.inf)
        self._ids = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._over = False

    async def run(self) -> None:
        """Sends, and reads until the other end has gone."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                rest = b""
                while data := await self._receive():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._take(json.loads(line), nursery)
                nursery.cancel_scope.cancel()  # nobody hears the answers any more
        finally:
            self._over = True
            for asked in self._asked.values():
                asked.done.set()

    async def _write(self) -> None:
        """A task of its own: who asks and loses patience leaves no half line behind."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for line in self._unsent:
                await self._stream.send_all(line)
            await self._stream.send_eof()

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_RECEIVE))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""

    def _take(self, message: dict[str, Any], nursery: trio.Nursery) -> None:
        if "ask" in message:
            nursery.start_soon(self._answer, message)
        elif (asked := self._asked.get(message["id"])) is not None:
            asked.answer = message["answer"]
            asked.done.set()

    async def _answer(self, question: dict[str, Any]) -> None:
        answer = await self._handlers[question["ask"]](question["with"])
        with suppress(Gone):
            self._tell({"id": question["id"], "answer": dict(answer)})

    async def ask(self, what: str, **details: Any) -> Mapping[str, Any]:
        """The answer of the other end, however long it takes.

        Raises:
            Gone: there will be none.
        """
        if self._over:
            raise Gone
        id = next(self._ids)
        asked = self._asked[id] = _Asked()
        try:
            self._tell({"id": id, "ask": what, "with": details})
            await asked.done.wait()
        finally:
            del self._asked[id]
        if asked.answer is None:
            raise Gone
        return asked.answer

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._send.send_nowait(json.dumps(message, default=str).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone from None

    def end(self) -> None:
        """Nothing more will be asked or answered here: the other end's `run` returns."""
        self._send.close()


@final
class _Asked:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: Mapping[str, Any] | None = None
