"""Requests and results of the server API, with the names of its JSON form.

Facts: https://centrifugal.dev/docs/server/server_api. Other spellings of these names are seen to by `respelled`.
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


class StreamPosition(Struct, forbid_unknown_fields=True):
    offset: Unsigned = 0
    epoch: Text = ""


class BoolValue(Struct, forbid_unknown_fields=True):
    value: bool | None = False


class PublishRequest(Struct, gc=False, forbid_unknown_fields=True):
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


class BroadcastRequest(Struct, forbid_unknown_fields=True):
    channels: list[str] | None = None
    data: Raw = Raw()
    b64data: Text = ""
    skip_history: bool | None = False
    tags: dict[str, str] | None = None
    idempotency_key: Text = ""
    delta: bool | None = False
    version: Unsigned = 0
    version_epoch: Text = ""


class SubscribeOverride(Struct, forbid_unknown_fields=True):
    presence: BoolValue | None = None
    join_leave: BoolValue | None = None
    force_push_join_leave: BoolValue | None = None
    force_recovery: BoolValue | None = None
    force_positioning: BoolValue | None = None


class SubscribeRequest(Struct, forbid_unknown_fields=True):
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


class UnsubscribeRequest(Struct, forbid_unknown_fields=True):
    user: Text = ""
    channel: Text = ""
    client: Text = ""
    session: Text = ""


class DisconnectCode(Struct, forbid_unknown_fields=True):
    code: Unsigned = 0
    reason: Text = ""


class DisconnectRequest(Struct, forbid_unknown_fields=True):
    user: Text = ""
    client: Text = ""
    session: Text = ""
    whitelist: list[str] | None = None
    disconnect: DisconnectCode | None = None


class RefreshRequest(Struct, forbid_unknown_fields=True):
    user: Text = ""
    client: Text = ""
    session: Text = ""
    expired: bool | None = False
    expire_at: UnixTime = 0
    info: Raw = Raw()


class ChannelRequest(Struct, forbid_unknown_fields=True):
    """presence, presence_stats, history_remove."""

    channel: Text = ""


class HistoryRequest(Struct, forbid_unknown_fields=True):
    channel: Text = ""
    limit: Limit = 0
    since: StreamPosition | None = None
    reverse: bool | None = False


class InfoRequest(Struct, forbid_unknown_fields=True):
    pass


class ChannelsRequest(Struct, forbid_unknown_fields=True):
    pattern: Text = ""


class RpcRequest(Struct, forbid_unknown_fields=True):
    method: Text = ""
    params: Raw = Raw()


class BatchCommand(Struct, gc=False, forbid_unknown_fields=True):
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


class BatchRequest(Struct, forbid_unknown_fields=True):
    commands: list[BatchCommand | None] | None = field(default_factory=list)
    parallel: bool | None = False
