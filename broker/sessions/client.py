"""The state of one client, and the few things that every command does with it.

`Session` (session.py) adds the order of commands, the timers and the end; the commands themselves stand in modules
of their own and take a `Client`.
"""

from __future__ import annotations

import enum
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar, Final, final

import structlog
import trio

from broker.eager import Gate
from broker.hub import Channel, ControlCommand, Outbox, Subscription, plain_key
from broker.protocol import ClientInfo, codes
from broker.protocol.wire import Wire
from broker.sessions.context import NO_HEADERS, Context, Peer
from broker.sessions.ids import random_id

__all__ = ["Client", "ClientSubscription", "Status", "Waiting"]

_log = structlog.get_logger("broker.sessions")
_debugging: Final = logging.getLogger("broker.sessions").isEnabledFor

Waiting = Coroutine[Any, Any, None]
"""What is left to do of a command that may have to wait. It answers by itself, or raises `ClientError`."""

_LONGEST_TTL: Final = 365 * 24 * 3600
"""Seconds; beyond, somebody has mistaken milliseconds for seconds, and the wire has 32 bits."""


@final
class Status(enum.Enum):
    NEW = 0  # no connect yet
    CONNECTED = 1
    UNUSABLE = 2  # connect was answered with an error
    CLOSED = 3


@final
class ClientSubscription(Subscription):
    """A subscription from the moment its channel is reserved.

    It stands in `Client.subs` from the first check to the end, and nobody else may take its channel meanwhile:
    whatever finishes late compares `client.subs[channel] is sub` before it commits. `committed` is set when the
    client is told. `presence` and `join_leave` say what others see of it, `joined` whether they were told; `telling` is
    set once they were, where that had to wait. `source` is what allowed it (`broker.channels.Source`). `expire_at` is
    in Unix seconds, 0 for never; `checked_at` is when its position last agreed with the engine (Trio's clock).
    """

    __slots__ = (
        "_settled",
        "channel",
        "checked_at",
        "client_side_refresh",
        "committed",
        "expire_at",
        "info",
        "join_leave",
        "joined",
        "presence",
        "recoverable",
        "server_side",
        "source",
        "telling",
    )

    def __init__(self, client: Client, *, server_side: bool = False) -> None:
        super().__init__(client, plain_key(client.wire), positioned=False)  # type: ignore[arg-type]
        self.channel: Channel | None = None
        self.committed = False
        self.server_side = server_side
        self.presence = self.join_leave = self.joined = self.recoverable = False
        self.client_side_refresh = True
        self.info = b""
        self.expire_at = 0
        self.checked_at = 0.0
        self.source = 0
        self.telling: Gate | None = None
        self._settled: trio.Event | None = None

    def settle(self) -> None:
        """It has committed, or never will: let those go on who wait for that."""
        if self._settled is not None:
            self._settled.set()

    async def wait_settled(self) -> None:
        """Wait until a reservation has become a subscription, or was given up."""
        if self._settled is None:
            self._settled = trio.Event()
        await self._settled.wait()


class Client(ABC):
    """One connected client. `subs` holds subscriptions and reservations by channel; `leaving` those that have ended
    while the engine is still being told, with the event of its end.

    `one_way` clients get no replies, and `emulated` ones send by requests of their own; knowing `session_id` is what
    allows that.

    Times are Trio's clock, `math.inf` for never; `expire_at` is in Unix seconds, 0 for never. `pings` counts those
    that wait for their pong, `pinged_at` is when the last one was sent, `connected_at` when connect succeeded. `slot`
    belongs to the timer wheel. `meta` and `emulated_headers` are for hooks (see `broker.hooks.ClientEvent`).
    """

    __slots__ = (
        "client_id",
        "client_side_refresh",
        "connected_at",
        "context",
        "emulated_headers",
        "expire_at",
        "expires",
        "info",
        "leaving",
        "meta",
        "next_ping",
        "next_pong",
        "next_tick",
        "outbox",
        "peer",
        "pinged_at",
        "pings",
        "session_id",
        "slot",
        "status",
        "subs",
        "user",
        "wire",
    )

    one_way: ClassVar[bool] = False
    emulated: ClassVar[bool] = False

    def __init__(self, peer: Peer, context: Context) -> None:
        self.peer = peer
        self.context = context
        self.wire: Wire = peer.wire
        self.outbox: Outbox = peer.outbox
        self.status = Status.NEW
        self.client_id = random_id()
        self.session_id = random_id() if self.emulated or self.one_way else ""
        self.user = ""
        self.info = self.meta = b""
        self.emulated_headers: Mapping[str, str] = NO_HEADERS
        self.subs: dict[str, ClientSubscription] = {}
        self.leaving: dict[str, tuple[ClientSubscription, Gate]] = {}
        self.expire_at = 0
        self.client_side_refresh = True
        self.connected_at = 0.0
        self.expires = self.next_ping = self.next_pong = self.next_tick = math.inf
        self.pings = 0
        self.pinged_at = 0.0
        self.slot: int | None = None

    # ---- who this is ----------------------------------------------------------------------------------------------

    def admit(self, user: str) -> None:
        """Take this client into the registry."""
        self.user = user
        self.context.node.registry.add(self)

    def client_info(self, channel: str = "") -> ClientInfo:
        """How others see this client, in `channel` if it is subscribed there."""
        sub = self.subs.get(channel) if channel else None
        return ClientInfo(self.user, self.client_id, self.info, sub.info if sub is not None else b"")

    def subscribed(self, channel: str) -> bool:
        """Whether a subscription, not only a reservation, stands."""
        sub = self.subs.get(channel)
        return sub is not None and sub.committed

    def seconds_left(self, expire_at: int) -> int:
        """From now to `expire_at`, both in whole Unix seconds; a year at most."""
        return min(expire_at - int(self.context.wall_clock()), _LONGEST_TTL)

    def set_expiry(self, expire_at: int, *, grace: bool = True) -> int:
        """Let the connection expire at `expire_at` (Unix seconds, 0 for never). Returns the seconds left.

        Without `grace` its time is over then; with it the client has `expired_close_delay` more to refresh it.
        """
        if not expire_at:
            self.expire_at, self.expires = 0, math.inf
            return 0
        left = self.seconds_left(expire_at)
        self.expire_at = expire_at
        delay = self.context.rules.client.expired_close_delay if grace else 0.0
        self.expires = trio.current_time() + left + delay
        return left

    def note(self, what: str, **more: object) -> None:
        """Log a turn of its life, where the log wants it."""
        if _debugging(logging.DEBUG):
            _log.debug(what, transport=self.peer.transport, client=self.client_id, addr=self.peer.address, **more)

    # ---- what is sent ---------------------------------------------------------------------------------------------

    def reply(self, unit: bytes) -> None:
        """Send one encoded reply or push, after everything sent before."""
        self.outbox.offer(self.wire.pack_one(unit))

    def push_unsubscribe(self, channel: str, why: codes.Unsubscribe) -> None:
        """Tell the client that it is no longer subscribed."""
        self.context.node.counters.server_unsubscribes[why.code] += 1
        self.reply(self.wire.codec.push_unsubscribe(channel, why))

    # ---- subscriptions in the hub ---------------------------------------------------------------------------------

    def detach(self, sub: ClientSubscription) -> None:
        """Take `sub` out of its channel, at once; presence is another matter."""
        channel, sub.channel = sub.channel, None
        sub.end()
        sub.settle()
        if channel is not None:
            channel.remove(sub)
            self.context.node.release(channel)

    # ---- timers and the end ---------------------------------------------------------------------------------------

    def arm(self) -> None:
        """Be woken for whatever comes first."""
        self.context.node.timers.arm(self, min(self.next_ping, self.next_pong, self.next_tick, self.expires))

    @abstractmethod
    def on_timer(self, now: float) -> None:
        """The time armed for has come."""

    def crashed(self) -> None:
        """A bug of ours showed while the wheel woke this client: its connection ends, as for any other bug."""
        self.peer.crashed()

    @abstractmethod
    def lost(self, channel: str) -> None:
        """A positioned subscription missed something."""

    def hear(self, data: bytes) -> None:  # noqa: B027 (not abstract: most have nothing to hear)
        """What came by a request of its own is for emulated clients only."""

    @abstractmethod
    def control(self, command: ControlCommand) -> None:
        """Carry out an API call that concerns this user."""

    def disconnect(self, why: codes.Disconnect) -> None:
        """End: out of the hub at once, then the transport; presence follows later."""
        if self.status is Status.CLOSED:
            return
        self.context.node.counters.server_disconnects[why.code] += 1
        self.note("client connection completed", code=why.code, reason=why.reason)
        self.leave_hub(why)
        self.peer.close(why)

    @abstractmethod
    def over(self, why: codes.Disconnect) -> None:
        """This connection, whose connect had succeeded, is out of the hub."""

    def leave_hub(self, why: codes.Disconnect) -> None:
        """Out of the registry, the channels and the timer wheel. Synchronous; call it once."""
        connected = self.status is Status.CONNECTED
        self.status = Status.CLOSED
        node = self.context.node
        node.timers.disarm(self)
        node.registry.remove(self)
        for sub in self.subs.values():
            self.detach(sub)
        if connected:
            self.over(why)
