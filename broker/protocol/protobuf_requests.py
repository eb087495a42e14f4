"""Parsed Protobuf requests as the structures that JSON requests become as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec import Raw

from broker.protocol.messages import (
    ConnectRequest,
    FilterNode,
    HistoryRequest,
    PingRequest,
    PresenceRequest,
    PublishRequest,
    RefreshRequest,
    RpcRequest,
    SendRequest,
    StreamPosition,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from broker.protocol.schema import client_pb2 as pb

__all__ = ["REQUESTS"]


def _connect(m: pb.ConnectRequest) -> ConnectRequest:
    return ConnectRequest(
        token=m.token,
        data=Raw(m.data),
        subs={channel: _subscribe(sub) for channel, sub in m.subs.items()},
        name=m.name,
        version=m.version,
        headers=dict(m.headers),
        flag=m.flag,
    )


def _subscribe(m: pb.SubscribeRequest) -> SubscribeRequest:
    return SubscribeRequest(
        channel=m.channel,
        token=m.token,
        recover=m.recover,
        epoch=m.epoch,
        offset=_signed(m.offset),
        data=Raw(m.data),
        positioned=m.positioned,
        recoverable=m.recoverable,
        join_leave=m.join_leave,
        delta=m.delta,
        tf=_filter(m.tf) if m.HasField("tf") else None,
        flag=m.flag,
        type=m.type,
        phase=m.phase,
        cursor=m.cursor,
        limit=m.limit,
        asc=m.asc,
    )


def _filter(m: pb.FilterNode) -> FilterNode:
    return FilterNode(m.op, m.key, m.cmp, m.val, list(m.vals) or None, [_filter(node) for node in m.nodes] or None)


def _history(m: pb.HistoryRequest) -> HistoryRequest:
    since = StreamPosition(_signed(m.since.offset), m.since.epoch) if m.HasField("since") else None
    return HistoryRequest(m.channel, m.limit, since, m.reverse)


def _signed(offset: int) -> int:
    """As for JSON, an offset has 63 bits."""
    if offset >> 63:
        raise ValueError("an offset that no stream can have")
    return offset


REQUESTS: Final[dict[str, Callable[[Any], Any]]] = {
    "connect": _connect,
    "subscribe": _subscribe,
    "unsubscribe": lambda m: UnsubscribeRequest(m.channel),
    "publish": lambda m: PublishRequest(m.channel, Raw(m.data), m.type, m.key, m.removed),
    "presence": lambda m: PresenceRequest(m.channel),
    "presence_stats": lambda m: PresenceRequest(m.channel),
    "history": _history,
    "rpc": lambda m: RpcRequest(Raw(m.data), m.method),
    "send": lambda m: SendRequest(Raw(m.data)),
    "refresh": lambda m: RefreshRequest(m.token),
    "sub_refresh": lambda m: SubRefreshRequest(m.channel, m.token, m.type),
    "ping": lambda m: PingRequest(),
}
"""What makes a structure of a parsed request, by the name of the member of `Command`."""
