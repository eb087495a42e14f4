"""The server API for Python code in the same process: what hooks get, and programs that embed the server.

The same methods with the same rules as over HTTP, without a request in between. Facts:
https://centrifugal.dev/docs/server/server_api.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, final

import attrs
import msgspec
from msgspec import Raw, Struct

from broker.api import messages as m
from broker.api.methods import BAD_REQUEST, Api, Result
from broker.hooks import ApiError, ChannelHistory, ChannelStats, NodeState, ServerApi
from broker.protocol import ClientInfo, Publication, StreamPosition, is_json

__all__ = ["ServerHandle"]

_PROTOCOL = "python"
"""What metrics call this carrier."""


@final
class ServerHandle(ServerApi):
    """`ServerApi`, which tells what each method does, made of `Api`."""

    def __init__(self, api: Api) -> None:
        self._api = api

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
        result = await self._call(
            "publish",
            m.PublishRequest(
                channel=channel,
                **_data(data),
                tags=dict(tags) if tags else None,
                skip_history=skip_history,
                idempotency_key=idempotency_key,
                delta=delta,
                version=version,
                version_epoch=version_epoch,
            ),
        )
        return _position(result)

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
        result = await self._call(
            "broadcast",
            m.BroadcastRequest(
                channels=list(channels),
                **_data(data),
                tags=dict(tags) if tags else None,
                skip_history=skip_history,
                idempotency_key=idempotency_key,
                delta=delta,
            ),
        )
        return [
            ApiError(**each["error"]) if "error" in each else _position(each["result"]) for each in result["responses"]
        ]

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
        since = m.StreamPosition(recover_since.offset, recover_since.epoch) if recover_since is not None else None
        await self._call(
            "subscribe",
            m.SubscribeRequest(
                user=user,
                channel=channel,
                client=client,
                session=session,
                expire_at=expire_at,
                info=_payload(info),
                **_data(data),
                recover_since=since,
            ),
        )

    async def unsubscribe(self, user: str, channel: str = "", *, client: str = "", session: str = "") -> None:
        await self._call(
            "unsubscribe", m.UnsubscribeRequest(user=user, channel=channel, client=client, session=session)
        )

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
        await self._call(
            "disconnect",
            m.DisconnectRequest(
                user=user,
                client=client,
                session=session,
                whitelist=list(whitelist) or None,
                disconnect=m.DisconnectCode(code, reason) if code else None,
            ),
        )

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
        await self._call(
            "refresh",
            m.RefreshRequest(
                user=user, client=client, session=session, expired=expired, expire_at=expire_at, info=_payload(info)
            ),
        )

    async def presence(self, channel: str) -> dict[str, ClientInfo]:
        result = await self._call("presence", m.ChannelRequest(channel))
        return {client: _info(info) for client, info in result["presence"].items()}

    async def presence_stats(self, channel: str) -> ChannelStats:
        return ChannelStats(**await self._call("presence_stats", m.ChannelRequest(channel)))

    async def history(
        self, channel: str, *, limit: int = 0, since: StreamPosition | None = None, reverse: bool = False
    ) -> ChannelHistory:
        result = await self._call(
            "history",
            m.HistoryRequest(
                channel, limit, m.StreamPosition(since.offset, since.epoch) if since is not None else None, reverse
            ),
        )
        return ChannelHistory([_publication(each) for each in result["publications"]], _position(result))

    async def history_remove(self, channel: str) -> None:
        await self._call("history_remove", m.ChannelRequest(channel))

    async def channels(self, pattern: str = "") -> dict[str, int]:
        result = await self._call("channels", m.ChannelsRequest(pattern))
        return {channel: each["num_clients"] for channel, each in result["channels"].items()}

    async def info(self) -> list[NodeState]:
        result = await self._call("info", m.InfoRequest())
        names = [field.name for field in attrs.fields(NodeState)]
        return [NodeState(**{name: node[name] for name in names}) for node in result["nodes"]]

    async def _call(self, method: str, request: Struct) -> Result:
        return await self._api.call(_PROTOCOL, method, request)


def _payload(value: Any) -> Raw:
    """A payload that has to be JSON."""
    if not isinstance(value, bytes):
        return Raw(msgspec.json.encode(value))
    if value and not is_json(value):
        raise ApiError(*BAD_REQUEST)
    return Raw(value)


def _data(value: Any) -> dict[str, Any]:
    """A payload that may be anything: bytes that are no JSON take the member for those."""
    if isinstance(value, bytes) and value and not is_json(value):
        return {"b64data": base64.b64encode(value).decode()}
    return {"data": _payload(value)}


def _position(result: Result) -> StreamPosition:
    return StreamPosition(result.get("offset", 0), result.get("epoch", ""))


def _info(info: Result) -> ClientInfo:
    return ClientInfo(
        info["user"], info["client"], bytes(info.get("conn_info", Raw())), bytes(info.get("chan_info", Raw()))
    )


def _publication(pub: Result) -> Publication:
    info = pub.get("info")
    return Publication(
        data=bytes(pub.get("data", Raw())),
        info=_info(info) if info is not None else None,
        offset=pub.get("offset", 0),
        tags=pub.get("tags"),
    )
