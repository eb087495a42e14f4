"""One connection to one Redis: commands go out in order, replies come back in order.

Everybody calls on the same link. What is called in one turn leaves in one write; the shared reader reads, and settles
each call with its reply. A caller that is cancelled leaves its place in the queue, never the wire: the next caller's
reply stays the next one. Nothing here redials (line.py).

RESP2 is spoken, with pub/sub on a link of its own: every server and every proxy in between knows it, and it carries
all that is needed. hiredis parses and packs (docs/adr, the link of our own).
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, final

import hiredis
import structlog
import trio

from broker.eager import Promise
from broker.hub import EngineUnavailable
from broker.reader import Stage

__all__ = ["Call", "Link", "OnMessage", "ReplyError", "Together", "Wait", "pack"]

_log = structlog.get_logger("broker.engines.redis")

ReplyError = hiredis.ReplyError
pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""A command as bytes; its parts are bytes, texts or numbers."""

_READ_SIZE: Final = 1 << 16
_MOST_QUEUED: Final = 64 << 20
"""Bytes that may wait to be written: a Redis that stands still must not fill our memory."""
_WATCH_INTERVAL: Final = 0.25
_TURN: Final = 0.002
"""Seconds after which others get a turn."""
_LATER: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Wait = Callable[[], Awaitable[None]]
OnMessage = Callable[[bytes, bytes], Wait | None]
"""Takes a message of pub/sub, by name. Where it cannot take more at present it returns what to wait for."""
Together = Callable[[], AbstractContextManager[None]]
"""What is around messages that were read at once."""


class Call(Promise[Any]):
    """A place in the queue of replies. It is settled with what Redis answers, a `ReplyError` included; it fails with
    `EngineUnavailable` if the link ends before: whether the command was carried out is not known then."""

    __slots__ = ()


@final
class Link:
    """A link that stands, and a `Readable`. `gone` is set when it ends, and `why` tells the reason.

    `server` is what it leads to, in words; `identity` is the run of that server (`run_id`), known after the login;
    `answered` counts replies.
    """

    def __init__(
        self,
        sock: socket.socket,
        server: str,
        timeout: float,
        stage: Stage,
        nursery: trio.Nursery,
        on_message: OnMessage | None = None,
        together: Together = nullcontext,
    ) -> None:
        """
        Args:
            sock: non-blocking, with TLS or without.
            timeout: seconds in which every call is answered, or fails with the whole link.
            nursery: its tasks run there; whoever opened it closes the link before.
            on_message, together: of a link for pub/sub.
        """
        self.server = server
        self.identity = b""
        self.why = ""
        self.gone = trio.Event()
        self._sock = sock
        self._timeout = timeout
        self._stage = stage
        self._nursery = nursery
        self._on_message = on_message
        self._together = together
        self._reader = hiredis.Reader()
        self._calls: deque[Call] = deque()
        self.answered = 0
        self._out: list[bytes] = []
        self._queued = 0
        self._sending = False  # in a task: the kernel did not take everything
        self._paused = False  # what has come is not all handed out yet
        stage.reader.add(sock.fileno(), self)
        nursery.start_soon(self._watch, name=f"redis deadlines {server}")

    @property
    def waiting(self) -> int:
        """Replies that are to come."""
        return len(self._calls)

    @property
    def called(self) -> int:
        """Calls so far."""
        return self.answered + len(self._calls)

    # ---- calls ----------------------------------------------------------------------------------------------------

    def send(self, data: bytes, calls: Sequence[Call]) -> None:
        """Queue packed commands that will have so many replies. Synchronous.

        Raises:
            EngineUnavailable: the link has ended, or too much waits already.
        """
        self._queue(data)
        self._calls.extend(calls)

    def start(self, *command: Any) -> Call:
        """Queue one command. Synchronous; `wait` on the result.

        Raises:
            EngineUnavailable: the link has ended, or too much waits already.
        """
        self._queue(pack(command))
        call = Call()
        self._calls.append(call)
        return call

    async def call(self, *command: Any) -> Any:
        """One command and its reply, a `ReplyError` included.

        Raises:
            EngineUnavailable: see `start`, `Call`.
        """
        return await self.start(*command).wait()

    def _queue(self, data: bytes) -> None:
        if self.why:
            raise EngineUnavailable(self.why)
        self._queued += len(data)
        if self._queued > _MOST_QUEUED:
            self._queued -= len(data)
            raise EngineUnavailable(f"{self.server}: {_MOST_QUEUED >> 20} MiB wait to be sent already")
        out = self._out
        if not out and not self._sending:
            self._stage.soon(self._flush)
        out.append(data)

    # ---- writing --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Send what was called. The rest, where the kernel does not take everything, is sent in a task."""
        if self.why:
            return
        data = self._take_out()
        try:
            sent = self._send(data)
        except OSError as error:
            self.close(f"cannot be written to ({error})")
            return
        self._queued -= sent
        if sent < len(data):
            self._sending = True
            self._nursery.start_soon(self._send_rest, memoryview(data)[sent:])

    def _take_out(self) -> bytes:
        out = self._out
        data = b"".join(out)
        out.clear()
        return data

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except _LATER:
            return 0

    async def _send_rest(self, rest: memoryview) -> None:
        try:
            while rest:
                await trio.lowlevel.wait_writable(self._sock)
                sent = self._send(rest)
                self._queued -= sent
                rest = rest[sent:] or memoryview(self._take_out())
        except trio.ClosedResourceError:
            return  # by `close`
        except OSError as error:
            self.close(f"cannot be written to ({error})")
        self._sending = False

    # ---- reading --------------------------------------------------------------------------------------------------

    def readable(self) -> None:
        """Replies or messages have come, or the end."""
        while not self.why and not self._paused:
            try:
                data = self._sock.recv(_READ_SIZE)
            except _LATER:
                return
            except OSError as error:
                self.close(f"the link broke ({error})")
                return
            if not data:
                self.close("it closed the link")
                return
            self._reader.feed(data)
            wait = self._hand_out()
            if self.why:
                return
            if wait is not None:
                self._paused = True
                self._stage.reader.drop(self._sock.fileno())
                self._nursery.start_soon(self._go_on, wait)
            if not self._has_more():
                return

    def _has_more(self) -> bool:
        """Whether TLS has bytes that no event will tell of."""
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def hung_up(self) -> None:
        self.close("it closed the link")

    def crashed(self) -> None:
        _log.exception("what came from Redis could not be handled", server=self.server)
        self.close("what came could not be handled")

    def _hand_out(self) -> Wait | None:
        """Hand out what has arrived. Returns what to wait for before the rest: others should have a turn first, or
        there is no room."""
        until = time.perf_counter() + _TURN
        try:
            if self._on_message is None:
                return self._take_replies(until)
            with self._together():
                return self._take_messages(until, self._on_message)
        except hiredis.ProtocolError as error:
            self.close(f"it does not speak Redis ({error})")
            return None

    def _take_replies(self, until: float) -> Wait | None:
        gets, calls = self._reader.gets, self._calls
        clock = time.perf_counter
        while (reply := gets()) is not False:
            if not calls:
                raise hiredis.ProtocolError("a reply that nobody asked for")
            self.answered += 1
            calls.popleft().settle(reply)
            if clock() > until:
                return trio.lowlevel.checkpoint
        return None

    def _take_messages(self, until: float, on_message: OnMessage) -> Wait | None:
        gets, calls = self._reader.gets, self._calls
        clock = time.perf_counter
        while (reply := gets()) is not False:
            if type(reply) is list and reply[0] == b"message":
                full = on_message(reply[1], reply[2])
                if full is not None:
                    return full
            elif calls:
                self.answered += 1
                calls.popleft().settle(reply)
            else:
                raise hiredis.ProtocolError("a reply that nobody asked for")
            if clock() > until:
                return trio.lowlevel.checkpoint
        return None

    async def _go_on(self, wait: Wait | None) -> None:
        """What waits in the server meanwhile is bounded there (client-output-buffer-limit)."""
        try:
            while wait is not None:
                await wait()
                if self.why:
                    return
                wait = self._hand_out()
            if not self.why:
                self._paused = False
                self._stage.reader.add(self._sock.fileno(), self)
                if self._has_more():
                    self.readable()
        except Exception:  # the wall of the link, as in the shared reader
            self.crashed()

    # ---- the end --------------------------------------------------------------------------------------------------

    def close(self, why: str) -> None:
        """End the link: every waiting call fails with `why`. Synchronous; only the first reason counts."""
        if self.why:
            return
        self.why = f"{self.server}: {why}"
        self._stage.reader.drop(self._sock.fileno())
        if self._sending:
            trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._out.clear()
        self.gone.set()
        while self._calls:  # emptied, not replaced: whoever hands out replies just now has no more to give
            self._calls.popleft().fail(EngineUnavailable(self.why))

    async def _watch(self) -> None:
        """Replies come in order, so how many have come tells whether Redis keeps its time."""
        marks: deque[tuple[float, int]] = deque()  # when so many had been called
        while not self.why:
            await trio.sleep(_WATCH_INTERVAL)
            now = trio.current_time()
            if self._paused:
                marks.clear()
                continue
            while marks and marks[0][0] <= now - self._timeout:
                _, called = marks.popleft()
                if self.answered < called:
                    self.close(f"no reply within {self._timeout:g} s")
            marks.append((now, self.called))
