"""The shell of one connection: its nursery, its wall, its way out, its end. What the bytes mean is its machine's
business: HTTP first (http.py), then perhaps WebSocket (websocket.py).

A machine is sans-I/O: it is fed bytes by whoever reads, and what it wants done in order it hands to `run_in_order`, or
`handle_in_order` where it is a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, final

import structlog
import trio

from broker.eager import begin, go_on
from broker.hub import Outbox
from broker.observe import Counters
from broker.protocol import codes
from broker.transports.links import Link

__all__ = ["Connection", "Machine"]

_log = structlog.get_logger("broker.transports")

_LINGER = 1.0
"""Seconds that a peer has to take the last bytes."""


class Machine(Protocol):
    """What the bytes of a connection mean."""

    def feed(self, data: bytes) -> None:
        """Bytes came. While the connection is busy they only wait."""

    def advance(self) -> None:
        """The connection is no longer busy: go on with what waits."""

    def failed(self, why: codes.Disconnect) -> None:
        """The connection has to end, for this reason. Synchronous."""

    def ended(self) -> None:
        """The connection is over: out of every structure, now. Synchronous."""

    def farewell(self) -> bytes:
        """The last bytes for a peer that still listens."""
        ...

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        """Read until the peer has answered the farewell, or is gone. Has a deadline."""

    async def cleanup(self) -> None:
        """What may wait for others, beside the farewell. Has a deadline."""


@final
class Connection:
    """A `Readable` for the reader, an `OutboxOwner` for the outbox. `busy` while a coroutine of `run_in_order` waits
    in its own task: reading is paused then. `carries` while other connections live on this one. `ending` from the first
    decision to end on: nothing begins any more."""

    __slots__ = (
        "_counters",
        "_cut_off",
        "_goodbye",
        "busy",
        "carries",
        "ending",
        "link",
        "machine",
        "nursery",
        "outbox",
    )

    machine: Machine

    def __init__(self, link: Link, counters: Counters, *, outbox_limit: int, write_timeout: float) -> None:
        self.link = link
        self._counters = counters
        self.outbox = Outbox(link, self, limit=outbox_limit, write_timeout=write_timeout)
        self.nursery: trio.Nursery | None = None
        self.busy = False
        self.carries = False
        self.ending = False
        self._cut_off = False
        self._goodbye: trio.CancelScope | None = None

    # ---- life -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """From the accepted peer to the last trace of it: this task is the connection."""
        try:
            async with trio.open_nursery() as self.nursery:
                if self.ending:
                    self.nursery.cancel_scope.cancel()
                self.link.start(self, self.nursery)
                await trio.sleep_forever()
        except* Exception:
            # The wall. A star, because a bug comes in a group with what was cancelled beside it.
            self.crashed()
        finally:
            self.ending = True
            self.nursery = None
            with trio.CancelScope(shield=True) as self._goodbye:  # every wait within has a deadline of its own
                await self._end()

    async def _end(self) -> None:
        """Each step of the end whatever becomes of the others. Nobody waits for an engine to close a socket, nor for a
        peer to tell the others that it left."""
        try:
            self.machine.ended()
        except Exception:
            self.crashed()
        cleanup = self._guard(self.machine.cleanup())
        done, _ = begin(cleanup)
        if done:
            await self._guard(self._say_goodbye())
            await self._guard(self.link.aclose())
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on, cleanup)
            await self._guard(self._say_goodbye())
            await self._guard(self.link.aclose())

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """The wall around whatever has a task, or a step of the end, to itself."""
        try:
            await work
        except Exception:
            self.crashed()

    def end(self) -> None:
        """Begin to end: what waits in the nursery is cancelled, then the peer is told."""
        self.ending = True
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()

    def drop(self) -> None:
        """End without a word: the peer is gone, or does not read."""
        self._cut_off = True
        self.end()

    def cut(self) -> None:
        """End now, whatever is being said: the server has no more time."""
        self.drop()
        if self._goodbye is not None:
            self._goodbye.cancel()

    async def _say_goodbye(self) -> None:
        self.link.stop()
        rest = self.outbox.close()
        if self._cut_off or rest is None:
            return
        try:
            with trio.move_on_after(_LINGER) as late:
                await self.link.send_all(rest + self.machine.farewell())
            if not late.cancelled_caught:
                await self.machine.wait_farewell(self.link.receive_some)
                await self.link.shut_down()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return

    # ---- reading --------------------------------------------------------------------------------------------------

    def readable(self) -> None:
        """Something came."""
        while not self.ending:
            data = self.link.receive()
            if data is None:
                return
            if not data:
                self.drop()
                return
            self.machine.feed(data)
            if self.busy or not self.link.pending():
                return

    def hung_up(self) -> None:
        """The peer went while reading was paused."""
        self.drop()

    def crashed(self) -> None:
        """Called within an `except`: a bug of ours ends this connection, and only this one."""
        self._counters.connection_crashes += 1
        _log.exception("a connection crashed")
        self.machine.failed(codes.SERVER_ERROR)
        self.end()

    # ---- working --------------------------------------------------------------------------------------------------

    def handle_in_order(self, handle: Callable[[bytes], Coroutine[Any, Any, None] | None], frame: bytes) -> None:
        """Do what a frame asks for; `handle` gives back what is left to do and may wait, None if that is nothing.

        What is offered to the outbox before the first wait leaves in one write.
        """
        self.outbox.cork()
        try:
            work = handle(frame)
            if work is not None:
                self.run_in_order(work)
        finally:
            self.outbox.uncork()

    def run_in_order(self, work: Coroutine[Any, Any, None]) -> None:
        """Run at once; if it waits, in a task, and nothing is read meanwhile."""
        done, _ = begin(work)
        if not done:
            assert self.nursery is not None
            self.busy = True
            self.link.pause()
            self.nursery.start_soon(self._finish, work)

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await go_on(work)
            self.busy = False
            if not self.ending:
                self.machine.advance()  # what waited in its buffer
            if not self.busy and not self.ending:
                self.link.resume()
                if self.link.pending():
                    self.readable()
        except Exception:
            self.crashed()

    def run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for; reading goes on.

        Whoever calls (an API request, the timer wheel, a fan-out) has no part in it, so the wall is here.
        """
        if self.ending or self.nursery is None:
            work.close()  # its nursery may be closed already
            return
        try:
            done, _ = begin(work)
        except Exception:
            self.crashed()
            return
        if not done:
            self.nursery.start_soon(self._guard, go_on(work))

    # ---- the outbox's owner ---------------------------------------------------------------------------------------

    def write_failed(self, why: codes.Disconnect) -> None:
        """The peer is too slow, or gone."""
        self._cut_off = True
        self.machine.failed(why)
        self.end()

    def spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self.nursery is not None and not self.ending:
            self.nursery.start_soon(task)
