"""Every method of the server API, once: the carriers (HTTP, later gRPC and queues) only decode and encode.

A method takes its request and returns its result as JSON-ready data (payloads as `msgspec.Raw`), or raises
`ApiError`. Facts: https://centrifugal.dev/docs/server/server_api.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable
from typing import Any, Final, final

import attrs
from msgspec import Raw, Struct

from broker.api import messages as m
from broker.api.failures import EngineFailures
from broker.channels import Kind, Resolved, acceptable
from broker.eager import in_order
from broker.glob import compile_glob
from broker.hooks import ApiError
from broker.hub import (
    DisconnectUser,
    EngineUnavailable,
    HistoryQuery,
    NodeMetrics,
    PublishOptions,
    PublishResult,
    RefreshUser,
    SubscribeUser,
    Target,
    UnrecoverablePosition,
    UnsubscribeUser,
    publish_options,
)
from broker.protocol import ClientInfo, Publication, StreamPosition, codes, is_json
from broker.sessions import Context

__all__ = ["Api", "NotEncodable", "client_info", "error_body"]

INTERNAL: Final = (100, "internal server error")
UNKNOWN_CHANNEL: Final = (102, "unknown channel")
NOT_FOUND: Final = (104, "not found")
BAD_REQUEST: Final = (107, "bad request")
NOT_AVAILABLE: Final = (108, "not available")
UNRECOVERABLE: Final = (112, "unrecoverable position")

Result = dict[str, Any]
ToPublish = tuple[str, Publication, PublishOptions]
"""A publication with its channel, and how it is made."""


class NotEncodable(Exception):
    """A result holds a payload that is not JSON."""


@final
class Api:
    """The methods, over one server's context."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.node = self._node = context.node
        self._engine_failures = EngineFailures()
        self.methods: dict[str, tuple[type[Struct], Callable[[Any], Awaitable[Result]]]] = {
            "publish": (m.PublishRequest, self.publish),
            "broadcast": (m.BroadcastRequest, self.broadcast),
            "subscribe": (m.SubscribeRequest, self.subscribe),
            "unsubscribe": (m.UnsubscribeRequest, self.unsubscribe),
            "disconnect": (m.DisconnectRequest, self.disconnect),
            "refresh": (m.RefreshRequest, self.refresh),
            "presence": (m.ChannelRequest, self.presence),
            "presence_stats": (m.ChannelRequest, self.presence_stats),
            "history": (m.HistoryRequest, self.history),
            "history_remove": (m.ChannelRequest, self.history_remove),
            "info": (m.InfoRequest, self.info),
            "channels": (m.ChannelsRequest, self.channels),
            "rpc": (m.RpcRequest, self.rpc),
        }

    async def call(self, protocol: str, method: str, request: Struct) -> Result:
        """Run one method; whatever goes wrong is an `ApiError`, counted."""
        try:
            return await self.methods[method][1](request)
        except (ApiError, EngineUnavailable) as error:
            raise self.failed(protocol, method, error) from error

    def failed(self, protocol: str, method: str, error: ApiError | EngineUnavailable) -> ApiError:
        """Count what went wrong, and give what the caller may know of it."""
        if isinstance(error, EngineUnavailable):
            self._engine_failures.add(method, error)
            error = ApiError(*INTERNAL)
        self._node.counters.api_errors[protocol, method, str(error.code)] += 1
        return error

    # ---- publications ---------------------------------------------------------------------------------------------

    async def publish(self, request: m.PublishRequest) -> Result:
        result = await self._published(*self.publication(request))
        return _landed(result)

    def publication(self, request: m.PublishRequest) -> ToPublish:
        """What `publish` publishes, for carriers that do so without a coroutine."""
        channel = request.channel
        if not channel:
            raise ApiError(*BAD_REQUEST)
        resolved = self._context.rules.channels.resolve(channel)
        if resolved is None:
            raise ApiError(*UNKNOWN_CHANNEL)
        if resolved.kind != Kind.STREAM:
            raise ApiError(*BAD_REQUEST)
        return _to_publish(channel, resolved, request, _publication_data(request))

    async def _published(self, channel: str, pub: Publication, how: PublishOptions) -> PublishResult:
        result = self._node.publish_nowait(channel, pub, how)
        return await self._node.publish(channel, pub, how) if result is None else result

    async def broadcast(self, request: m.BroadcastRequest) -> Result:
        """One publication to many channels; each answers for itself."""
        if not request.channels:
            raise ApiError(*BAD_REQUEST)
        data = _publication_data(request)
        responses: list[Result] = []
        for at, channel in enumerate(request.channels):
            try:
                result = self._node.publish_in_turn(*self._to_broadcast(channel, request, data))
            except ApiError as error:
                responses.append(error_body(error))
                continue
            if result is None:  # an engine that has to be asked is asked for all of them at once
                rest = (self._publish_to(channel, request, data) for channel in request.channels[at:])
                responses += await in_order(rest)
                break
            responses.append({"result": _landed(result)})
        return {"responses": responses}

    def _to_broadcast(self, channel: str, request: m.BroadcastRequest, data: tuple[bytes, bool]) -> ToPublish:
        if not channel:
            raise ApiError(*BAD_REQUEST)
        return _to_publish(channel, self._resolve(channel), request, data)

    async def _publish_to(self, channel: str, request: m.BroadcastRequest, data: tuple[bytes, bool]) -> Result:
        try:
            return {"result": _landed(await self._node.publish(*self._to_broadcast(channel, request, data)))}
        except ApiError as error:
            return error_body(error)
        except EngineUnavailable:
            return error_body(ApiError(*INTERNAL))

    # ---- what the server does to connections ----------------------------------------------------------------------

    async def subscribe(self, request: m.SubscribeRequest) -> Result:
        channel = request.channel
        if not channel:
            raise ApiError(*BAD_REQUEST)
        options = self._resolve(channel).options
        over = request.override or m.SubscribeOverride()
        since = request.recover_since
        await self._node.control(
            SubscribeUser(
                _target(request),
                channel,
                presence=_overridden(over.presence, options.presence),
                join_leave=_overridden(over.join_leave, options.join_leave),
                push_join_leave=_overridden(over.force_push_join_leave, options.force_push_join_leave),
                positioned=_overridden(over.force_positioning, options.force_positioning),
                recoverable=_overridden(over.force_recovery, options.force_recovery),
                expire_at=max(request.expire_at or 0, 0),
                info=_base64(request.b64info) if request.b64info else bytes(request.info),
                data=_base64(request.b64data) if request.b64data else bytes(request.data),
                recover_since=StreamPosition(since.offset or 0, since.epoch or "") if since is not None else None,
            )
        )
        return {}

    async def unsubscribe(self, request: m.UnsubscribeRequest) -> Result:
        if request.channel:
            self._resolve(request.channel)
        await self._node.control(UnsubscribeUser(_target(request), request.channel or ""))
        return {}

    async def disconnect(self, request: m.DisconnectRequest) -> Result:
        why = codes.FORCE_DISCONNECT
        if request.disconnect is not None:
            why = codes.Disconnect(request.disconnect.code or 0, request.disconnect.reason or "")
            if not 3000 <= why.code <= 4999:
                raise ApiError(*BAD_REQUEST)  # nothing a WebSocket could close with
        await self._node.control(DisconnectUser(_target(request), why, frozenset(request.whitelist or ())))
        return {}

    async def refresh(self, request: m.RefreshRequest) -> Result:
        await self._node.control(
            RefreshUser(_target(request), bool(request.expired), max(request.expire_at or 0, 0), bytes(request.info))
        )
        return {}

    # ---- questions ------------------------------------------------------------------------------------------------

    async def presence(self, request: m.ChannelRequest) -> Result:
        channel = self._with_presence(request)
        clients = await self._node.presence(channel)
        return {"presence": {client: client_info(info) for client, info in clients.items()}}

    async def presence_stats(self, request: m.ChannelRequest) -> Result:
        stats = await self._node.presence_stats(self._with_presence(request))
        return {"num_clients": stats.clients, "num_users": stats.users}

    async def history(self, request: m.HistoryRequest) -> Result:
        channel = request.channel
        resolved = self._with_history(channel)
        since = request.since
        if request.reverse and since is not None and not since.offset:
            raise ApiError(*BAD_REQUEST)
        query = HistoryQuery(
            limit=request.limit or 0,
            since=StreamPosition(since.offset or 0, since.epoch or "") if since is not None else None,
            reverse=bool(request.reverse),
        )
        assert channel is not None
        try:
            page = await self._node.history(channel, query, resolved.history_meta_ttl)
        except UnrecoverablePosition:
            raise ApiError(*UNRECOVERABLE) from None
        return {
            "publications": [_publication(pub) for pub in page.publications],
            "epoch": page.top.epoch,
            "offset": page.top.offset,
        }

    async def history_remove(self, request: m.ChannelRequest) -> Result:
        self._with_history(request.channel)
        assert request.channel is not None
        await self._node.remove_history(request.channel)
        return {}

    async def info(self, request: m.InfoRequest) -> Result:
        return {
            "nodes": [
                {
                    "uid": node.uid,
                    "name": node.name,
                    "version": node.version,
                    "num_clients": node.num_clients,
                    "num_users": node.num_users,
                    "num_channels": node.num_channels,
                    "uptime": node.uptime,
                    "num_subs": node.num_subs,
                    **_node_metrics(node.metrics),
                }
                for node in self._node.cluster.nodes()
            ]
        }

    async def channels(self, request: m.ChannelsRequest) -> Result:
        pattern = request.pattern or ""
        try:
            compile_glob(pattern)
        except ValueError:
            raise ApiError(*BAD_REQUEST) from None
        channels = await self._node.channels(pattern)
        return {"channels": {name: {"num_clients": count} for name, count in channels.items()}}

    async def rpc(self, request: m.RpcRequest) -> Result:
        """The server has no RPC extensions of its own."""
        raise ApiError(*(NOT_FOUND if request.method else BAD_REQUEST))

    # ---- rules of channels ----------------------------------------------------------------------------------------

    def _resolve(self, channel: str) -> Resolved:
        resolved = self._context.rules.channels.resolve(channel)
        if resolved is None:
            raise ApiError(*UNKNOWN_CHANNEL)
        return resolved

    def _with_presence(self, request: m.ChannelRequest) -> str:
        if not request.channel:
            raise ApiError(*BAD_REQUEST)
        if not self._resolve(request.channel).options.presence:
            raise ApiError(*NOT_AVAILABLE)
        return request.channel

    def _with_history(self, channel: str | None) -> Resolved:
        if not channel:
            raise ApiError(*BAD_REQUEST)
        resolved = self._resolve(channel)
        if not resolved.keeps_history:
            raise ApiError(*NOT_AVAILABLE)
        return resolved


def _node_metrics(metrics: NodeMetrics | None) -> Result:
    if metrics is None:
        return {}
    return {"metrics": {"interval": metrics.interval, "items": dict(metrics.items)}}


def _to_publish(
    channel: str,
    resolved: Resolved,
    request: m.PublishRequest | m.BroadcastRequest,
    payload: tuple[bytes, bool],
) -> ToPublish:
    options = resolved.options
    data, known_json = payload
    if (options.publication_data_format or not data) and not acceptable(
        data, options.publication_data_format, known_json
    ):
        raise ApiError(*BAD_REQUEST)
    how = publish_options(
        0 if request.skip_history else options.history_size,
        options.history_ttl,
        options.history_meta_ttl,
        bool(request.delta) or options.delta_publish,
    )
    if request.idempotency_key or request.version:
        how = attrs.evolve(
            how,
            idempotency_key=request.idempotency_key or "",
            version=request.version or 0,
            version_epoch=request.version_epoch or "",
        )
    return channel, Publication(data, tags=request.tags or None, is_json=known_json or None), how


def _landed(result: PublishResult) -> Result:
    position = result.position
    return {"offset": position.offset, "epoch": position.epoch} if position.offset else {}


def error_body(error: ApiError) -> Result:
    """The wire form of an error."""
    return {"error": {"code": error.code, "message": error.message}}


def client_info(info: ClientInfo) -> Result:
    """The wire form of a client; `user` and `client` are always there."""
    out: Result = {"user": info.user, "client": info.client}
    if info.conn_info:
        out["conn_info"] = _json(info.conn_info)
    if info.chan_info:
        out["chan_info"] = _json(info.chan_info)
    return out


def _json(data: bytes, *, known: bool = False) -> Raw:
    if not known and not is_json(data):
        raise NotEncodable
    return Raw(data)


def _publication(pub: Publication) -> Result:
    out: Result = {}
    if pub.data:
        out["data"] = _json(pub.data, known=pub.is_json is True)
    if pub.info is not None:
        out["info"] = client_info(pub.info)
    if pub.offset:
        out["offset"] = pub.offset
    if pub.tags:
        out["tags"] = pub.tags
    return out


def _publication_data(request: m.PublishRequest | m.BroadcastRequest) -> tuple[bytes, bool]:
    """The payload, and whether it is known to be JSON."""
    if request.b64data:
        return _base64(request.b64data), False
    data = bytes(request.data)
    return data, bool(data)


def _target(
    request: m.SubscribeRequest | m.UnsubscribeRequest | m.DisconnectRequest | m.RefreshRequest,
) -> Target:
    return Target(request.user or "", request.client or "", request.session or "")


def _overridden(value: m.BoolValue | None, default: bool) -> bool:
    return default if value is None else bool(value.value)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(*BAD_REQUEST) from None
