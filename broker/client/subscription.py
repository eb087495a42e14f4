"""One channel's subscription: it outlives connections, and recovers what was missed between them."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Final, final

import attrs
import trio
from msgspec import Raw

from broker.client import wire
from broker.client.backoff import DEFAULT_BACKOFF, Backoff
from broker.client.errors import (
    SUBSCRIBE_TIMEOUT,
    BrokerError,
    ConnectionLost,
    Disconnected,
    Lagged,
    ReplyError,
    Unsubscribed,
)
from broker.client.events import Event, Join, Leave, Subscribed
from broker.client.link import Link
from broker.client.position import Position
from broker.protocol import (
    Command,
    Publication,
    StreamPosition,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
    codes,
)

__all__ = ["GetSubscriptionToken", "Subscription", "SubscriptionOptions"]

GetSubscriptionToken = Callable[[str], Awaitable[str]]
"""Gives a token for a channel."""


@final
@attrs.frozen
class SubscriptionOptions:
    """What a subscription asks for; `Client.subscribe` says what each means."""

    token: str = ""
    get_token: GetSubscriptionToken | None = None
    data: bytes = b""
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    since: StreamPosition | None = None
    buffer: int = 4096
    backoff: Backoff = DEFAULT_BACKOFF


@final
class Subscription:
    """Iterate over it for publications, or call `next_event` for everything.

    Made by `Client.subscribe`. Both ways take from one queue. When it is over for good, they raise `Unsubscribed`
    (with the server's code), `Disconnected`, or `Lagged`, after the last event that came in before.
    """

    def __init__(self, channel: str, options: SubscriptionOptions) -> None:
        self.channel: Final = channel
        self.settled: Final = trio.Event()
        """Set when the first attempt has succeeded or failed."""
        self._options = options
        self._token = options.token
        self._position = Position.since(options.since)
        self._send, self._receive = trio.open_memory_channel[Event](options.buffer)
        self._subscribed = False
        self._error: BrokerError | None = None
        self._attempt: trio.CancelScope | None = None

    @property
    def position(self) -> StreamPosition | None:
        """The place in the channel's stream up to which this subscription has received; None without positioning."""
        return self._position.public

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Publication:
        while not isinstance(event := await self.next_event(), Publication):
            pass
        return event

    async def next_event(self) -> Event:
        """The next event, in the order in which the server sent them.

        Raises:
            Unsubscribed: the server ended the subscription.
            Disconnected: the client is disconnected for good.
            Lagged: events came faster than they were taken.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise self.failure() from None

    def failure(self) -> BrokerError:
        """Why it is over, as an exception of its own for each who is told."""
        error = self._error
        if isinstance(error, Lagged):
            return Lagged(self._options.buffer)
        if isinstance(error, Disconnected):
            return Disconnected(error.code, error.reason)
        assert error is not None, "asked of a subscription that is not over"
        return Unsubscribed(error.code, error.reason)

    @property
    def over(self) -> bool:
        return self._error is not None

    # What follows is for the client that owns the subscription.

    async def establish(self, link: Link) -> None:
        """Subscribe over `link`, again while the server says it may help; ends with the link."""
        with trio.CancelScope() as self._attempt:
            for attempt in itertools.count():
                try:
                    ttl = await self._ask(link)
                    break
                except ReplyError as error:
                    if error.code == codes.TOKEN_EXPIRED.code and self._options.get_token is not None:
                        self._token = ""
                    elif not error.temporary or not self.settled.is_set():
                        self.end(Unsubscribed(error.code, error.reason))
                        return
                except ConnectionLost:
                    return  # the next link tries again
                except trio.TooSlowError:
                    link.drop(ConnectionLost(SUBSCRIBE_TIMEOUT, "subscribe timeout"))
                    return
                await trio.sleep(self._options.backoff.delay(attempt))
            await self._keep_fresh(link, ttl)

    def suspend(self) -> None:
        """The link is gone, another will come."""
        self._subscribed = False

    def forget(self) -> None:
        """What the server knows is invalid: come back with nothing of it (client protocol §9.4, 13)."""
        self._token = self._options.token if self._options.get_token is None else ""
        self._position.invalidate()

    def end(self, error: BrokerError) -> None:
        """Over for good."""
        if self._error is None:
            self._error = error
            self._subscribed = False
            self._send.close()
            self.settled.set()
            if self._attempt is not None:
                self._attempt.cancel()

    def take(self, push: wire.Push, link: Link) -> None:
        """A push for this channel."""
        if not self._subscribed:
            return  # sent before the server knew that an earlier subscription of the channel was given up
        if push.pub is not None:
            self._position.advance(push.pub)
            self._tell(push.pub.public(), link)
        elif push.join is not None:
            self._tell(Join(push.join.public()), link)
        elif push.leave is not None:
            self._tell(Leave(push.leave.public()), link)
        elif push.unsubscribe is not None:
            self._unsubscribed(push.unsubscribe.code, push.unsubscribe.reason, link)

    def _unsubscribed(self, code: int, reason: str, link: Link) -> None:
        if code < codes.INSUFFICIENT.code:
            self.end(Unsubscribed(code, reason))
            return
        self._subscribed = False
        if code == codes.INVALIDATED_SUBSCRIPTION.code:
            self.forget()
        elif code == codes.EXPIRED_SUBSCRIPTION.code and self._options.get_token is not None:
            self._token = ""
        if self._attempt is not None:
            self._attempt.cancel()
        link.nursery.start_soon(self.establish, link)

    async def _ask(self, link: Link) -> int:
        """One subscribe command; seconds until its token has to be renewed, 0 for never."""
        options = self._options
        if not self._token and options.get_token is not None:
            self._token = await options.get_token(self.channel)
        request = SubscribeRequest(
            self.channel,
            self._token,
            data=Raw(options.data),
            positioned=options.positioned,
            recoverable=options.recoverable,
            join_leave=options.join_leave,
        )
        self._position.ask(request)
        return await link.call(Command(subscribe=request), lambda reply: self._accept(reply, link))

    def _accept(self, reply: wire.Reply, link: Link) -> int:
        result = reply.subscribe or wire.Subscribed()
        self._subscribed = True
        self._position.accept(result)
        self._tell(Subscribed(result.was_recovering, result.recovered, self.position, bytes(result.data)), link)
        for publication in result.publications:
            self._position.advance(publication)
            self._tell(publication.public(), link)
        self.settled.set()
        return result.ttl if result.expires else 0

    def _tell(self, event: Event, link: Link) -> None:
        if self._error is not None:
            return
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.end(Lagged(self._options.buffer))
            link.nursery.start_soon(self.leave, link)

    async def leave(self, link: Link) -> None:
        """Tell the server; it need not answer."""
        try:
            await link.tell(Command(unsubscribe=UnsubscribeRequest(self.channel)))
        except ConnectionLost:
            return

    async def _keep_fresh(self, link: Link, ttl: int) -> None:
        """Renew the token whenever it is about to expire (client protocol §3.12)."""
        attempt = 0
        while ttl and self._options.get_token is not None:
            await trio.sleep(ttl)
            try:
                self._token = await self._options.get_token(self.channel)
                request = SubRefreshRequest(self.channel, self._token)
                ttl = await link.call(Command(sub_refresh=request), _ttl)
                attempt = 0
            except ConnectionLost:
                return
            except (ReplyError, trio.TooSlowError) as error:
                if isinstance(error, ReplyError) and not error.temporary:
                    self.end(Unsubscribed(error.code, error.reason))
                    await self.leave(link)
                    return
                ttl = max(round(self._options.backoff.delay(attempt)), 1)
                attempt += 1


def _ttl(reply: wire.Reply) -> int:
    result = reply.sub_refresh or wire.Expiry()
    return result.ttl if result.expires else 0
