"""What the server does to connections of a user from outside: the commands, as they travel between nodes.

`Node.control` carries them out. A command names a user and may narrow it to one client or session.
"""

from __future__ import annotations

from typing import final

import attrs

from broker.protocol import StreamPosition, codes

__all__ = ["ControlCommand", "DisconnectUser", "RefreshUser", "SubscribeUser", "Target", "UnsubscribeUser"]


@final
@attrs.frozen
class Target:
    """Connections of `user` (empty: the anonymous ones), narrowed by `client` and `session` where they are given."""

    user: str
    client: str = ""
    session: str = ""


@final
@attrs.frozen
class SubscribeUser:
    """Subscribe the target to `channel` from the server's side."""

    target: Target
    channel: str
    presence: bool = False
    join_leave: bool = False
    push_join_leave: bool = False
    positioned: bool = False
    recoverable: bool = False
    expire_at: int = 0
    info: bytes = b""
    data: bytes = b""
    recover_since: StreamPosition | None = None


@final
@attrs.frozen
class UnsubscribeUser:
    """Unsubscribe the target from `channel`, or from everything where it is empty."""

    target: Target
    channel: str
    why: codes.Unsubscribe = codes.SERVER_UNSUBSCRIBE


@final
@attrs.frozen
class DisconnectUser:
    """Close the target's connections, but for the client ids in `spare`."""

    target: Target
    why: codes.Disconnect = codes.FORCE_DISCONNECT
    spare: frozenset[str] = frozenset()


@final
@attrs.frozen
class RefreshUser:
    """Give the target's connections a new expiry (Unix seconds, 0: none), or let them expire now."""

    target: Target
    expired: bool = False
    expire_at: int = 0
    info: bytes = b""


ControlCommand = SubscribeUser | UnsubscribeUser | DisconnectUser | RefreshUser
