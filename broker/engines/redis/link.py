"""One connection to one Redis: commands go out in order, replies come back in order.

Everybody calls on the same link. What is called in one turn of the loop leaves in one write; one task reads, and
wakes each caller with its reply. A caller that is cancelled leaves its place in the queue, never the wire: the next
caller's reply stays the next one. Nothing here redials (line.py).

RESP2 is spoken, with pub/sub on a link of its own: every server and every proxy in between knows it, and it carries
all that is needed. hiredis parses and packs (docs/adr, the link of our own).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, final

import hiredis
import trio

from broker.eager import own_task
from broker.hub import EngineUnavailable

__all__ = ["Call", "Link", "ReplyError", "pack"]

ReplyError = hiredis.ReplyError
pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""A command as bytes; its parts are bytes, texts or numbers."""

_PENDING: Final = object()
_READ_SIZE: Final = 1 << 16
_MOST_QUEUED: Final = 64 << 20
"""Bytes that may wait to be written: a Redis that stands still must not fill our memory."""
_WATCH_INTERVAL: Final = 0.25
_TURN: Final = 0.002
"""Seconds after which the reader lets others have a turn."""

Wait = Callable[[], Awaitable[None]]
OnMessage = Callable[[bytes, bytes], Wait | None]
"""Takes a message of pub/sub, by name. Where it cannot take more at present it returns what to wait for."""


class Call:
    """A place in the queue of replies. `reply` is what came: an error that Redis answered is a `ReplyError`."""

    __slots__ = ("deadline", "reply", "task")

    def __init__(self) -> None:
        self.deadline = 0.0
        self.reply: Any = _PENDING
        self.task: trio.lowlevel.Task | None = None

    def answer(self, reply: Any) -> None:
        """Wake who waits, if anybody still does."""
        self.reply = reply
        task = self.task
        if task is not None:
            self.task = None
            trio.lowlevel.reschedule(task)

    def _abandon(self, _: object) -> trio.lowlevel.Abort:
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def wait(self) -> Any:
        """The reply, as soon as it is there.

        Raises:
            EngineUnavailable: the link ended before; whether the command was carried out is not known.
        """
        await own_task()
        if self.reply is _PENDING:
            self.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abandon)
        else:
            await trio.lowlevel.checkpoint()
        reply = self.reply
        if isinstance(reply, EngineUnavailable):
            raise EngineUnavailable(*reply.args)
        return reply


@final
class Link:
    """A link that stands. `run` serves it; `gone` is set when it ends, and `why` tells the reason.

    `server` is what it leads to, in words; `identity` is the run of that server (`run_id`), known after the login.
    """

    def __init__(
        self, stream: trio.abc.Stream, server: str, timeout: float, on_message: OnMessage | None = None
    ) -> None:
        self.server = server
        self.identity = b""
        self.why = ""
        self.gone = trio.Event()
        self._stream = stream
        self._timeout = timeout
        self._on_message = on_message
        self._reader = hiredis.Reader()
        self._calls: deque[Call] = deque()
        self._out: list[bytes] = []
        self._queued = 0
        self._wake = trio.Event()
        self._full = False  # who takes messages has no room: replies wait behind them

    @property
    def waiting(self) -> int:
        """Replies that are to come."""
        return len(self._calls)

    # ---- calls ----------------------------------------------------------------------------------------------------

    def send(self, data: bytes, calls: Sequence[Call]) -> None:
        """Queue packed commands that will have so many replies. Synchronous.

        Raises:
            EngineUnavailable: the link has ended, or too much waits already.
        """
        self._queue(data)
        deadline = trio.current_time() + self._timeout
        for call in calls:
            call.deadline = deadline
        self._calls.extend(calls)

    def start(self, *command: Any) -> Call:
        """Queue one command. Synchronous; `wait` on the result.

        Raises:
            EngineUnavailable: the link has ended, or too much waits already.
        """
        self._queue(pack(command))
        call = Call()
        call.deadline = trio.current_time() + self._timeout
        self._calls.append(call)
        return call

    async def call(self, *command: Any) -> Any:
        """One command and its reply, a `ReplyError` included.

        Raises:
            EngineUnavailable: see `start`, `Call.wait`.
        """
        return await self.start(*command).wait()

    def _queue(self, data: bytes) -> None:
        if self.why:
            raise EngineUnavailable(self.why)
        self._queued += len(data)
        if self._queued > _MOST_QUEUED:
            self._queued -= len(data)
            raise EngineUnavailable(f"{self.server}: {_MOST_QUEUED >> 20} MiB wait to be sent already")
        if not self._out:
            self._wake.set()
        self._out.append(data)

    # ---- the link's life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the link until it breaks, is closed, or is cancelled. Whoever waits on it is told."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, name="redis writer")
                nursery.start_soon(self._watch, name="redis deadlines")
                nursery.start_soon(self._read, name="redis reader")
                await self.gone.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.close("the link was closed")
            with trio.move_on_after(0.1, shield=True):
                await trio.aclose_forcefully(self._stream)

    def close(self, why: str) -> None:
        """End the link: every waiting call fails with `why`. Synchronous; only the first reason counts."""
        if self.why:
            return
        self.why = f"{self.server}: {why}"
        while self._calls:  # emptied, not replaced: whoever hands out replies just now has no more to give
            self._calls.popleft().answer(EngineUnavailable(self.why))
        self._out.clear()
        self.gone.set()

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                data = b"".join(self._out)
                self._out.clear()
                await self._stream.send_all(data)
                self._queued -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.close(f"cannot be written to ({error.__cause__ or error})")

    async def _watch(self) -> None:
        """Replies come in order, so the oldest call tells whether Redis keeps its time."""
        while True:
            await trio.sleep(_WATCH_INTERVAL)
            if self._calls and self._calls[0].deadline < trio.current_time() and not self._full:
                self.close(f"no reply within {self._timeout:g} s")

    async def _read(self) -> None:
        feed, stream = self._reader.feed, self._stream
        take = self._take_replies if self._on_message is None else self._take_messages
        try:
            while data := await stream.receive_some(_READ_SIZE):
                feed(bytes(data))
                # what waits in the server meanwhile is bounded there (client-output-buffer-limit)
                while (wait := take(time.perf_counter() + _TURN)) is not None:
                    self._full = wait is not trio.lowlevel.checkpoint
                    await wait()
                    self._full = False
            self.close("it closed the link")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.close(f"the link broke ({error.__cause__ or error})")
        except hiredis.ProtocolError as error:
            self.close(f"it does not speak Redis ({error})")

    def _take_replies(self, until: float) -> Wait | None:
        """Hand out what has arrived. True if its time is up before everything is handed out."""
        gets, calls = self._reader.gets, self._calls
        clock = time.perf_counter
        while (reply := gets()) is not False:
            if not calls:
                raise hiredis.ProtocolError("a reply that nobody asked for")
            call = calls.popleft()
            call.reply = reply
            task = call.task
            if task is not None:
                call.task = None
                trio.lowlevel.reschedule(task)
            if clock() > until:
                return trio.lowlevel.checkpoint
        return None

    def _take_messages(self, until: float) -> Wait | None:
        gets, calls, on_message = self._reader.gets, self._calls, self._on_message
        assert on_message is not None
        clock = time.perf_counter
        while (reply := gets()) is not False:
            if type(reply) is list and reply[0] == b"message":
                full = on_message(reply[1], reply[2])
                if full is not None:
                    return full
            elif calls:
                calls.popleft().answer(reply)
            else:
                raise hiredis.ProtocolError("a reply that nobody asked for")
            if clock() > until:
                return trio.lowlevel.checkpoint
        return None
