"""Who is connected to this node, and which channels have subscribers here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from broker.hub.channel import Channel
from broker.hub.ports import Subscriber

__all__ = ["Registry"]


@final
class Registry:
    """`clients` by client id, `users` by user id (the empty one holds all anonymous clients), `channels` by name,
    `sessions` by session id, for clients that have one.

    A channel stays for a moment after its last subscriber left, so `channels` may hold some with none.
    """

    __slots__ = ("channels", "clients", "sessions", "users")

    def __init__(self) -> None:
        self.clients: dict[str, Subscriber] = {}
        self.users: dict[str, dict[str, Subscriber]] = {}
        self.sessions: dict[str, Subscriber] = {}
        self.channels: dict[str, Channel] = {}

    def add(self, client: Subscriber) -> None:
        self.clients[client.client_id] = client
        self.users.setdefault(client.user, {})[client.client_id] = client
        if client.session_id:
            self.sessions[client.session_id] = client

    def remove(self, client: Subscriber) -> None:
        """Forget `client`; a no-op if it is not here."""
        if self.clients.pop(client.client_id, None) is None:
            return
        self.sessions.pop(client.session_id, None)
        of_user = self.users[client.user]
        del of_user[client.client_id]
        if not of_user:
            del self.users[client.user]

    def connections(self, user: str) -> int:
        """How many connections `user` has on this node."""
        return len(self.users.get(user, ()))

    def select(self, user: str, client_id: str = "", session_id: str = "") -> Iterator[Subscriber]:
        """The connections of `user`, narrowed by client and session id where they are given."""
        for client in list(self.users.get(user, {}).values()):
            if client_id and client.client_id != client_id:
                continue
            if session_id and client.session_id != session_id:
                continue
            yield client

    @property
    def subscriptions(self) -> int:
        return sum(channel.subscriptions for channel in self.channels.values())

    def live_channels(self) -> Iterator[Channel]:
        """Channels that have a subscriber."""
        return (channel for channel in self.channels.values() if channel.subscriptions)
