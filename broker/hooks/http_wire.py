"""Questions and answers as JSON over HTTP, with the names and the order of Centrifugo's proxies.

Facts: server-side §4.2, §4.3 (https://centrifugal.dev/docs/server/proxy).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Annotated, Any, Final, Generic, TypeAlias, TypeVar

import attrs
import msgspec
from msgspec import Raw, Struct

from broker.channels import Override
from broker.hooks import events as ev
from broker.hooks.hook import HookFailed
from broker.protocol import codes, is_json, respelled

__all__ = ["Decode", "decoder", "request_body"]

R = TypeVar("R")
Decode = Callable[[bytes], R | None]

_encode: Final = msgspec.json.Encoder().encode

# ---- questions ----------------------------------------------------------------------------------------------------

_FIELDS: Final[dict[type, tuple[str, ...]]] = {
    ev.ConnectEvent: ("data", "name", "version", "channels"),
    ev.RefreshEvent: ("user", "meta"),
    ev.SubscribeEvent: ("user", "channel", "meta", "data"),
    ev.PublishEvent: ("user", "channel", "data", "meta"),
    ev.SubRefreshEvent: ("user", "channel", "meta"),
    ev.RpcEvent: ("user", "method", "data", "meta"),
    ev.CacheEmptyEvent: ("channel",),
    ev.DisconnectEvent: ("user", "meta", "code", "reason", "duration_ms", "time_ms"),
    ev.UnsubscribeEvent: ("user", "channel", "meta", "code", "reason", "time_ms"),
    ev.StateEvent: ("node", "events"),
}
_ALWAYS: Final = frozenset({"user", "reason"})
"""Texts that are there even when they are empty, as numbers are when they are 0."""


def request_body(event: object, *, binary: bool, with_meta: bool) -> bytes:
    """The body of the request.

    Args:
        binary: payloads go in base64, as `b64data`.
        with_meta: whether `meta` goes along.

    Raises:
        HookFailed: a payload is not JSON, and goes as if it were.
    """
    out: dict[str, Any] = {}
    if isinstance(event, ev.ClientEvent):
        out["client"] = event.client
        out["transport"] = event.transport
        out["protocol"] = event.protocol
        out["encoding"] = "binary" if binary else "json"
    for name in _FIELDS[type(event)]:
        value = getattr(event, name)
        if name in _ALWAYS or isinstance(value, int):
            out[name] = value
        elif not value or (name == "meta" and not with_meta):
            continue
        elif name == "data" and binary:
            out["b64data"] = base64.b64encode(value).decode("ascii")
        elif isinstance(value, bytes):
            if not is_json(value):
                raise HookFailed(f"the client's {name} is not JSON, and the proxy has no binary_encoding")
            out[name] = Raw(value)
        else:
            out[name] = value
    return _encode(out)


# ---- answers ------------------------------------------------------------------------------------------------------


_Time: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Unix seconds, as Centrifugo can hold them: beyond, it is no answer."""


class _Error(Struct, forbid_unknown_fields=True):
    code: int | None = 0
    message: str | None = ""
    temporary: bool | None = False


class _Disconnect(Struct, forbid_unknown_fields=True):
    code: int | None = 0
    reason: str | None = ""


class _Answer(Struct, Generic[R], forbid_unknown_fields=True):
    result: R | None = None
    error: _Error | None = None
    disconnect: _Disconnect | None = None


class _Bool(Struct, forbid_unknown_fields=True):
    value: bool | None = False


class _Override(Struct, forbid_unknown_fields=True):
    presence: _Bool | None = None
    join_leave: _Bool | None = None
    force_push_join_leave: _Bool | None = None
    force_positioning: _Bool | None = None
    force_recovery: _Bool | None = None


class _Subscribe(Struct, forbid_unknown_fields=True):
    expire_at: _Time | None = 0
    info: Raw = Raw()
    b64info: str | None = ""
    data: Raw = Raw()
    b64data: str | None = ""
    override: _Override | None = None
    cache_recover: bool | None = False


class _Connect(Struct, forbid_unknown_fields=True):
    user: str | None = ""
    expire_at: _Time | None = 0
    info: Raw = Raw()
    b64info: str | None = ""
    data: Raw = Raw()
    b64data: str | None = ""
    channels: list[str] | None = None
    subs: dict[str, _Subscribe | None] | None = None
    meta: Raw = Raw()


class _Refresh(Struct, forbid_unknown_fields=True):
    expired: bool | None = False
    expire_at: _Time | None = 0
    info: Raw = Raw()
    b64info: str | None = ""
    meta: Raw = Raw()


class _Publish(Struct, forbid_unknown_fields=True):
    data: Raw = Raw()
    b64data: str | None = ""
    skip_history: bool | None = False
    tags: dict[str, str] | None = None
    idempotency_key: str | None = ""
    delta: bool | None = False
    version: int | None = 0
    version_epoch: str | None = ""


class _Rpc(Struct, forbid_unknown_fields=True):
    data: Raw = Raw()
    b64data: str | None = ""


class _CacheEmpty(Struct, forbid_unknown_fields=True):
    populated: bool | None = False


class _Noted(Struct):
    """Whatever it holds: nobody asked for more."""


def _payload(raw: Raw, b64: str | None) -> bytes:
    """The base64 twin wins."""
    return _unbase64(b64) if b64 else bytes(raw)


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise HookFailed("the answer holds a malformed base64 text") from None


def _overridden(override: _Override | None) -> Override:
    if override is None:
        return Override()
    return Override(
        **{
            field.name: bool(given.value)
            for field in attrs.fields(Override)
            if (given := getattr(override, field.name)) is not None
        }
    )


def _connect(raw: _Connect) -> ev.ConnectResult:
    return ev.ConnectResult(
        user=raw.user or "",
        expire_at=raw.expire_at or 0,
        info=_payload(raw.info, raw.b64info),
        data=_payload(raw.data, raw.b64data),
        channels=raw.channels or (),
        subs={
            channel: ev.SubscribeOptions(
                info=_payload(sub.info, sub.b64info),
                data=_payload(sub.data, sub.b64data),
                override=_overridden(sub.override),
                cache_recover=bool(sub.cache_recover),
            )
            for channel, sub in (raw.subs or {}).items()
            if sub is not None
        },
        meta=bytes(raw.meta),
    )


def _refresh(raw: _Refresh) -> ev.RefreshResult:
    return ev.RefreshResult(
        expired=bool(raw.expired),
        expire_at=raw.expire_at or 0,
        info=_payload(raw.info, raw.b64info) or None,
        meta=bytes(raw.meta) or None,
    )


def _subscribe(raw: _Subscribe) -> ev.SubscribeResult:
    return ev.SubscribeResult(
        expire_at=raw.expire_at or 0,
        info=_payload(raw.info, raw.b64info),
        data=_payload(raw.data, raw.b64data),
        override=_overridden(raw.override),
    )


def _publish(raw: _Publish) -> ev.PublishResult:
    data: bytes | None = None
    if bytes(raw.data):
        data = bytes(raw.data)  # here it wins over its base64 twin, and JSON null counts
    elif raw.b64data:
        data = _unbase64(raw.b64data)
    version = raw.version or 0
    if not 0 <= version <= 2**64 - 1:
        raise HookFailed(f"the answer holds a version that there is not: {version}")
    return ev.PublishResult(
        data=data,
        skip_history=bool(raw.skip_history),
        tags=raw.tags,
        idempotency_key=raw.idempotency_key or "",
        delta=bool(raw.delta),
        version=version,
        version_epoch=raw.version_epoch or "",
    )


def _sub_refresh(raw: _Refresh) -> ev.SubRefreshResult:
    return ev.SubRefreshResult(
        expired=bool(raw.expired), expire_at=raw.expire_at or 0, info=_payload(raw.info, raw.b64info)
    )


def _rpc(raw: _Rpc) -> ev.RpcResult:
    return ev.RpcResult(data=_payload(raw.data, raw.b64data))


def _cache_empty(raw: _CacheEmpty) -> ev.CacheEmptyResult:
    return ev.CacheEmptyResult(populated=bool(raw.populated))


def _noted(raw: _Noted) -> ev.Noted:
    return ev.Noted()


_RESULTS: Final[dict[type, tuple[type[Struct], Callable[[Any], Any]]]] = {
    ev.ConnectResult: (_Connect, _connect),
    ev.RefreshResult: (_Refresh, _refresh),
    ev.SubscribeResult: (_Subscribe, _subscribe),
    ev.PublishResult: (_Publish, _publish),
    ev.SubRefreshResult: (_Refresh, _sub_refresh),
    ev.RpcResult: (_Rpc, _rpc),
    ev.CacheEmptyResult: (_CacheEmpty, _cache_empty),
    ev.Noted: (_Noted, _noted),
}


def decoder(result: type[R]) -> Decode[R]:
    """Reads answers whose results are of this type: a result, or None where the backend gave none.

    What it returns raises `ClientError` and `Disconnected` for what the backend asks for, disconnect before error
    before result; `HookFailed` for what is no answer.
    """
    raw, build = _RESULTS[result]
    shape = _Answer[raw]  # type: ignore[valid-type]
    read, respell = msgspec.json.Decoder(shape).decode, respelled(shape)

    def decode(body: bytes) -> R | None:
        try:
            try:
                answer = read(body)
            except msgspec.ValidationError:  # Centrifugo takes keys in any case, and passes over those it does not know
                answer = read(respell(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HookFailed(f"the answer is not what it should be: {error}") from None
        if answer.disconnect is not None:
            code, reason = answer.disconnect.code or 0, answer.disconnect.reason or ""
            if not 3000 <= code <= 4999:
                raise HookFailed(f"the backend disconnects with a code that there is not: {code}")
            raise codes.Disconnected(codes.Disconnect(code, reason))
        if answer.error is not None:
            error_code = answer.error.code or 0
            if not 0 <= error_code <= 2**32 - 1:
                raise HookFailed(f"the backend answers with an error code that there is not: {error_code}")
            raise codes.ClientError(codes.Error(error_code, answer.error.message or "", bool(answer.error.temporary)))
        return None if answer.result is None else build(answer.result)

    return decode
