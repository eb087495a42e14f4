"""Parsed Protobuf requests as the structures that JSON requests become as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.message import Message
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
from broker.protocol.tagfilter import MOST_NODES

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


def _given(m: Message) -> dict[str, Any]:
    """The members that are there. A connect may hold thousands of messages in which most are not."""
    return {field.name: value for field, value in m.ListFields()}


def _subscribe(m: pb.SubscribeRequest) -> SubscribeRequest:
    given = _given(m)
    if "offset" in given:
        given["offset"] = _signed(m.offset)
    if "data" in given:
        given["data"] = Raw(m.data)
    if "tf" in given:
        given["tf"] = _filter(m.tf, [MOST_NODES])
    return SubscribeRequest(**given)


def _filter(m: pb.FilterNode, room: list[int]) -> FilterNode:
    """As much of a tree as there is room for: what is too large is refused whether or not the rest is there."""
    given = _given(m)
    if "vals" in given:
        given["vals"] = list(m.vals)
    if "nodes" in given:
        given["nodes"] = nodes = []
        for node in m.nodes:
            if room[0] <= 0:
                break
            room[0] -= 1
            nodes.append(_filter(node, room))
    return FilterNode(**given)


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
