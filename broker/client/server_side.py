"""Channels that the server subscribed a client to: told as they come, recovered after a break."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import final

from broker.client import wire
from broker.client.errors import Unsubscribed
from broker.client.events import Event, Join, Leave, Message, Subscribed
from broker.client.position import Position
from broker.protocol import SubscribeRequest

__all__ = ["OnServerEvent", "ServerSide"]

OnServerEvent = Callable[[str, Event | Message | Unsubscribed], None]
"""Is told channel and event."""


@final
class ServerSide:
    """The server-side subscriptions of one client (client protocol §3.16)."""

    def __init__(self, on_event: OnServerEvent | None) -> None:
        self._on_event = on_event
        self._positions: dict[str, Position] = {}

    def recover(self) -> dict[str, SubscribeRequest | None] | None:
        """The `subs` of a connect request."""
        requests: dict[str, SubscribeRequest | None] = {}
        for channel, position in self._positions.items():
            request = SubscribeRequest()
            position.ask(request)
            if request.recover:
                requests[channel] = request
        return requests or None

    def connected(self, results: Mapping[str, wire.Subscribed]) -> None:
        """The `subs` of a connect reply: what is not among them any more is over."""
        for channel in self._positions.keys() - results.keys():
            del self._positions[channel]
            self._tell(channel, Unsubscribed(0, "not subscribed any more"))
        for channel, result in results.items():
            self._subscribed(channel, result)

    def take(self, push: wire.Push) -> None:
        """A push that is for no subscription of the client's own."""
        channel = push.channel
        if push.message is not None:
            self._tell("", Message(bytes(push.message.data)))
        elif push.subscribe is not None:
            self._subscribed(channel, push.subscribe)
        elif (position := self._positions.get(channel)) is None:
            return  # sent before the server knew that a subscription was given up
        elif push.pub is not None:
            position.advance(push.pub)
            self._tell(channel, push.pub.public())
        elif push.join is not None:
            self._tell(channel, Join(push.join.public()))
        elif push.leave is not None:
            self._tell(channel, Leave(push.leave.public()))
        elif push.unsubscribe is not None:
            del self._positions[channel]
            self._tell(channel, Unsubscribed(push.unsubscribe.code, push.unsubscribe.reason))

    def forget(self) -> None:
        """What the server knows is invalid."""
        for position in self._positions.values():
            position.invalidate()

    def _subscribed(self, channel: str, result: wire.Subscribed) -> None:
        position = self._positions.setdefault(channel, Position())
        position.accept(result)
        self._tell(channel, Subscribed(result.was_recovering, result.recovered, position.public, bytes(result.data)))
        for publication in result.publications:
            position.advance(publication)
            self._tell(channel, publication.public())

    def _tell(self, channel: str, event: Event | Message | Unsubscribed) -> None:
        if self._on_event is not None:
            self._on_event(channel, event)
