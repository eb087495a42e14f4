"""What travels on the wire, as structures: the same for JSON and Protobuf.

Members have the names of the JSON protocol; a codec (`json_codec`, `protobuf_codec`) turns them into bytes.
Payloads are bytes from the first frame to the last: nothing here ever re-serialises one. What is made by the thousand
is left out of garbage collection: no cycle can go through it. Facts: client protocol §2
(https://centrifugal.dev/docs/transports/client_protocol).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct

__all__ = [
    "ClientInfo",
    "Command",
    "ConnectRequest",
    "ConnectResult",
    "FilterNode",
    "HistoryRequest",
    "PingRequest",
    "PresenceRequest",
    "Publication",
    "PublishRequest",
    "RefreshRequest",
    "RpcRequest",
    "SendRequest",
    "StreamPosition",
    "SubRefreshRequest",
    "SubscribeRequest",
    "SubscribeResult",
    "UnsubscribeRequest",
    "payload",
]

Text = str | None
"""A text of a request; JSON `null` counts as absent."""
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
I64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""64 bits without sign on the wire, one bit less here: no stream gets that far, and engines count in signed numbers."""


def payload(raw: Raw) -> bytes:
    """The bytes of an embedded value; empty for an absent one and for JSON `null`."""
    data = bytes(raw)
    return b"" if data == b"null" else data


class ClientInfo(Struct, gc=False):
    """Who a client is, as other clients see it. `conn_info` and `chan_info` are raw payloads."""

    user: str = ""
    client: str = ""
    conn_info: bytes = b""
    chan_info: bytes = b""


class StreamPosition(Struct, frozen=True, gc=False):
    """A place in a channel's stream: `offset` counts publications from 1 within one `epoch`."""

    offset: Offset = 0
    epoch: str = ""


class Publication(Struct, gc=False):
    """One message of a channel.

    `data` is the publisher's own bytes. `offset` is 0 where the channel has no history. `delta` is true when
    `data` is a patch. `is_json` tells whether `data` is known to be one valid JSON text: None until someone asks.
    """

    data: bytes = b""
    info: ClientInfo | None = None
    offset: int = 0
    tags: dict[str, str] | None = None
    version: int = 0
    delta: bool = False
    is_json: bool | None = None


class FilterNode(Struct):
    """A tags filter: a tree of comparisons (client protocol §6.5)."""

    op: Text = ""
    key: Text = ""
    cmp: Text = ""
    val: Text = ""
    vals: list[str] | None = None
    nodes: list[FilterNode] | None = None


class SubscribeRequest(Struct):
    channel: Text = ""
    token: Text = ""
    recover: bool | None = False
    epoch: Text = ""
    offset: Offset | None = 0
    data: Raw = Raw()
    positioned: bool | None = False
    recoverable: bool | None = False
    join_leave: bool | None = False
    delta: Text = ""
    tf: FilterNode | None = None
    flag: I64 | None = 0
    type: I32 | None = 0
    phase: I32 | None = 0
    cursor: Text = ""
    limit: I32 | None = 0
    asc: bool | None = False


class ConnectRequest(Struct):
    token: Text = ""
    data: Raw = Raw()
    subs: dict[str, SubscribeRequest | None] | None = None
    name: Text = ""
    version: Text = ""
    headers: dict[str, str] | None = None
    flag: I64 | None = 0


class UnsubscribeRequest(Struct):
    channel: Text = ""


class PublishRequest(Struct, gc=False):
    channel: Text = ""
    data: Raw = Raw()
    type: I32 | None = 0
    key: Text = ""
    removed: bool | None = False


class PresenceRequest(Struct):
    channel: Text = ""


class HistoryRequest(Struct):
    channel: Text = ""
    limit: I32 | None = 0
    since: StreamPosition | None = None
    reverse: bool | None = False


class PingRequest(Struct):
    pass


class SendRequest(Struct):
    data: Raw = Raw()


class RpcRequest(Struct, gc=False):
    data: Raw = Raw()
    method: Text = ""


class RefreshRequest(Struct):
    token: Text = ""


class SubRefreshRequest(Struct):
    channel: Text = ""
    token: Text = ""
    type: I32 | None = 0


class Command(Struct, gc=False):
    """One request of a client. Its members are independent: the first present, in the order below, counts."""

    id: U32 | None = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    publish: PublishRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceRequest | None = None
    history: HistoryRequest | None = None
    rpc: RpcRequest | None = None
    send: SendRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None
    ping: PingRequest | None = None


class SubscribeResult(Struct):
    """Answer to a subscribe. With `delta` the publications' data is encoded as client protocol §6.3 says."""

    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: list[Publication] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: bytes = b""
    was_recovering: bool = False
    delta: bool = False


class ConnectResult(Struct):
    """Answer to a connect; `ping` in whole seconds, `time` in Unix milliseconds."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: bytes = b""
    subs: dict[str, SubscribeResult] | None = None
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""
    time: int = 0
