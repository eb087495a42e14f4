"""A client of the broker: connected for as long as its block lasts, again after each break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar, final

import attrs
import msgspec
import trio
from msgspec import Raw

import broker
from broker.client import wire
from broker.client.backoff import DEFAULT_BACKOFF, Backoff
from broker.client.errors import TRANSPORT_CLOSED, ConnectionLost, Disconnected, ReplyError, Unsubscribed
from broker.client.events import History, PresenceStats
from broker.client.link import Link
from broker.client.server_side import OnServerEvent, ServerSide
from broker.client.subscription import GetSubscriptionToken, Subscription, SubscriptionOptions
from broker.protocol import (
    ClientInfo,
    Command,
    ConnectRequest,
    HistoryRequest,
    PresenceRequest,
    PublishRequest,
    RefreshRequest,
    RpcRequest,
    StreamPosition,
    codes,
)

__all__ = ["Client", "ClientOptions", "GetToken"]

T = TypeVar("T")

TOKEN_EXPIRED: Final = codes.TOKEN_EXPIRED.code
CONNECTION_EXPIRED: Final = codes.CONNECTION_EXPIRED.code
STATE_INVALIDATED: Final = codes.STATE_INVALIDATED.code

GetToken = Callable[[], Awaitable[str]]
"""Gives a connection token."""


@final
@attrs.frozen
class ClientOptions:
    """What `connect` says each of them means."""

    token: str
    get_token: GetToken | None
    data: bytes
    name: str
    patience: float
    backoff: Backoff
    on_server_event: OnServerEvent | None


@final
class Client:
    """What `connect` gives.

    Every command waits for a connection if there is none at the moment. All of them raise `ReplyError` for an error
    of the server, `ConnectionLost` when the connection breaks before the reply, `Disconnected` when the client is
    disconnected for good, and `trio.TooSlowError` when there is no connection or no reply in time.
    """

    def __init__(self, open_one: Callable[[], AbstractAsyncContextManager[Link]], options: ClientOptions) -> None:
        self._open = open_one
        self._options = options
        self._token = options.token
        self._scope = trio.CancelScope(shield=True)
        self._leaving = False
        self._opened: Link | None = None
        self._link: Link | None = None
        """The same once the server has accepted us."""
        self._changed = trio.Event()
        self._over: Disconnected | ConnectionLost | None = None
        self._refusal: ReplyError | None = None
        self._subscriptions: dict[str, Subscription] = {}
        self._server_side = ServerSide(options.on_server_event)
        self.settled: Final = trio.Event()
        """Set when the first attempt has succeeded or failed."""
        self.client_id = ""
        """The server's name for the current connection, or the last one."""

    @property
    def connected(self) -> bool:
        return self._link is not None

    @asynccontextmanager
    async def subscribe(
        self,
        channel: str,
        *,
        token: str = "",
        get_token: GetSubscriptionToken | None = None,
        data: Any = b"",
        positioned: bool = False,
        recoverable: bool = False,
        join_leave: bool = False,
        since: StreamPosition | None = None,
        buffer: int = 4096,
        backoff: Backoff = DEFAULT_BACKOFF,
    ) -> AsyncIterator[Subscription]:
        """Subscribe a channel for the length of a block.

        After a break the channel is subscribed again, and, where it keeps history and the server lets us recover,
        what was missed is received first. A `Subscribed` event tells of each.

        Args:
            channel: its name; a client has at most one subscription of a channel.
            token: a subscription token, for channels that need one.
            get_token: gives a token when there is none, when it has expired, or when it is about to.
            data: a payload for the server's subscribe hook.
            positioned: have the server watch that no publication is missed.
            recoverable: have what was missed sent after a break.
            join_leave: tell when clients come and go.
            since: recover from here, a `Subscription.position` kept from an earlier time.
            buffer: how many events may wait to be taken; one more and the subscription is over with `Lagged`.
            backoff: how long to wait before subscribing again after a temporary error.

        Raises:
            Unsubscribed: the server refuses; its `code` is that of the error.
            Disconnected: the client is disconnected for good.
            ValueError: the channel is subscribed already.
        """
        if channel in self._subscriptions:
            raise ValueError(f"channel {channel!r} is subscribed already")
        options = SubscriptionOptions(
            token, get_token, payload(data), positioned, recoverable, join_leave, since, buffer, backoff
        )
        subscription = Subscription(channel, options)
        if (failure := self.failure()) is not None:
            raise failure
        self._subscriptions[channel] = subscription
        try:
            if self._link is not None:
                self._link.nursery.start_soon(subscription.establish, self._link)
            await subscription.settled.wait()
            if subscription.over:
                raise subscription.failure()
            yield subscription
        finally:
            del self._subscriptions[channel]
            with trio.move_on_after(self._options.patience, shield=True):
                await self._unsubscribe(subscription)

    async def publish(self, channel: str, data: Any) -> None:
        """Publish `data`: bytes as they are, anything else as JSON. A JSON connection takes only JSON texts."""
        await self._call(Command(publish=PublishRequest(channel, Raw(payload(data)))), _nothing)

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Who is in a channel: client id -> info."""

        def take(reply: wire.Reply) -> dict[str, ClientInfo]:
            result = reply.presence or wire.Presence()
            return {client: info.public() for client, info in result.presence.items()}

        return await self._call(Command(presence=PresenceRequest(channel)), take)

    async def presence_stats(self, channel: str) -> PresenceStats:
        """How many are in a channel."""

        def take(reply: wire.Reply) -> PresenceStats:
            result = reply.presence_stats or wire.PresenceStats()
            return PresenceStats(result.num_clients, result.num_users)

        return await self._call(Command(presence_stats=PresenceRequest(channel)), take)

    async def history(
        self, channel: str, *, limit: int = 0, since: StreamPosition | None = None, reverse: bool = False
    ) -> History:
        """Publications of a channel, oldest first unless `reverse`.

        Args:
            channel: its name.
            limit: at most so many; 0 asks only for the position, -1 for as many as the server gives at once.
            since: only those after this position (before it, if `reverse`).
            reverse: newest first.
        """

        def take(reply: wire.Reply) -> History:
            result = reply.history or wire.History()
            publications = [publication.public() for publication in result.publications]
            return History(publications, StreamPosition(result.offset, result.epoch))

        return await self._call(Command(history=HistoryRequest(channel, limit, since, reverse)), take)

    async def rpc(self, method: str, data: Any = b"") -> bytes:
        """Call a method of the backend; its answer, as bytes."""

        def take(reply: wire.Reply) -> bytes:
            return bytes(reply.rpc.data) if reply.rpc is not None else b""

        return await self._call(Command(rpc=RpcRequest(Raw(payload(data)), method)), take)

    async def refresh(self, token: str) -> int:
        """Give the server a new connection token, now and for later connections; seconds that it lasts, 0 for ever."""
        self._token = token
        return await self._call(Command(refresh=RefreshRequest(token)), _ttl)

    async def wait_connected(self) -> None:
        """Wait until there is a connection.

        Raises:
            Disconnected: there will be none.
        """
        await self._wait_link()

    async def wait_lost(self) -> None:
        """Wait until there is no connection, for a while or for good."""
        while self._link is not None:
            await self._changed.wait()

    async def wait_disconnected(self) -> Disconnected:
        """Wait until the client is disconnected for good; why."""
        while self._over is None:
            await self._changed.wait()
        return Disconnected(self._over.code, self._over.reason)

    async def _call(self, command: Command, take: Callable[[wire.Reply], T]) -> T:
        with trio.fail_after(self._options.patience):
            link = await self._wait_link()
        return await link.call(command, take)

    async def _wait_link(self) -> Link:
        while self._link is None:
            if (failure := self.failure()) is not None:
                raise failure
            await self._changed.wait()
        return self._link

    async def _unsubscribe(self, subscription: Subscription) -> None:
        """The block of a subscription was left."""
        if not subscription.over:
            subscription.end(Unsubscribed(0, "unsubscribe called"))
            if self._link is not None:
                await subscription.leave(self._link)

    async def stay_connected(self) -> None:
        """Connect, and again after each break, until there is no coming back or the client leaves.

        Shielded until `leave` is called: whoever is cancelled still closes the connection as one should.
        """
        attempt = 0
        with self._scope:
            while True:
                self._refusal = None
                attempt += 1
                try:
                    async with self._open() as self._opened:
                        self._opened.nursery.start_soon(self._introduce, self._opened)
                        try:
                            lost = await self._opened.read(self._on_push)
                        finally:  # no await since the loss: from here on commands wait for the next link
                            attempt = 0 if self._link is not None else attempt
                            self._suspend()
                except ConnectionLost as unreached:
                    lost = unreached
                if (error := self._verdict(lost)) is not None:
                    self._end(error)
                    return
                await trio.sleep(self._options.backoff.delay(attempt))

    def leave(self) -> None:
        """The client's block is over: `stay_connected` ends soon."""
        self._leaving = True
        if self._opened is not None:
            self._opened.drop(ConnectionLost(0, "disconnect called"))
        else:
            self._scope.cancel()

    def failure(self) -> Disconnected | ConnectionLost | None:
        """Why it is over, as an exception of its own for each who is told; None while it is not."""
        return None if self._over is None else type(self._over)(self._over.code, self._over.reason)

    async def _introduce(self, link: Link) -> None:
        """Send connect, then have everything subscribed, then renew the token as long as the link stands."""
        get_token = self._options.get_token
        if not self._token and get_token is not None:
            self._token = await get_token()
        request = ConnectRequest(
            self._token, Raw(self._options.data), self._server_side.recover(), self._options.name, broker.__version__
        )
        try:
            ttl = await link.call(Command(connect=request), lambda reply: self._accept(reply, link))
        except ReplyError as refusal:
            self._refusal = refusal
            link.drop(ConnectionLost(refusal.code, refusal.reason))
        except trio.TooSlowError:
            link.drop(ConnectionLost(TRANSPORT_CLOSED, "no reply to connect"))
        except ConnectionLost:
            return
        else:
            await self._keep_fresh(link, ttl)

    def _accept(self, reply: wire.Reply, link: Link) -> int:
        """The connect reply; seconds until the token has to be renewed, 0 for never."""
        result = reply.connect or wire.Connected()
        self.client_id = result.client
        link.expect_pings(result.ping, answer=result.pong)
        self._server_side.connected(result.subs)
        for subscription in self._subscriptions.values():
            link.nursery.start_soon(subscription.establish, link)
        self._link = link
        self.settled.set()
        self._tell_change()
        return result.ttl if result.expires else 0

    def _on_push(self, push: wire.Push) -> None:
        subscription = self._subscriptions.get(push.channel)
        if subscription is None:
            self._server_side.take(push)
        elif self._link is not None:
            subscription.take(push, self._link)

    def _verdict(self, lost: ConnectionLost) -> Disconnected | ConnectionLost | None:
        """Why not to connect again, if so; drops what the server has called invalid."""
        if self._leaving:
            return Disconnected(0, "disconnect called")
        refusal = self._refusal
        code = lost.code
        if self._options.get_token is not None and code in (TOKEN_EXPIRED, CONNECTION_EXPIRED, STATE_INVALIDATED):
            self._token = ""
        if code == STATE_INVALIDATED:
            self._server_side.forget()
            for subscription in self._subscriptions.values():
                subscription.forget()
        if refusal is not None:
            if code == TOKEN_EXPIRED and self._options.get_token is not None:
                return None
            if not refusal.temporary or not self.settled.is_set():
                return Disconnected(code, lost.reason)
        if lost.terminal:
            return Disconnected(code, lost.reason)
        return None if self.settled.is_set() else lost

    def _suspend(self) -> None:
        """The link is gone."""
        self._link = self._opened = None
        for subscription in self._subscriptions.values():
            subscription.suspend()
        self._tell_change()

    def _end(self, error: Disconnected | ConnectionLost) -> None:
        """No coming back: everybody who waits is told."""
        self._over = error
        for subscription in self._subscriptions.values():
            subscription.end(Disconnected(error.code, error.reason))
        self.settled.set()
        self._tell_change()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _keep_fresh(self, link: Link, ttl: int) -> None:
        """Renew the token whenever it expires; the server gives some grace (client protocol §3.4)."""
        attempt = 0
        while ttl and self._options.get_token is not None:
            await trio.sleep(ttl)
            try:
                self._token = await self._options.get_token()
                ttl = await link.call(Command(refresh=RefreshRequest(self._token)), _ttl)
                attempt = 0
            except ConnectionLost:
                return
            except (ReplyError, trio.TooSlowError) as error:
                if isinstance(error, ReplyError) and not error.temporary:
                    link.drop(ConnectionLost(error.code, error.reason, final=True))
                    return
                ttl = max(round(self._options.backoff.delay(attempt)), 1)
                attempt += 1


def payload(data: Any) -> bytes:
    """Bytes as they are, anything else as JSON."""
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else msgspec.json.encode(data)


def _nothing(_: wire.Reply) -> None:
    return None


def _ttl(reply: wire.Reply) -> int:
    result = reply.refresh or wire.Expiry()
    return result.ttl if result.expires else 0
