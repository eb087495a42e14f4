"""What a backend is asked, and what it can answer: one description of each event, whatever carries it.

Events have the names and fields of Centrifugo's proxies. Payloads (`data`, `info`, `meta`) are bytes: in an event they
are what the client or the token sent; in a result anything else than bytes is encoded as JSON. Times are Unix seconds,
0 for never. Facts: server-side §4.3 (https://centrifugal.dev/docs/server/proxy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, final

import attrs
import msgspec

from broker.channels import Override

__all__ = [
    "CacheEmptyEvent",
    "CacheEmptyResult",
    "ChannelState",
    "ClientEvent",
    "ConnectEvent",
    "ConnectResult",
    "DisconnectEvent",
    "Noted",
    "PublishEvent",
    "PublishResult",
    "RefreshEvent",
    "RefreshResult",
    "RpcEvent",
    "RpcResult",
    "StateEvent",
    "SubRefreshEvent",
    "SubRefreshResult",
    "SubscribeEvent",
    "SubscribeOptions",
    "SubscribeResult",
    "UnsubscribeEvent",
]

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def _payload(value: object) -> bytes:
    """Bytes are what they are, None is nothing, and everything else becomes JSON."""
    if isinstance(value, bytes):
        return value
    return b"" if value is None else msgspec.json.encode(value)


def _optional_payload(value: object) -> bytes | None:
    return None if value is None else _payload(value)


def _unix_seconds(result: object, field: attrs.Attribute[int], value: object) -> None:
    """A float of `time.time()` is what is written by mistake: say so where it is made, not to the client."""
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError(f"{field.name} is an int, of Unix seconds, not {value!r}")


def _version(result: object, field: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or not 0 <= value < 2**64:
        raise ValueError(f"{field.name} is an int from 0 to 2**64 - 1, not {value!r}")


# ---- what is asked ------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ClientEvent:
    """Something a client wants.

    Attributes:
        client: the id of the connection.
        transport: `websocket`, `sse`, `http_stream`, …
        protocol: `json` or `protobuf`.
        user: "" for an anonymous one, and before connect has been answered.
        meta: what the token or the connect hook said that only backends may see; JSON, or nothing.
        headers: of the client's HTTP request, those that a hook named in `http_headers`; names in lower case.
        emulated_headers: those that the client wrote into its connect command, as named in `emulated_headers`. The
            client's own words: nothing about them can be trusted.
        address: the client's IP address, as `http_server.trusted_proxies` has it; empty if nobody knows. For Python
            hooks: Centrifugo's proxies have no such field.
    """

    client: str
    transport: str
    protocol: str
    user: str = ""
    meta: bytes = b""
    headers: Mapping[str, str] = _NONE
    emulated_headers: Mapping[str, str] = _NONE
    address: str = ""


@attrs.frozen(kw_only=True)
class _DataEvent(ClientEvent):
    data: bytes = b""

    def json(self) -> Any:
        """`data` as JSON; None for no data.

        Raises:
            ValueError: it is not JSON.
        """
        return msgspec.json.decode(self.data) if self.data else None


@final
@attrs.frozen(kw_only=True)
class ConnectEvent(_DataEvent):
    """A client without a token connects. `channels` are those that it asks to be subscribed to."""

    name: str = ""
    version: str = ""
    channels: Sequence[str] = ()


@final
@attrs.frozen(kw_only=True)
class RefreshEvent(ClientEvent):
    """A connection is about to expire."""


@final
@attrs.frozen(kw_only=True)
class SubscribeEvent(_DataEvent):
    """A client wants to subscribe, without a token."""

    channel: str


@final
@attrs.frozen(kw_only=True)
class PublishEvent(_DataEvent):
    """A client wants to publish."""

    channel: str


@final
@attrs.frozen(kw_only=True)
class SubRefreshEvent(ClientEvent):
    """A subscription is about to expire."""

    channel: str


@final
@attrs.frozen(kw_only=True)
class RpcEvent(_DataEvent):
    """A client calls a method of the backend."""

    method: str


@final
@attrs.frozen(kw_only=True)
class CacheEmptyEvent:
    """A client wants the latest publication of a channel, and there is none."""

    channel: str


# ---- what has happened --------------------------------------------------------------------------------------------


@final
@attrs.frozen(kw_only=True)
class DisconnectEvent(ClientEvent):
    """A connection whose connect had succeeded is over.

    Attributes:
        code: what it was closed with; 3000 where its client closed it, or was lost.
        reason: the text that belongs to the code.
        duration_ms: from its connect to its end.
        time_ms: when it ended, in Unix milliseconds.
    """

    code: int
    reason: str
    duration_ms: int
    time_ms: int


@final
@attrs.frozen(kw_only=True)
class UnsubscribeEvent(ClientEvent):
    """A subscription is over.

    Attributes:
        code: 0 its client ended it, 1 its connection is over, 2000 and more: the server ended it.
        reason: the text that belongs to the code.
        time_ms: when it ended, in Unix milliseconds.
    """

    channel: str
    code: int
    reason: str
    time_ms: int


@final
@attrs.frozen(kw_only=True)
class ChannelState:
    """Whether anybody is subscribed to a channel on a node.

    Attributes:
        type: `occupied` or `vacated`.
        time_ms: since when, in Unix milliseconds.
        generation: a later state of the channel on the same node has a higher one.
    """

    channel: str
    type: str
    time_ms: int
    generation: int


@final
@attrs.frozen(kw_only=True)
class StateEvent:
    """Channels were occupied or vacated, each of them once in `events`. `node`: the id of the server process."""

    node: str
    events: Sequence[ChannelState]


# ---- what is answered ---------------------------------------------------------------------------------------------


@final
@attrs.frozen(kw_only=True)
class SubscribeOptions:
    """One server-side subscription of a connect result. `override` replaces options of the namespace."""

    info: bytes = attrs.field(default=b"", converter=_payload)
    data: bytes = attrs.field(default=b"", converter=_payload)
    override: Override = attrs.field(factory=Override)
    cache_recover: bool = False
    """The latest publication comes with the subscription, where the namespace recovers from a cache."""


@final
@attrs.frozen(kw_only=True)
class ConnectResult:
    """The client may connect, as `user`.

    Attributes:
        expire_at: when the connection has to be refreshed.
        info: what other clients see of it.
        data: what the client gets with the answer.
        channels: subscribes it to these, with the options of their namespaces.
        subs: the same with options; wins over `channels`.
        meta: what only backends see, in every later event of the connection.
    """

    user: str = ""
    expire_at: int = attrs.field(default=0, validator=_unix_seconds)
    info: bytes = attrs.field(default=b"", converter=_payload)
    data: bytes = attrs.field(default=b"", converter=_payload)
    channels: Sequence[str] = ()
    subs: Mapping[str, SubscribeOptions] = attrs.field(factory=dict)
    meta: bytes = attrs.field(default=b"", converter=_payload)


@final
@attrs.frozen(kw_only=True)
class RefreshResult:
    """The connection lives on until `expire_at`, or has `expired`. None leaves `info` and `meta` as they are."""

    expired: bool = False
    expire_at: int = attrs.field(default=0, validator=_unix_seconds)
    info: bytes | None = attrs.field(default=None, converter=_optional_payload)
    meta: bytes | None = attrs.field(default=None, converter=_optional_payload)


@final
@attrs.frozen(kw_only=True)
class SubscribeResult:
    """The client may subscribe. `info` is what others see of it in the channel, `data` comes with the answer."""

    expire_at: int = attrs.field(default=0, validator=_unix_seconds)
    info: bytes = attrs.field(default=b"", converter=_payload)
    data: bytes = attrs.field(default=b"", converter=_payload)
    override: Override = attrs.field(factory=Override)


@final
@attrs.frozen(kw_only=True)
class PublishResult:
    """The client may publish; `data`, if there is any, goes out instead of the client's."""

    data: bytes | None = attrs.field(default=None, converter=_optional_payload)
    skip_history: bool = False
    tags: Mapping[str, str] | None = None
    idempotency_key: str = ""
    delta: bool = False
    version: int = attrs.field(default=0, validator=_version)
    version_epoch: str = ""


@final
@attrs.frozen(kw_only=True)
class SubRefreshResult:
    """The subscription lives on until `expire_at`, or has `expired`."""

    expired: bool = False
    expire_at: int = attrs.field(default=0, validator=_unix_seconds)
    info: bytes = attrs.field(default=b"", converter=_payload)


@final
@attrs.frozen(kw_only=True)
class RpcResult:
    """What the method gives."""

    data: bytes = attrs.field(default=b"", converter=_payload)


@final
@attrs.frozen(kw_only=True)
class CacheEmptyResult:
    """`populated`: something was published meanwhile, so it is worth another look."""

    populated: bool = False


@final
@attrs.frozen
class Noted:
    """The answer to what has happened: there is nothing to decide any more."""
