"""The JSON codec: objects separated by line feeds, payloads embedded as they are. Facts: client protocol §1.9, §2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, final

import msgspec
from msgspec import Raw

from broker.protocol.codec import MalformedFrame, NotJson
from broker.protocol.codes import Disconnect, Error, Unsubscribe
from broker.protocol.messages import (
    ClientInfo,
    Command,
    ConnectResult,
    Publication,
    StreamPosition,
    SubscribeResult,
)

__all__ = ["JsonCodec"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Command).decode
_check = msgspec.json.Decoder(Raw).decode
_BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@final
class JsonCodec:
    """Stateless; one is enough."""

    name: Final = "json"
    binary: Final = False
    ping: Final = b"{}"

    def join(self, units: Sequence[bytes]) -> bytes:
        return units[0] if len(units) == 1 else b"\n".join(units)

    # ---- from clients -----------------------------------------------------------------------------------------------

    def commands(self, frame: bytes) -> Iterator[Command]:
        if not frame.isascii():
            try:
                frame.decode()
            except UnicodeDecodeError:
                raise MalformedFrame from None
        start, end = 0, len(frame)
        if end and frame[-1] == 10:
            end -= 1
        while True:
            cut = frame.find(b"\n", start, end)
            line = frame if cut < 0 and not start and end == len(frame) else frame[start : cut if cut >= 0 else end]
            try:
                yield _decode(line)
            except _BROKEN:
                raise MalformedFrame from None
            if cut < 0:
                return
            start = cut + 1

    # ---- replies ----------------------------------------------------------------------------------------------------

    def error(self, id: int, error: Error) -> bytes:
        body: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.temporary:
            body["temporary"] = True
        return _encode({"id": id, "error": body})

    def connect(self, id: int, result: ConnectResult) -> bytes:
        body = _nonzero(result, ("client", "version", "expires", "ttl"))
        if result.data:
            body["data"] = _raw(result.data)
        if result.subs:
            body["subs"] = {channel: _subscribed(sub) for channel, sub in result.subs.items()}
        body |= _nonzero(result, ("ping", "pong", "session", "node", "time"))
        return _encode({"id": id, "connect": body})

    def subscribe(self, id: int, result: SubscribeResult) -> bytes:
        return _encode({"id": id, "subscribe": _subscribed(result)})

    def unsubscribe(self, id: int) -> bytes:
        return b'{"id":%d,"unsubscribe":{}}' % id

    def publish(self, id: int) -> bytes:
        return b'{"id":%d,"publish":{}}' % id

    def presence(self, id: int, clients: dict[str, ClientInfo]) -> bytes:
        return _encode({"id": id, "presence": {"presence": {key: _info(info) for key, info in clients.items()}}})

    def presence_stats(self, id: int, clients: int, users: int) -> bytes:
        return b'{"id":%d,"presence_stats":{"num_clients":%d,"num_users":%d}}' % (id, clients, users)

    def history(self, id: int, publications: Sequence[Publication], top: StreamPosition) -> bytes:
        pubs = [Raw(_publication(pub)) for pub in publications]
        return _encode({"id": id, "history": {"publications": pubs, "epoch": top.epoch, "offset": top.offset}})

    def rpc(self, id: int, data: bytes) -> bytes:
        return _encode({"id": id, "rpc": {"data": _raw(data)} if data else {}})

    def refresh(self, id: int, expires: bool, ttl: int) -> bytes:
        return _encode({"id": id, "refresh": _expiry(expires, ttl)})

    def sub_refresh(self, id: int, expires: bool, ttl: int) -> bytes:
        return _encode({"id": id, "sub_refresh": _expiry(expires, ttl)})

    # ---- pushes -----------------------------------------------------------------------------------------------------

    def push_publication(self, channel: str, pub: Publication, *, escaped: bool = False, epoch: str = "") -> bytes:
        return b'{"push":{"channel":%s,"pub":%s}}' % (_encode(channel), _publication(pub, escaped=escaped, epoch=epoch))

    def push_join(self, channel: str, info: ClientInfo) -> bytes:
        return _encode({"push": {"channel": channel, "join": {"info": _info(info)}}})

    def push_leave(self, channel: str, info: ClientInfo) -> bytes:
        return _encode({"push": {"channel": channel, "leave": {"info": _info(info)}}})

    def push_unsubscribe(self, channel: str, why: Unsubscribe) -> bytes:
        return _encode({"push": {"channel": channel, "unsubscribe": {"code": why.code, "reason": why.reason}}})

    def push_subscribe(self, channel: str, result: SubscribeResult) -> bytes:
        body = _nonzero(result, ("recoverable", "epoch", "offset", "positioned"))
        if result.data:
            body["data"] = _raw(result.data)
        return _encode({"push": {"channel": channel, "subscribe": body}})

    def push_refresh(self, expires: bool, ttl: int) -> bytes:
        return _encode({"push": {"refresh": _expiry(expires, ttl)}})

    def push_disconnect(self, why: Disconnect) -> bytes:
        return _encode({"push": {"disconnect": {"code": why.code, "reason": why.reason}}})


def _nonzero(source: object, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(source, name))}


def _expiry(expires: bool, ttl: int) -> dict[str, Any]:
    return {"expires": True, "ttl": ttl} if expires else {}


def _raw(data: bytes) -> Raw:
    """A payload as it is, but for line feeds, which end a message here."""
    try:
        _check(data)
        data.decode()
    except _BROKEN:
        raise NotJson from None
    return Raw(data.replace(b"\n", b"") if b"\n" in data else data)


def _info(info: ClientInfo) -> dict[str, Any]:
    body: dict[str, Any] = {"user": info.user, "client": info.client}
    if info.conn_info:
        body["conn_info"] = _raw(info.conn_info)
    if info.chan_info:
        body["chan_info"] = _raw(info.chan_info)
    return body


def _publication(pub: Publication, *, escaped: bool = False, epoch: str = "") -> bytes:
    data = pub.data
    parts: list[bytes] = []
    if escaped:
        try:
            parts.append(b'"data":' + _encode(data.decode()))
        except UnicodeDecodeError:
            raise NotJson from None
    elif data:
        if pub.is_json is None:
            try:
                _check(data)
                data.decode()
                pub.is_json = True
            except _BROKEN:
                pub.is_json = False
        if not pub.is_json:
            raise NotJson
        if b"\n" in data:
            data = data.replace(b"\n", b"")
        parts.append(b'"data":' + data)
    if pub.info is not None:
        parts.append(b'"info":' + _encode(_info(pub.info)))
    if pub.offset:
        parts.append(b'"offset":%d' % pub.offset)
    if pub.tags:
        parts.append(b'"tags":' + _encode(pub.tags))
    if pub.delta:
        parts.append(b'"delta":true')
    if epoch:
        parts.append(b'"epoch":' + _encode(epoch))
    if pub.version and not escaped:
        parts.append(b'"version":%d' % pub.version)
    return b"{" + b",".join(parts) + b"}"


def _subscribed(result: SubscribeResult) -> dict[str, Any]:
    body = _nonzero(result, ("expires", "ttl", "recoverable", "epoch"))
    if result.publications:
        body["publications"] = [Raw(_publication(pub, escaped=result.delta)) for pub in result.publications]
    body |= _nonzero(result, ("recovered", "offset", "positioned"))
    if result.data:
        body["data"] = _raw(result.data)
    body |= _nonzero(result, ("was_recovering", "delta"))
    return body
