"""One client's life, from its first frame to the last trace of it: the order of commands, the timers, the end.

What each command does stands in the modules beside this one. Commands are handled one after another, and a handler
writes its reply itself, so that replies and pushes leave in the order in which they arose. What need not wait is done
by a plain call; what may is a coroutine, run before the next command. With `client.concurrency` above 1 so many of
those run side by side, and answers leave as they come.

Facts: client protocol (https://centrifugal.dev/docs/transports/client_protocol).
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Iterator
from time import perf_counter
from typing import Any, Final

import trio

from broker.eager import begin, go_on, own_task
from broker.hub import (
    ControlCommand,
    DisconnectUser,
    EngineUnavailable,
    RefreshUser,
    SubscribeUser,
    UnsubscribeUser,
)
from broker.protocol import Command, MalformedFrame, NotJson, codes
from broker.sessions import connect, publish, queries, refresh, server_side, subscribe, subscriptions, telling, ticks
from broker.sessions.client import Client, Status, Waiting
from broker.sessions.context import Context, Peer

__all__ = ["Session"]

_CLEANUP_TIMEOUT = 5.0
"""Seconds that presence and leave events of a client that is gone may take."""
_COMMANDS_PER_TURN = 128
"""Commands of one frame handled before others get a turn."""
_ALONE: Final = frozenset({"connect", "unsubscribe"})
"""Commands that the next ones wait for, whatever `client.concurrency` says."""
_ENDINGS: Final = (MalformedFrame, NotJson, codes.Disconnected)
"""What a command may raise that ends its connection."""


class Session(Client):
    """A `hub.Subscriber` and `hub.Timed`."""

    __slots__ = ("_aside", "_room")

    def __init__(self, peer: Peer, context: Context) -> None:
        super().__init__(peer, context)
        self._aside = 0  # commands that run beside the others
        self._room: trio.Event | None = None  # the next one waits for the end of one of them
        context.node.timers.arm(self, trio.current_time() + context.rules.client.stale_close_delay)

    # ---- commands -------------------------------------------------------------------------------------------------

    def handle(self, frame: bytes) -> Waiting | None:
        """Handle the commands of one frame, in order, up to the first that ends the connection.

        Returns what is left of it because something has to be waited for, to be run before the next frame; None when
        all is done, which most frames are.
        """
        self.context.node.counters.received_from[self.peer.transport].add(frame)
        try:
            commands = self.wire.codec.commands(frame)
            left = _COMMANDS_PER_TURN
            for command in commands:
                waiting = self._dispatch(command)
                left -= 1
                if waiting is not None or not left:
                    return self._handle_rest(waiting, commands)
                if self.status is not Status.CONNECTED:
                    return None
        except _ENDINGS as error:
            self._end_by(error)
        return None

    async def _handle_rest(self, waiting: Waiting | None, commands: Iterator[Command]) -> None:
        try:
            while True:
                if waiting is None:  # so many were handled that others get a turn
                    await own_task()
                    await trio.lowlevel.checkpoint()
                else:
                    await waiting
                    waiting = None
                left = _COMMANDS_PER_TURN
                while waiting is None and left:
                    if self.status is not Status.CONNECTED or (command := next(commands, None)) is None:
                        return
                    waiting = self._dispatch(command)
                    left -= 1
        except _ENDINGS as error:
            self._end_by(error)

    def _end_by(self, error: Exception) -> None:
        match error:
            case codes.Disconnected():
                self.disconnect(error.disconnect)
            case NotJson():
                self.disconnect(codes.INAPPROPRIATE_PROTOCOL)  # somebody's payload, in an answer to a JSON client
            case _:
                self.disconnect(codes.BAD_PROTOCOL)

    def _dispatch(self, command: Command) -> Waiting | None:
        """Carry out one command, or give back what may have to wait."""
        id = command.id
        if not id:
            if command.send is None:
                self._pong()
                return None
            id = 0
        if self.status is not Status.CONNECTED and command.connect is None:
            raise codes.Disconnected(codes.BAD_PROTOCOL)
        started = perf_counter()
        method = ""
        waiting: Waiting | None = None
        try:
            if command.connect is not None:
                method = "connect"
                waiting = connect.connect(self, id, command.connect)
            elif command.subscribe is not None:
                method = "subscribe"
                waiting = subscribe.subscribe(self, id, command.subscribe)
            elif command.unsubscribe is not None:
                method = "unsubscribe"
                waiting = subscribe.unsubscribe(self, id, command.unsubscribe)
            elif command.publish is not None:
                method = "publish"
                waiting = publish.publish(self, id, command.publish)
            elif command.presence is not None:
                method = "presence"
                waiting = queries.presence(self, id, command.presence)
            elif command.presence_stats is not None:
                method = "presence_stats"
                waiting = queries.presence_stats(self, id, command.presence_stats)
            elif command.history is not None:
                method = "history"
                waiting = queries.history(self, id, command.history)
            elif command.rpc is not None:
                method = "rpc"
                waiting = queries.rpc(self, id, command.rpc)
            elif command.send is not None:
                raise codes.Disconnected(codes.SEND_NOT_AVAILABLE)
            elif command.refresh is not None:
                method = "refresh"
                waiting = refresh.refresh(self, id, command.refresh)
            elif command.sub_refresh is not None:
                method = "sub_refresh"
                waiting = refresh.sub_refresh(self, id, command.sub_refresh)
            else:
                raise codes.Disconnected(codes.BAD_PROTOCOL)
        except codes.ClientError as failure:
            self._answer_error(id, method, failure.error)
        if waiting is not None:
            if self.context.rules.client.concurrency > 1 and method not in _ALONE:
                return self._run_aside(id, method, started, waiting)
            return self._finish(id, method, started, waiting)
        self.context.node.counters.commands[method].add(perf_counter() - started)
        return None

    async def _finish(self, id: int, method: str, started: float, waiting: Waiting) -> None:
        try:
            await waiting
        except codes.ClientError as failure:
            self._answer_error(id, method, failure.error)
        except EngineUnavailable:
            self._answer_error(id, method, codes.INTERNAL)
        self.context.node.counters.commands[method].add(perf_counter() - started)

    async def _run_aside(self, id: int, method: str, started: float, waiting: Waiting) -> None:
        """Begin one command, and go on to the next at once; or as soon as one of too many has ended."""
        try:
            while self._aside >= self.context.rules.client.concurrency:
                await own_task()
                if self._room is None:
                    self._room = trio.Event()
                await self._room.wait()
        except trio.Cancelled:
            waiting.close()
            raise
        if self.status is Status.CLOSED:  # it ended in the very moment in which there was room
            waiting.close()
            return
        self._aside += 1
        self.peer.run(self._guarded(self._finish(id, method, started, waiting)))

    async def _guarded(self, work: Waiting) -> None:
        try:
            await work
        except _ENDINGS as error:
            self._end_by(error)
        finally:
            self._aside -= 1
            if self._room is not None:
                self._room.set()
                self._room = None

    def _answer_error(self, id: int, method: str, error: codes.Error) -> None:
        if self.status is Status.CLOSED:
            return
        self.context.node.counters.reply_errors[method, error.code] += 1
        self.reply(self.wire.codec.error(id, error))
        if method == "connect":
            # its client cannot go on: it has the error and a moment to leave
            self.status = Status.UNUSABLE
            self.peer.hang_up()

    def _pong(self) -> None:
        if self.status is not Status.CONNECTED or not self.pings:
            raise codes.Disconnected(codes.BAD_PROTOCOL)  # nobody asked
        self.ponged()

    def ponged(self) -> None:
        """A ping was answered: by a pong command, or by the transport's own pong."""
        if self.pings:  # several of them, where what the client sends was not read for a while
            self.pings -= 1
            took = trio.current_time() - self.pinged_at
            self.context.node.counters.ping_pong[self.peer.transport].add(took)
        self.next_pong = math.inf

    # ---- timers ---------------------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Woken by the wheel for whatever came first: see `Client.arm`."""
        if self.status is not Status.CONNECTED:
            self.disconnect(codes.STALE)
            return
        if now >= self.next_pong and not self.peer.reading:
            self.next_pong = now + 1.0  # a pong that nobody read is not held against the client
        if now >= self.next_pong:
            self.disconnect(codes.CONNECTION_CLOSED if self.peer.native_ping else codes.NO_PONG)
            return
        if now >= self.expires:
            if self.client_side_refresh:
                self.disconnect(codes.CONNECTION_EXPIRED)
                return
            self.expires = math.inf  # until the backend has answered
            self.peer.run(refresh.by_backend(self))
        if now >= self.next_ping:
            self._ping(now)
        if now >= self.next_tick:
            self.next_tick = now + connect.tick_interval(self.context.rules.client)
            self.peer.run(ticks.tick(self))
        if self.status is Status.CONNECTED:
            self.arm()

    def _ping(self, now: float) -> None:
        wire = self.wire
        if not self.peer.native_ping:
            self.outbox.offer(wire.ping)
        elif self.one_way and self.context.rules.client.ping_interval > 0:
            self.outbox.offer(wire.ping + wire.native_ping)  # one for its application, one for an answer
        else:
            self.outbox.offer(wire.native_ping)
        self.next_ping = now + connect.ping_interval(self)
        self.pings += 1
        self.pinged_at = now
        timeout = connect.pong_timeout(self)
        if timeout:
            self.next_pong = min(self.next_pong, now + timeout)  # a new ping gives no more time for the old one

    # ---- what the server does to it -------------------------------------------------------------------------------

    def control(self, command: ControlCommand) -> None:
        """Carry out an API call that concerns this user. While it connects, it can only be ended."""
        if isinstance(command, DisconnectUser):
            self.disconnect(command.why)
        if self.status is not Status.CONNECTED:
            return
        match command:
            case RefreshUser():
                refresh.by_server(self, command)
            case SubscribeUser():
                self.peer.run(server_side.subscribe(self, command))
            case UnsubscribeUser():
                self.peer.run(server_side.unsubscribe(self, command))

    def lost(self, channel: str) -> None:
        """A positioned subscription missed something."""
        sub = self.subs.get(channel)
        if sub is not None:
            self.detach(sub)  # at once: nothing may reach it after the gap
            self.peer.run(server_side.insufficient(self, channel, sub))

    # ---- the end --------------------------------------------------------------------------------------------------

    def peer_gone(self) -> None:
        """The transport ended by itself."""
        if self.status is not Status.CLOSED:
            self.note("client connection completed")
            self.leave_hub(codes.CONNECTION_CLOSED)

    def over(self, why: codes.Disconnect) -> None:
        """The backend is told of every subscription that ends with it, then of its end."""
        for channel, sub in self.subs.items():
            telling.subscription_over(self, channel, sub, codes.BY_DISCONNECT)
        telling.connection_over(self, why)

    async def cleanup(self) -> None:
        """What may wait for a presence store, while the transport is being closed."""
        ended = [*self.subs.items(), *((channel, sub) for channel, (sub, _) in self.leaving.items())]
        self.subs, self.leaving = {}, {}
        waiting: list[Coroutine[Any, Any, None]] = []
        for channel, sub in ended:
            work = subscriptions.forget(self, channel, sub)
            done, _ = begin(work)
            if not done:
                waiting.append(work)
        if waiting:
            await own_task()
            # side by side: a client of many channels must not need as many turns of a slow store
            with trio.move_on_after(_CLEANUP_TIMEOUT):
                async with trio.open_nursery() as nursery:
                    for work in waiting:
                        nursery.start_soon(go_on, work)
