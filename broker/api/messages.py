"""Requests and results of the server API, with the names of its JSON form.

Facts: https://centrifugal.dev/docs/server/server_api.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Raw, Struct, field

__all__ = [
    "BatchRequest",
    "BoolValue",
    "BroadcastRequest",
    "ChannelRequest",
    "ChannelsRequest",
    "DisconnectRequest",
    "HistoryRequest",
    "InfoRequest",
    "PublishRequest",
    "RefreshRequest",
    "RpcRequest",
    "SubscribeRequest",
    "UnsubscribeRequest",
]


Text = str | None
Unsigned = Annotated[int, Meta(ge=0, le=2**63 - 1)] | None
"""64 bits without sign, one bit less here: no offset or version gets that far, and engines count in signed numbers."""
UnixTime = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None
Limit = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None


class StreamPosition(Struct):
    offset: Unsigned = 0
    epoch: Text = ""


class BoolValue(Struct):
    value: bool | None = False


class PublishRequest(Struct, gc=False):
    """`data` is embedded JSON, kept byte for byte; `b64data` wins over it. An absent `data` is empty, `null` is not."""

    channel: Text = ""
    data: Raw = Raw()
    b64data: Text = ""
    skip_history: bool | None = False
    tags: dict[str, str] | None = None
    idempotency_key: Text = ""
    delta: bool | None = False
    version: Unsigned = 0
    version_epoch: Text = ""


class BroadcastRequest(Struct):
    channels: list[str] | None = None
    data: Raw = Raw()
    b64data: Text = ""
    skip_history: bool | None = False
    tags: dict[str, str] | None = None
    idempotency_key: Text = ""
    delta: bool | None = False
    version: Unsigned = 0
    version_epoch: Text = ""


class SubscribeOverride(Struct):
    presence: BoolValue | None = None
    join_leave: BoolValue | None = None
    force_push_join_leave: BoolValue | None = None
    force_recovery: BoolValue | None = None
    force_positioning: BoolValue | None = None


class SubscribeRequest(Struct):
    user: Text = ""
    channel: Text = ""
    expire_at: UnixTime = 0
    info: Raw = Raw()
    b64info: Text = ""
    client: Text = ""
    session: Text = ""
    data: Raw = Raw()
    b64data: Text = ""
    recover_since: StreamPosition | None = None
    override: SubscribeOverride | None = None


class UnsubscribeRequest(Struct):
    user: Text = ""
    channel: Text = ""
    client: Text = ""
    session: Text = ""


class DisconnectCode(Struct):
    code: Unsigned = 0
    reason: Text = ""


class DisconnectRequest(Struct):
    user: Text = ""
    client: Text = ""
    session: Text = ""
    whitelist: list[str] | None = None
    disconnect: DisconnectCode | None = None


class RefreshRequest(Struct):
    user: Text = ""
    client: Text = ""
    session: Text = ""
    expired: bool | None = False
    expire_at: UnixTime = 0
    info: Raw = Raw()


class ChannelRequest(Struct):
    """presence, presence_stats, history_remove."""

    channel: Text = ""


class HistoryRequest(Struct):
    channel: Text = ""
    limit: Limit = 0
    since: StreamPosition | None = None
    reverse: bool | None = False


class InfoRequest(Struct):
    pass


class ChannelsRequest(Struct):
    pattern: Text = ""


class RpcRequest(Struct):
    method: Text = ""
    params: Raw = Raw()


class BatchCommand(Struct, gc=False):
    """One command: exactly one member, named like its method."""

    publish: PublishRequest | None = None
    broadcast: BroadcastRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    disconnect: DisconnectRequest | None = None
    refresh: RefreshRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    history_remove: ChannelRequest | None = None
    info: InfoRequest | None = None
    channels: ChannelsRequest | None = None
    rpc: RpcRequest | None = None


class BatchRequest(Struct):
    commands: list[BatchCommand | None] | None = field(default_factory=list)
    parallel: bool | None = False
