"""The server API as Python code in the process sees it: what hooks call, and programs that embed the server.

The same methods with the same rules as over HTTP. Facts: https://centrifugal.dev/docs/server/server_api.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, final

import attrs

from broker.protocol import ClientInfo, Publication, StreamPosition

__all__ = ["ApiError", "ChannelHistory", "ChannelStats", "NodeState", "ServerApi"]


@final
class ApiError(Exception):
    """What the API answers over HTTP as `{"error": {"code", "message"}}`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@final
@attrs.frozen
class ChannelHistory:
    """Publications in the order asked for, and where the stream of the channel stands now."""

    publications: list[Publication]
    position: StreamPosition


@final
@attrs.frozen
class ChannelStats:
    """How many clients and how many different users are in a channel."""

    num_clients: int
    num_users: int


@final
@attrs.frozen
class NodeState:
    """What a node of the cluster tells of itself; `uptime` in seconds."""

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_subs: int
    num_channels: int
    uptime: int


class ServerApi(Protocol):
    """Calls of the server API. Payloads are given as `bytes`, which are passed on as they are, or as any value that
    JSON can hold; they come back as `bytes`.

    Every method raises `ApiError` where the HTTP API would answer with that error.
    """

    async def publish(
        self,
        channel: str,
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
        version: int = 0,
        version_epoch: str = "",
    ) -> StreamPosition:
        """Publish to a channel. Returns where it landed; offset 0 in a channel without history."""
        ...

    async def broadcast(
        self,
        channels: Sequence[str],
        data: Any,
        *,
        tags: Mapping[str, str] | None = None,
        skip_history: bool = False,
        idempotency_key: str = "",
        delta: bool = False,
    ) -> list[StreamPosition | ApiError]:
        """Publish the same to many channels. Each answers for itself, in the order of `channels`."""
        ...

    async def subscribe(
        self,
        user: str,
        channel: str,
        *,
        client: str = "",
        session: str = "",
        expire_at: int = 0,
        info: Any = b"",
        data: Any = b"",
        recover_since: StreamPosition | None = None,
    ) -> None:
        """Subscribe the connections of a user, or one of them, from the server's side."""
        ...

    async def unsubscribe(self, user: str, channel: str = "", *, client: str = "", session: str = "") -> None:
        """Unsubscribe a user from a channel; from all of them, where none is named."""
        ...

    async def disconnect(
        self,
        user: str,
        *,
        client: str = "",
        session: str = "",
        whitelist: Sequence[str] = (),
        code: int = 0,
        reason: str = "",
    ) -> None:
        """Disconnect a user, but for the client ids in `whitelist`. A `code` is from 3000 to 4999; 4500 and above, and
        3500 to 3999, tell clients not to come back."""
        ...

    async def refresh(
        self,
        user: str,
        *,
        client: str = "",
        session: str = "",
        expired: bool = False,
        expire_at: int = 0,
        info: Any = b"",
    ) -> None:
        """Give the connections of a user a new expiry (Unix seconds, 0 for none), or let them expire now."""
        ...

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        """Who is in a channel, by client id."""
        ...

    async def presence_stats(self, channel: str) -> ChannelStats:
        """How many are in a channel."""
        ...

    async def history(
        self, channel: str, *, limit: int = 0, since: StreamPosition | None = None, reverse: bool = False
    ) -> ChannelHistory:
        """Read the history of a channel: `limit` 0 only its position, below 0 all of it; `since` exclusive."""
        ...

    async def history_remove(self, channel: str) -> None:
        """Forget the publications of a channel; its position goes on."""
        ...

    async def channels(self, pattern: str = "") -> dict[str, int]:
        """Channels that have subscribers, with how many; those that match a glob, where one is given."""
        ...

    async def info(self) -> list[NodeState]:
        """All nodes of the cluster."""
        ...
