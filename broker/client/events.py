"""What a subscription tells, besides publications."""

from __future__ import annotations

from typing import final

import attrs

from broker.protocol import ClientInfo, Publication, StreamPosition

__all__ = ["Event", "History", "Join", "Leave", "Message", "PresenceStats", "Subscribed"]


@final
@attrs.frozen
class Subscribed:
    """The server has (again) subscribed the channel.

    After a break, `was_recovering` is true, and `recovered` says whether what was missed follows; if it is false,
    publications were lost. `position` is that of the stream, where the channel has one. `data` is a payload of the
    backend.
    """

    was_recovering: bool = False
    recovered: bool = False
    position: StreamPosition | None = None
    data: bytes = b""


@final
@attrs.frozen
class Join:
    """A client has subscribed the channel."""

    info: ClientInfo


@final
@attrs.frozen
class Leave:
    """A client has left the channel."""

    info: ClientInfo


@final
@attrs.frozen
class Message:
    """The backend sent `data` to this connection, outside of any channel."""

    data: bytes


Event = Publication | Subscribed | Join | Leave


@final
@attrs.frozen
class PresenceStats:
    """How many clients and users are in a channel."""

    num_clients: int
    num_users: int


@final
@attrs.frozen
class History:
    """A part of a channel's stream, and where the stream stands now."""

    publications: list[Publication]
    position: StreamPosition
