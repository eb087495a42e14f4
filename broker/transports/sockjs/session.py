"""A SockJS session over HTTP: one `Connection` whose link is made of requests.

A client sends by one kind of request and receives by another, which ends with each frame (polling) or after many
(streaming). In between, up to five seconds, nobody receives: frames wait. The link is what holds all that together;
to the connection, its outbox and its session it is a peer like any other.

Facts: https://github.com/sockjs/sockjs-protocol (Protocol and framing, Handling close).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, final

import trio

from broker.eager import own_task
from broker.hub import TimerWheel, TrySend
from broker.protocol import JSON, codes
from broker.protocol.sockjs import (
    CONNECTION_OPEN,
    HEARTBEAT,
    OPEN,
    SockJsItems,
    close_array,
    message_array,
)
from broker.reader import Readable
from broker.sessions import Context, Session
from broker.transports.connection import Connection
from broker.transports.links import Spawn
from broker.transports.peer import SessionCarrier

__all__ = ["Receiver", "SessionLink", "SessionMachine"]

_DISCONNECT_DELAY: Final = 5.0
"""Seconds without a receiver after which a session ends, and for which the end of one is remembered."""
_HANG_UP_TIMEOUT: Final = 5.0
"""Seconds that the peer has to leave after a connect that was refused with an error."""
_ITEMS: Final = SockJsItems(JSON)


class Receiver(Protocol):
    """A request that frames are the answer to."""

    def take(self, frame: bytes) -> bool:
        """Send a frame. Returns whether another one may follow; if not, the response has ended by itself."""
        ...

    def finish(self) -> None:
        """End the response."""


@final
class SessionLink:
    """A `Link`, and a `Timed`: for the end of a session that nobody receives from, and for heartbeats.

    Its `connection` is given to it before anything is asked of it.

    Args:
        peer: where the first of its requests came from.
        limit: bytes that may wait for a receiver.
        heartbeat: seconds between heartbeats, 0 for none.
        forget: called once, when a session of this id may be a new one.
    """

    __slots__ = (
        "_came",
        "_forget",
        "_free",
        "_goodbye",
        "_heartbeat",
        "_items",
        "_limit",
        "_opened",
        "_receiver",
        "_timers",
        "connection",
        "peer",
        "slot",
        "try_send",
    )
    secure = False
    socket = None
    alpn = None

    def __init__(
        self, timers: TimerWheel, peer: str, *, limit: int, heartbeat: float, forget: Callable[[], object]
    ) -> None:
        self.peer = peer
        self._timers = timers
        self._limit = limit
        self._heartbeat = heartbeat
        self._forget: Callable[[], object] | None = forget
        self.connection: Connection
        self._receiver: Receiver | None = None
        self._opened = False
        self._goodbye = b""  # the frame that ended it
        self._items = bytearray()  # waits for a receiver
        self._came = b""
        self._free: trio.Event | None = trio.Event()  # set when the next frame may come; None while one may
        self.slot: int | None = None
        self.try_send: TrySend | None = self._try_send

    # ---- receiving requests ---------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether nobody receives."""
        return self._receiver is None

    def attach(self, receiver: Receiver) -> None:
        """Give `receiver` what waits and what is still to come, or tell it that it is not wanted."""
        if self._goodbye:
            if not self._items or receiver.take(self._take_items()):
                self._last(receiver, self._goodbye)
        elif self._receiver is not None:
            self._last(receiver, close_array(CONNECTION_OPEN))
        else:
            self._receiver = receiver
            if self._heartbeat:
                self._timers.arm(self, trio.current_time() + self._heartbeat)
            else:
                self._timers.disarm(self)
            if not self._opened:
                self._opened = True
                self._give(OPEN)
            self._flush()

    def interrupted(self, receiver: Receiver) -> None:
        """Its connection is gone: nobody knows what the peer got, so the session ends. No-op if it was done with."""
        if receiver is self._receiver:
            self._receiver = None
            self._end()

    def _give(self, frame: bytes) -> None:
        assert self._receiver is not None
        if not self._receiver.take(frame):
            self._receiver = None
            self._timers.arm(self, trio.current_time() + _DISCONNECT_DELAY)

    def _flush(self) -> None:
        if self._items and self._receiver is not None:
            self._give(self._take_items())

    def _take_items(self) -> bytes:
        items, self._items = self._items, bytearray()
        return message_array(items)

    @staticmethod
    def _last(receiver: Receiver, frame: bytes) -> None:
        if receiver.take(frame):
            receiver.finish()

    # ---- sending requests -----------------------------------------------------------------------------------------

    async def deliver(self, frame: bytes) -> bool:
        """Let the session handle a frame, in its turn. Returns False if the session has ended."""
        while (free := self._free) is not None and not self._ended:
            await own_task()  # it may be free before the task of its own begins
            await free.wait()
        if self._ended:
            return False
        self._came = frame
        try:
            self.connection.readable()
        except Exception:  # the wall of the session's connection, not of the one that this request came by
            self.connection.crashed()
        return True

    @property
    def _ended(self) -> bool:
        return bool(self._goodbye) or self._forget is None

    # ---- a Link ---------------------------------------------------------------------------------------------------

    def start(self, readable: Readable, spawn: Spawn) -> None:
        self.resume()

    def receive(self) -> bytes | None:
        came, self._came = self._came, b""
        return came or None

    def pending(self) -> bool:
        return False

    def admit(self) -> None:
        """What carries it decides when it is read."""

    def pause(self) -> None:
        if self._free is None:
            self._free = trio.Event()

    def resume(self) -> None:
        if self._free is not None:
            self._free.set()
            self._free = None

    def stop(self) -> None:
        """Nothing is read but what is delivered."""

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    def _try_send(self, data: bytes | memoryview) -> int:
        if not self._ended:
            self._items += data
            self._flush()
            if len(self._items) > self._limit:
                self._items.clear()
                self.connection.write_failed(codes.SLOW)
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()  # everything is taken at once

    async def send_all(self, data: bytes) -> None:
        self._try_send(data)
        await trio.lowlevel.checkpoint()

    async def shut_down(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.say_last(codes.CONNECTION_CLOSED)
        self.resume()

    # ---- the end --------------------------------------------------------------------------------------------------

    def say_last(self, why: codes.Disconnect) -> None:
        """End the session with this frame, now or when somebody asks within five seconds. The first one counts."""
        if self._ended:
            return
        receiver, self._receiver = self._receiver, None
        self._goodbye = close_array(why)
        self._timers.arm(self, trio.current_time() + _DISCONNECT_DELAY)
        if receiver is not None:
            self._last(receiver, self._goodbye)

    def _end(self) -> None:
        self._be_forgotten()
        self.connection.hung_up()

    def _be_forgotten(self) -> None:
        forget, self._forget = self._forget, None
        self._timers.disarm(self)
        if forget is not None:
            forget()

    # ---- a Timed --------------------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        if self._receiver is not None:
            self._timers.arm(self, now + self._heartbeat)
            self._give(HEARTBEAT)
        elif self._goodbye:
            self._be_forgotten()
        else:
            self._end()

    def crashed(self) -> None:
        self.connection.crashed()


@final
class SessionMachine(SessionCarrier):
    """What the frames of a session mean: the machine of its connection, and the `Peer` of its `Session`."""

    __slots__ = ("_hanging_up", "_link", "header_user", "headers")
    transport: Final = "sockjs"
    native_ping: Final = False
    wire: Final = _ITEMS

    def __init__(
        self,
        connection: Connection,
        link: SessionLink,
        context: Context,
        header_user: str | None,
        headers: Mapping[str, str],
    ) -> None:
        link.connection = connection
        self._connection = connection
        self._link = link
        self._hanging_up = False
        self.header_user = header_user
        self.headers = headers
        self.session = Session(self, context)

    # ---- a Machine ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        if not self._hanging_up:
            self._connection.handle_in_order(self.session.handle, data)

    def advance(self) -> None:
        """Whoever delivers waits for the link: nothing is kept here."""

    def farewell(self) -> bytes:
        return b""

    async def wait_farewell(self, receive: Callable[[], Coroutine[Any, Any, bytes]]) -> None:
        await trio.lowlevel.checkpoint()

    # ---- a Peer ---------------------------------------------------------------------------------------------------

    def welcome(self) -> None:
        """Every receiver is open."""

    def close(self, why: codes.Disconnect) -> None:
        self.outbox.uncork()  # what it was told while this frame was handled comes before the end
        self._link.say_last(why)
        self.session.context.node.counters.transport_closed[self.transport, why.code] += 1
        self._connection.end()

    def hang_up(self) -> None:
        self._hanging_up = True
        self._connection.run_beside(self._wait_hang_up())

    async def _wait_hang_up(self) -> None:
        await own_task()
        await trio.sleep(_HANG_UP_TIMEOUT)
        self._connection.drop()
