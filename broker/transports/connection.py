"""The shell of one connection: its nursery, its wall, its way out, its end. What the bytes mean is its machine's
business: HTTP first (http.py), then perhaps WebSocket (websocket.py).

A connection of which nothing waits is no task: the reader calls it, and most of what it is asked for is done on the
spot. What has to wait runs in the connection's nursery, which opens for the first and closes after the last of it
(docs/adr/0010-a-nursery-when-something-waits.md); but what waits for a promise alone is held until that is settled, and
goes on in whoever brings it (docs/adr/0016-answers-without-a-task.md).

A machine is sans-I/O: it is fed bytes by whoever reads, and what it wants done in order it hands to `run_in_order`, or
`handle_in_order` where it is a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol, final

import structlog
import trio

from broker.eager import Promise, begin, go_on
from broker.hub import Outbox
from broker.observe import Counters
from broker.protocol import codes
from broker.transports.links import Link

__all__ = ["Connection", "Home", "Machine"]

_log = structlog.get_logger("broker.transports")

_LINGER = 1.0
"""Seconds that a peer has to take the last bytes."""

_DRAIN = 1.0
"""Seconds to read on after the last bytes."""

Task = Callable[[], Coroutine[Any, Any, None]]


class Home(Protocol):
    """The stage that a connection lives in."""

    @property
    def nursery(self) -> trio.Nursery:
        """Where the task of a connection runs, while it has one."""
        ...

    @property
    def counters(self) -> Counters: ...

    def gone(self, connection: Connection) -> None:
        """Nothing of it is left."""


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
    decision to end on: nothing begins any more. `address` is the client's: the peer's, or what a trusted proxy says.

    `_working` counts what is in the nursery, `_starting` holds what it will be opened with, `_held` what waits for a
    promise.
    """

    __slots__ = (
        "_cut_off",
        "_goodbye",
        "_has_task",
        "_held",
        "_home",
        "_nursery",
        "_starting",
        "_working",
        "address",
        "busy",
        "carries",
        "ending",
        "link",
        "machine",
        "outbox",
    )

    machine: Machine

    def __init__(self, link: Link, home: Home, *, outbox_limit: int, write_timeout: float) -> None:
        self.link = link
        self.address = link.peer
        self._home = home
        self.outbox = Outbox(link, self, limit=outbox_limit, write_timeout=write_timeout)
        self.busy = False
        self.carries = False
        self.ending = False
        self._cut_off = False
        self._has_task = False
        self._nursery: trio.Nursery | None = None
        self._held: dict[Promise[Any], Coroutine[Any, Any, None]] | None = None
        self._starting: tuple[Task, ...] = ()
        self._working = 0
        self._goodbye: trio.CancelScope | None = None

    # ---- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to read. From here on the connection ends by itself, and tells its home."""
        try:
            self.link.start(self, self._run_in_task)
        except Exception:
            self.crashed()

    def _run_in_task(self, task: Task) -> None:
        """Run what has to wait in the connection's nursery."""
        if self._nursery is not None:
            self._working += 1
            self._nursery.start_soon(self._work, task)
        else:
            self._starting += (task,)
            self._need_task()

    def _need_task(self) -> None:
        if not self._has_task:
            self._has_task = True
            self._home.nursery.start_soon(self._live)

    async def _live(self) -> None:
        """The connection's task: there while something of it waits, and for its end."""
        try:
            while self._starting:
                await self._hold_nursery()
        except BaseException:  # cancelled with everybody else: the server has no more time
            self.ending = True
            raise
        finally:
            if self.ending:
                with trio.CancelScope(shield=True) as self._goodbye:  # every wait within has a deadline of its own
                    await self._end(self._begin_end())
            else:
                self._has_task = False

    async def _hold_nursery(self) -> None:
        first, *others = self._starting
        self._starting = ()
        try:
            async with trio.open_nursery() as self._nursery:
                if self.ending:
                    self._nursery.cancel_scope.cancel()
                self._working = 1 + len(others)
                for other in others:
                    self._nursery.start_soon(self._work, other)
                await self._work(first)
        except* Exception:
            # The wall. A star, because a bug comes in a group with what was cancelled beside it.
            self.crashed()
        finally:
            self._nursery = None

    async def _work(self, task: Task) -> None:
        try:
            await self._guard(task())
        finally:
            self._working -= 1
            if not self._working:
                self._nursery = None  # it closes: what comes now has to wait for the next one

    def end(self) -> None:
        """Begin to end: what waits in the nursery is cancelled, then the peer is told."""
        self.ending = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
        held, self._held = self._held, None
        for promise, work in (held or {}).items():
            promise.when_settled(None)
            self._run_in_task(partial(go_on, work))  # where it is cancelled
        self._need_task()

    def drop(self) -> None:
        """End without a word: the peer is gone, or does not read."""
        self._cut_off = True
        self.end()

    def cut(self) -> None:
        """End now, whatever is being said: the server has no more time."""
        self.drop()
        if self._goodbye is not None:
            self._goodbye.cancel()

    def _vanish(self) -> None:
        """The peer is gone, as its own socket says: where nothing waits, that is the end, and needs no task."""
        self._cut_off = True
        if self._has_task or self._held:
            self.end()
            return
        self.ending = self._has_task = True
        cleanup = self._begin_end()
        if cleanup is not None:
            self._home.nursery.start_soon(self._go_on_ending, cleanup)
            return
        self.link.stop()
        self.outbox.close()
        begin(self._guard(self.link.aclose()))
        self._home.gone(self)

    async def _go_on_ending(self, cleanup: Coroutine[Any, Any, None]) -> None:
        with trio.CancelScope(shield=True) as self._goodbye:
            await self._end(cleanup)

    def _begin_end(self) -> Coroutine[Any, Any, None] | None:
        """Out of every structure. Returns the clean-up, if it has to wait."""
        try:
            self.machine.ended()
        except Exception:
            self.crashed()
        cleanup = self._guard(self.machine.cleanup())
        done, _ = begin(cleanup)
        return None if done else cleanup

    async def _end(self, cleanup: Coroutine[Any, Any, None] | None) -> None:
        """Nobody waits for an engine to close a socket, nor for a peer to tell the others that it left."""
        try:
            if cleanup is None:
                await self._close()
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(go_on, cleanup)
                await self._close()
        finally:
            self._home.gone(self)

    async def _close(self) -> None:
        await self._guard(self._say_goodbye())
        await self._guard(self.link.aclose())

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """The wall around whatever has a task, or a step of the end, to itself."""
        try:
            await work
        except Exception:
            self.crashed()

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

    async def drain(self) -> None:
        """For a `wait_farewell`: nothing more comes, and what the peer still says is read for a moment, since a socket
        that is closed with bytes unread is reset, and the last bytes are lost with it."""
        with trio.move_on_after(_DRAIN):
            await self.link.shut_down()
            while await self.link.receive_some():
                pass

    # ---- reading --------------------------------------------------------------------------------------------------

    def readable(self) -> None:
        """Something came."""
        while not self.ending:
            data = self.link.receive()
            if data is None:
                return
            if not data:
                self._vanish()
                return
            self.machine.feed(data)
            if self.busy or not self.link.pending():
                return

    def hung_up(self) -> None:
        """The peer went while reading was paused."""
        self._vanish()

    def crashed(self) -> None:
        """Called within an `except`: a bug of ours ends this connection, and only this one."""
        self._home.counters.connection_crashes += 1
        _log.exception("a connection crashed")
        self.machine.failed(codes.SERVER_ERROR)
        self.end()

    def admit(self) -> None:
        """It is being served, so it is read with those who are: see `Reader`."""
        self.link.admit()
        if self.busy:
            self.link.pause()

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
        """Run at once; if it waits, nothing is read meanwhile."""
        done, promise = begin(work)
        if not done:
            self.busy = True
            self.link.pause()
            self._wait(work, promise, self._go_on_reading)

    def _go_on_reading(self) -> None:
        self.busy = False
        if not self.ending:
            self.machine.advance()  # what waited in its buffer
        if not self.busy and not self.ending:
            self.link.resume()
            if self.link.pending():
                self.readable()

    def run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for; reading goes on.

        Whoever calls (an API request, the timer wheel, a fan-out) has no part in it, so the wall is here.
        """
        if self.ending:
            work.close()
            return
        self._step(work, None)

    # ---- waiting ----------------------------------------------------------------------------------------------------

    def _step(self, work: Coroutine[Any, Any, None], then: Callable[[], None] | None) -> None:
        """Run it up to its next wait, or to its end; with the wall."""
        try:
            done, promise = begin(work)
            if not done:
                self._wait(work, promise, then)
            elif then is not None:
                then()
        except Exception:
            self.crashed()

    def _wait(
        self, work: Coroutine[Any, Any, None], promise: Promise[Any] | None, then: Callable[[], None] | None
    ) -> None:
        """Go on with it when the promise is settled, or in a task; `then` comes after its end."""
        if promise is None or self.ending:
            self._run_in_task(partial(self._finish, work, then))
            return
        if self._held is None:
            self._held = {}
        self._held[promise] = work
        promise.when_settled(partial(self._settled, promise, work, then))

    def _settled(self, promise: Promise[Any], work: Coroutine[Any, Any, None], then: Callable[[], None] | None) -> None:
        assert self._held is not None
        del self._held[promise]
        self._step(work, then)

    async def _finish(self, work: Coroutine[Any, Any, None], then: Callable[[], None] | None) -> None:
        await go_on(work)
        if then is not None:
            then()

    # ---- the outbox's owner ---------------------------------------------------------------------------------------

    def write_failed(self, why: codes.Disconnect) -> None:
        """The peer is too slow, or gone."""
        self._cut_off = True
        self.machine.failed(why)
        self.end()

    def spawn(self, task: Task) -> None:
        if not self.ending:
            self._run_in_task(task)
