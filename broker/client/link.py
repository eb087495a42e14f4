"""One WebSocket connection: commands out, replies back to whoever asked, pushes to their receiver."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar, final

import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from broker.client.address import Dial
from broker.client.errors import BAD_PROTOCOL, NO_PING, TRANSPORT_CLOSED, ConnectionLost, ReplyError
from broker.client.wire import Push, Reply, Wire, WireError
from broker.protocol import Command

T = TypeVar("T")

CLOSE_SECONDS: Final = 1.0
"""How long a leaving client waits for the server's Close frame."""
PING_GRACE: Final = 10.0
"""Seconds that a ping may be late (client protocol §8)."""
MESSAGE_LIMIT: Final = 1 << 24
RECEIVE_BYTES: Final = 1 << 16


@final
class Link:
    """What `open_link` gives. It is used by one client, and never again once it is lost."""

    def __init__(self, ws: WebSocketConnection, wire: Wire, nursery: trio.Nursery, patience: float) -> None:
        self.nursery: Final = nursery
        """Ends with the connection: tasks that serve only it."""
        self._ws = ws
        self._wire = wire
        self._patience = patience
        self._last_id = 0
        self._waiting: dict[int, _Waiting[Any]] = {}
        self._lost: ConnectionLost | None = None
        self._watchdog = trio.CancelScope()
        self._ping_seconds = math.inf
        self._answer_pings = False

    async def call(self, command: Command, take: Callable[[Reply], T]) -> T:
        """Send a command and return what `take` makes of its reply.

        `take` runs before anything that the server sent after the reply is looked at.

        Raises:
            ReplyError: the reply is an error.
            ConnectionLost: the connection broke first.
            trio.TooSlowError: there is no reply in time.
        """
        self._last_id = command.id = self._last_id + 1
        waiting = _Waiting(take)
        self._waiting[command.id] = waiting
        try:
            with trio.fail_after(self._patience):
                await self._send(self._wire.encode(command))
                await waiting.done.wait()
        finally:
            del self._waiting[command.id]
        return waiting.result()

    async def tell(self, command: Command) -> None:
        """Send a command whose reply nobody waits for.

        Raises:
            ConnectionLost: the connection is broken.
        """
        self._last_id = command.id = self._last_id + 1
        await self._send(self._wire.encode(command))

    def expect_pings(self, interval: int, *, answer: bool) -> None:
        """From now on the server has to send a ping every `interval` seconds; 0: it sends none."""
        self._answer_pings = answer
        self._ping_seconds = interval + PING_GRACE if interval else math.inf
        self._watchdog.deadline = trio.current_time() + self._ping_seconds

    def drop(self, lost: ConnectionLost) -> None:
        """Give the connection up."""
        self._lost = self._lost or lost
        self._watchdog.cancel()

    async def read(self, on_push: Callable[[Push], None]) -> ConnectionLost:
        """Read until the connection is lost; why it was. Whoever waits for a reply is told the same."""
        lost = ConnectionLost(TRANSPORT_CLOSED, "transport closed")
        try:
            with self._watchdog:
                while True:
                    for reply in self._wire.decode(await self._ws.get_message()):
                        self._take(reply, on_push)
            lost = self._lost or ConnectionLost(NO_PING, "no ping")
        except ConnectionClosed as closed:
            if closed.reason is not None:
                lost = ConnectionLost(closed.reason.code, closed.reason.reason or "transport closed")
        except WireError as error:
            lost = ConnectionLost(BAD_PROTOCOL, str(error), final=True)
        finally:
            self._lost = lost
            for waiting in self._waiting.values():
                waiting.fail(lost)
        return lost

    def _take(self, reply: Reply, on_push: Callable[[Push], None]) -> None:
        if reply.id:
            waiting = self._waiting.get(reply.id)
            if waiting is not None:
                waiting.answer(reply)
        elif reply.push is not None:
            if reply.push.disconnect is not None:
                self.drop(ConnectionLost(reply.push.disconnect.code, reply.push.disconnect.reason))
            else:
                on_push(reply.push)
        else:
            self._watchdog.deadline = trio.current_time() + self._ping_seconds
            if self._answer_pings:
                self.nursery.start_soon(self._pong)

    async def _pong(self) -> None:
        try:
            await self._send(self._wire.pong)
        except ConnectionLost:
            return  # the reader notices by itself

    async def _send(self, message: str | bytes) -> None:
        """Send a whole message.

        A cancelled send leaves half a frame behind, and the next one would go out as if nothing had happened. So a
        send is never cancelled; one that takes too long ends the connection.
        """
        if self._lost is not None:
            raise ConnectionLost(self._lost.code, self._lost.reason)
        with trio.move_on_after(self._patience, shield=True) as deadline:
            try:
                await self._ws.send_message(message)
            except ConnectionClosed as closed:
                code = closed.reason.code if closed.reason else TRANSPORT_CLOSED
                raise ConnectionLost(code, "transport closed") from None
            except LocalProtocolError as error:
                raise ConnectionLost(TRANSPORT_CLOSED, str(error)) from None
        if deadline.cancelled_caught:
            self.drop(ConnectionLost(TRANSPORT_CLOSED, "the server does not read"))
            raise ConnectionLost(TRANSPORT_CLOSED, "the server does not read")


@final
class _Waiting(Generic[T]):
    """A command without a reply yet."""

    def __init__(self, take: Callable[[Reply], T]) -> None:
        self._take = take
        self._values: list[T] = []
        self._error: ReplyError | ConnectionLost | None = None
        self.done = trio.Event()

    def answer(self, reply: Reply) -> None:
        if reply.error is not None:
            self._error = ReplyError(reply.error.code, reply.error.message, reply.error.temporary)
        else:
            self._values.append(self._take(reply))
        self.done.set()

    def fail(self, lost: ConnectionLost) -> None:
        if not self.done.is_set():
            self._error = ConnectionLost(lost.code, lost.reason)
            self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._values[0]


@asynccontextmanager
async def open_link(
    dial: Dial, host: str, resource: str, wire: Wire, headers: list[tuple[bytes, bytes]], patience: float
) -> AsyncIterator[Link]:
    """Connect and upgrade; the connection is closed when the block is left.

    Raises:
        ConnectionLost: the server cannot be reached, refuses, or takes longer than `patience` seconds.
    """
    stream = await _reach(dial, patience)
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            ws: WebSocketConnection | None = None
            with trio.move_on_after(patience):  # trio-websocket does not notice a peer that just hangs up
                ws = await wrap_client_stream(
                    nursery,
                    stream,  # type: ignore[arg-type]  # any stream will do
                    host,
                    resource,
                    subprotocols=[wire.subprotocol],
                    extra_headers=headers,
                    max_message_size=MESSAGE_LIMIT,
                    receive_buffer_size=RECEIVE_BYTES,
                )
            if ws is None:
                raise ConnectionLost(TRANSPORT_CLOSED, "no answer to the upgrade request")
            try:
                yield Link(ws, wire, nursery, patience)
            finally:
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await ws.aclose()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        error = alone(group)
    finally:
        await trio.aclose_forcefully(stream)
    if isinstance(error, HandshakeError):
        raise ConnectionLost(TRANSPORT_CLOSED, f"the upgrade was refused: {error!r}") from error
    if isinstance(error, ConnectionClosed | RemoteProtocolError):
        raise ConnectionLost(TRANSPORT_CLOSED, f"the connection broke: {error!r}") from error
    if error is not None:
        raise error


async def _reach(dial: Dial, patience: float) -> trio.abc.Stream:
    try:
        with trio.fail_after(patience):
            return await dial()
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        raise ConnectionLost(TRANSPORT_CLOSED, f"the server cannot be reached: {error!r}") from error


def alone(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What the block of a nursery raised, as it was, if none of its tasks raised too; else the group."""
    return group.exceptions[0] if len(group.exceptions) == 1 else group
