"""The JSON codec: objects separated by line feeds, payloads embedded as they are. Facts: client protocol §1.9, §2.

Writing is by hand where it is hot: a push is a few joins around the payload's own bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from broker.protocol.codec import MalformedFrame, NotJson
from broker.protocol.codes import Disconnect, Error, Unsubscribe
from broker.protocol.json_text import BrokenJson, is_json, read_json
from broker.protocol.messages import (
    ClientInfo,
    Command,
    ConnectResult,
    Publication,
    StreamPosition,
    SubscribeResult,
)

__all__ = ["JsonCodec"]

_encode: Final = msgspec.json.Encoder().encode
_LF: Final = 10
"""Bytes find a number four times as fast as a byte of length one."""
_decode: Final = msgspec.json.Decoder(Command).decode
_UNREAD: Final = (msgspec.DecodeError, RecursionError)


_NOTHING_TO_TELL: Final = SubscribeResult()


class _Connected(Struct, omit_defaults=True):
    """A `ConnectResult` as it is written."""

    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0
    ping: int = 0
    pong: bool = False
    session: str = ""
    node: str = ""
    time: int = 0
    data: Raw | None = None
    subs: dict[str, Any] | None = None


class JsonCodec:
    """Stateless; one is enough."""

    name: Final = "json"
    binary: Final = False
    ping: Final = b"{}"

    def join(self, units: Sequence[bytes]) -> bytes:
        return units[0] if len(units) == 1 else b"\n".join(units)

    # ---- from clients -----------------------------------------------------------------------------------------------

    def commands(self, frame: bytes) -> Iterator[Command]:
        if _LF in frame:
            return _lines(frame)
        return iter((_command(frame),))

    # ---- replies ----------------------------------------------------------------------------------------------------

    def error(self, id: int, error: Error) -> bytes:
        return _encode({"id": id, "error": _nonzero(error, "code", "message", "temporary")})

    def connect(self, id: int, result: ConnectResult) -> bytes:
        body = _Connected(
            result.client,
            result.version,
            result.expires,
            result.ttl,
            result.ping,
            result.pong,
            result.session,
            result.node,
            result.time,
        )
        if result.data:
            body.data = Raw(_embedded(result.data))
        if result.subs:
            body.subs = {channel: _subscribed(sub) for channel, sub in result.subs.items()}
        return b'{"id":%d,"connect":%b}' % (id, _encode(body))

    def subscribe(self, id: int, result: SubscribeResult) -> bytes:
        if result == _NOTHING_TO_TELL:
            return b'{"id":%d,"subscribe":{}}' % id
        return b'{"id":%d,"subscribe":%b}' % (id, _encode(_subscribed(result)))

    def unsubscribe(self, id: int) -> bytes:
        return b'{"id":%d,"unsubscribe":{}}' % id

    def publish(self, id: int) -> bytes:
        return b'{"id":%d,"publish":{}}' % id

    def presence(self, id: int, clients: dict[str, ClientInfo]) -> bytes:
        return _encode({"id": id, "presence": {"presence": {key: Raw(_info(info)) for key, info in clients.items()}}})

    def presence_stats(self, id: int, clients: int, users: int) -> bytes:
        return b'{"id":%d,"presence_stats":{"num_clients":%d,"num_users":%d}}' % (id, clients, users)

    def history(self, id: int, publications: Sequence[Publication], top: StreamPosition) -> bytes:
        pubs = [Raw(b"{%b}" % _publication(pub)) for pub in publications]
        return _encode({"id": id, "history": {"publications": pubs, "epoch": top.epoch, "offset": top.offset}})

    def rpc(self, id: int, data: bytes) -> bytes:
        return b'{"id":%d,"rpc":{"data":%b}}' % (id, _embedded(data)) if data else b'{"id":%d,"rpc":{}}' % id

    def refresh(self, id: int, expires: bool, ttl: int) -> bytes:
        return _encode({"id": id, "refresh": _expiry(expires, ttl)})

    def sub_refresh(self, id: int, expires: bool, ttl: int) -> bytes:
        return _encode({"id": id, "sub_refresh": _expiry(expires, ttl)})

    # ---- pushes -----------------------------------------------------------------------------------------------------

    def push_publication(self, channel: str, pub: Publication, *, escaped: bool = False, epoch: str = "") -> bytes:
        return b'{"push":{"channel":%b,"pub":{%b}}}' % (_encode(channel), _publication(pub, escaped, epoch))

    def push_join(self, channel: str, info: ClientInfo) -> bytes:
        return b'{"push":{"channel":%b,"join":{"info":%b}}}' % (_encode(channel), _info(info))

    def push_leave(self, channel: str, info: ClientInfo) -> bytes:
        return b'{"push":{"channel":%b,"leave":{"info":%b}}}' % (_encode(channel), _info(info))

    def push_unsubscribe(self, channel: str, why: Unsubscribe) -> bytes:
        return _encode({"push": {"channel": channel, "unsubscribe": _nonzero(why, "code", "reason")}})

    def push_subscribe(self, channel: str, result: SubscribeResult) -> bytes:
        body = _nonzero(result, "recoverable", "epoch", "offset", "positioned")
        if result.data:
            body["data"] = Raw(_embedded(result.data))
        return _encode({"push": {"channel": channel, "subscribe": body}})

    def push_refresh(self, expires: bool, ttl: int) -> bytes:
        return _encode({"push": {"refresh": _expiry(expires, ttl)}})

    def push_disconnect(self, why: Disconnect) -> bytes:
        return _encode({"push": {"disconnect": _nonzero(why, "code", "reason")}})


# ---- commands -------------------------------------------------------------------------------------------------------


def _command(text: bytes) -> Command:
    try:
        if text.isascii():
            return _decode(text)
    except _UNREAD:
        pass  # perhaps it can be read all the same
    try:
        return read_json(text, _decode)
    except BrokenJson:
        raise MalformedFrame from None


def _lines(frame: bytes) -> Iterator[Command]:
    """One after another, so that a frame of line feeds alone costs no more than its first line."""
    end = len(frame) - frame.endswith(b"\n")
    start = 0
    while (cut := frame.find(b"\n", start, end)) >= 0:
        yield _command(frame[start:cut])
        start = cut + 1
    yield _command(frame[start:end])


# ---- pieces of replies and pushes -----------------------------------------------------------------------------------


def _embedded(data: bytes) -> bytes:
    """A payload as it is, but for line feeds: they are white space in JSON, and end a message here.

    Raises:
        NotJson: it is not one JSON text.
    """
    if not is_json(data):
        raise NotJson
    return data.replace(b"\n", b"") if _LF in data else data


def _publication(pub: Publication, escaped: bool = False, epoch: str = "") -> bytes:
    """The members of a publication, without braces. With `escaped`, `data` is a string of the payload's text."""
    data = pub.data
    if escaped:
        try:
            members = b'"data":' + _encode(data.decode())
        except UnicodeDecodeError:
            raise NotJson from None
    elif data:
        known = pub.is_json
        if known is None:
            known = pub.is_json = is_json(data)
        if not known:
            raise NotJson
        members = b'"data":' + (data.replace(b"\n", b"") if _LF in data else data)
    else:
        members = b""
    if pub.info is not None:
        members += b',"info":' + _info(pub.info)
    if pub.offset:
        members += b',"offset":%d' % pub.offset
    if pub.tags:
        members += b',"tags":' + _encode(pub.tags)
    if pub.delta:
        members += b',"delta":true'
    if epoch:
        members += b',"epoch":' + _encode(epoch)
    if pub.version and not escaped:
        members += b',"version":%d' % pub.version
    return members if data or escaped else members[1:]


def _info(info: ClientInfo) -> bytes:
    rest = b""
    if info.conn_info:
        rest = b',"conn_info":%b' % _embedded(info.conn_info)
    if info.chan_info:
        rest += b',"chan_info":%b' % _embedded(info.chan_info)
    return b'{"user":%b,"client":%b%b}' % (_encode(info.user), _encode(info.client), rest)


def _nonzero(source: object, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(source, name))}


def _expiry(expires: bool, ttl: int) -> dict[str, Any]:
    return {name: value for name, value in (("expires", expires), ("ttl", ttl)) if value}


def _subscribed(result: SubscribeResult) -> dict[str, Any]:
    body = _nonzero(result, "expires", "ttl", "recoverable", "epoch", "recovered", "offset", "positioned")
    body |= _nonzero(result, "was_recovering", "delta")
    if result.publications:
        body["publications"] = [Raw(b"{%b}" % _publication(pub, result.delta)) for pub in result.publications]
    if result.data:
        body["data"] = Raw(_embedded(result.data))
    return body
