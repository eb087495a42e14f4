"""What nodes tell each other, as it travels between them.

Commands are what the server does to connections of a user from outside: `Node.control` carries them out everywhere.
A command names a user and may narrow it to one client or session. The rest is about the nodes themselves: who is
there (`NodeInfo`, `Leaving`), and questions to all of them (`Question`, `Answer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs

from broker.protocol import StreamPosition, codes

__all__ = [
    "Answer",
    "ControlCommand",
    "ControlMessage",
    "DisconnectUser",
    "Leaving",
    "NodeInfo",
    "NodeMetrics",
    "Question",
    "RefreshUser",
    "SubscribeUser",
    "Target",
    "UnsubscribeUser",
]


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


@final
@attrs.frozen
class NodeMetrics:
    """What a node measured in an `interval` (seconds): counters as they grew, gauges as they are."""

    interval: float
    items: Mapping[str, float]


@final
@attrs.frozen
class NodeInfo:
    """What a node tells of itself; `uptime` in seconds. Metrics come once an interval."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int
    metrics: NodeMetrics | None = None


@final
@attrs.frozen
class Leaving:
    """The sender is about to end."""


@final
@attrs.frozen
class Question:
    """Asked of every node, or of one: `op` names who answers, `id` tells the sender's questions apart."""

    id: int
    op: str
    data: bytes = b""


@final
@attrs.frozen
class Answer:
    """The answer to a question of the node it goes to; a `code` other than 0 says why there is none."""

    id: int
    code: int = 0
    data: bytes = b""


ControlMessage = ControlCommand | NodeInfo | Leaving | Question | Answer
