"""The client's side of the wire: commands into frames, frames into replies, for JSON and Protobuf.

Commands are the structures of `broker.protocol`. Replies have structures of their own, whose payloads are raw: the
server only ever writes them. Facts: client protocol §2 (https://centrifugal.dev/docs/transports/client_protocol).
"""

from __future__ import annotations

from typing import Any, Protocol, final

import msgspec
from google.protobuf.message import DecodeError, Message
from msgspec import Raw, Struct

from broker.protocol import ClientInfo, Command, Publication
from broker.protocol.schema import client_pb2

__all__ = ["JsonWire", "ProtobufWire", "Reply", "Wire", "WireError"]


class WireError(ValueError):
    """A frame that is not of the client protocol."""


class Error(Struct):
    code: int = 0
    message: str = ""
    temporary: bool = False


class Info(Struct):
    user: str = ""
    client: str = ""
    conn_info: Raw = Raw()
    chan_info: Raw = Raw()

    def public(self) -> ClientInfo:
        return ClientInfo(self.user, self.client, bytes(self.conn_info), bytes(self.chan_info))


class Pub(Struct):
    data: Raw = Raw()
    info: Info | None = None
    offset: int = 0
    tags: dict[str, str] | None = None
    epoch: str = ""
    version: int = 0

    def public(self) -> Publication:
        info = self.info.public() if self.info is not None else None
        return Publication(bytes(self.data), info, self.offset, self.tags, self.version)


class JoinLeave(Struct):
    info: Info | None = None

    def public(self) -> ClientInfo:
        return self.info.public() if self.info is not None else ClientInfo()


class CodeReason(Struct):
    code: int = 0
    reason: str = ""


class Data(Struct):
    data: Raw = Raw()


class Expiry(Struct):
    expires: bool = False
    ttl: int = 0


class Subscribed(Struct):
    expires: bool = False
    ttl: int = 0
    recoverable: bool = False
    epoch: str = ""
    publications: list[Pub] = []
    recovered: bool = False
    offset: int = 0
    positioned: bool = False
    data: Raw = Raw()
    was_recovering: bool = False


class Connected(Struct):
    client: str = ""
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Raw = Raw()
    subs: dict[str, Subscribed] = {}
    ping: int = 0
    pong: bool = False


class Presence(Struct):
    presence: dict[str, Info] = {}


class PresenceStats(Struct):
    num_clients: int = 0
    num_users: int = 0


class History(Struct):
    publications: list[Pub] = []
    epoch: str = ""
    offset: int = 0


class Nothing(Struct):
    pass


class Push(Struct):
    channel: str = ""
    pub: Pub | None = None
    join: JoinLeave | None = None
    leave: JoinLeave | None = None
    unsubscribe: CodeReason | None = None
    message: Data | None = None
    subscribe: Subscribed | None = None
    disconnect: CodeReason | None = None


class Reply(Struct):
    """What the server sends: the answer to command `id`, a push, or, with nothing in it, a ping."""

    id: int = 0
    error: Error | None = None
    push: Push | None = None
    connect: Connected | None = None
    subscribe: Subscribed | None = None
    unsubscribe: Nothing | None = None
    publish: Nothing | None = None
    presence: Presence | None = None
    presence_stats: PresenceStats | None = None
    history: History | None = None
    rpc: Data | None = None
    refresh: Expiry | None = None
    sub_refresh: Expiry | None = None


class Wire(Protocol):
    """One codec of the client protocol over WebSocket messages."""

    @property
    def subprotocol(self) -> str: ...

    @property
    def pong(self) -> str | bytes:
        """The answer to a ping, as a message."""
        ...

    def encode(self, command: Command) -> str | bytes:
        """A WebSocket message with one command in it."""
        ...

    def decode(self, message: str | bytes) -> list[Reply]:
        """The replies of a WebSocket message.

        Raises:
            WireError: it is none of the protocol.
        """
        ...


@final
class JsonWire:
    """Text messages: one JSON object per line."""

    subprotocol = "centrifuge-json"
    pong = "{}"
    _decode = msgspec.json.Decoder(Reply).decode
    _encode = msgspec.json.Encoder().encode

    def encode(self, command: Command) -> str:
        return self._encode(_members(command)).decode()

    def decode(self, message: str | bytes) -> list[Reply]:
        text = message.encode() if isinstance(message, str) else message
        try:
            return [self._decode(line) for line in text.split(b"\n") if line]
        except msgspec.DecodeError as error:
            raise WireError(str(error)) from None


@final
class ProtobufWire:
    """Binary messages: Protobuf messages, each behind its length as a varint."""

    subprotocol = "centrifuge-protobuf"
    pong = b"\0"

    def encode(self, command: Command) -> bytes:
        message = client_pb2.Command()
        _fill(message, _members(command))
        body = message.SerializeToString()
        return _varint(len(body)) + body

    def decode(self, message: str | bytes) -> list[Reply]:
        data = message.encode() if isinstance(message, str) else message
        replies = []
        at = 0
        while at < len(data):
            size, begin = _read_varint(data, at)
            at = begin + size
            if at > len(data):
                raise WireError("the length of a message goes beyond its frame")
            try:
                parsed = client_pb2.Reply.FromString(data[begin:at])
            except DecodeError as error:
                raise WireError(str(error)) from None
            replies.append(_structure(Reply, parsed))
        return replies


def _members(struct: Struct) -> dict[str, Any]:
    """The members of a structure that differ from their defaults, inner structures likewise."""
    members: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, Struct):
            members[field.name] = _members(value)
        elif isinstance(value, dict):
            members[field.name] = {k: _members(v) if isinstance(v, Struct) else v for k, v in value.items()}
        elif value is not None and value != field.default:
            members[field.name] = value
    return members


def _fill(message: Any, members: dict[str, Any]) -> None:
    """Set the fields of a Protobuf message."""
    for name, value in members.items():
        if isinstance(value, Raw):
            setattr(message, name, bytes(value))
        elif not isinstance(value, dict):
            setattr(message, name, value)
        elif name in ("subs", "headers"):
            field = getattr(message, name)
            for key, inner in value.items():
                if isinstance(inner, dict):
                    _fill(field[key], inner)
                else:
                    field[key] = inner
        else:
            inner_message = getattr(message, name)
            inner_message.SetInParent()
            _fill(inner_message, value)


def _structure(kind: type[Any], message: Any) -> Any:
    """A structure with what a Protobuf message has."""
    values: dict[str, Any] = {}
    known = message.DESCRIPTOR.fields_by_name  # a subscribe push has some of what a subscribe result has
    for field in msgspec.structs.fields(kind):
        if field.name not in known:
            continue
        inner = _INNER.get((kind, field.name))
        value = getattr(message, field.name)
        if field.type is Raw:
            values[field.name] = Raw(value)
        elif inner is None:
            values[field.name] = dict(value) if field.name == "tags" else value
        elif isinstance(value, Message):
            values[field.name] = _structure(inner, value) if message.HasField(field.name) else None
        elif hasattr(value, "items"):
            values[field.name] = {key: _structure(inner, item) for key, item in value.items()}
        else:
            values[field.name] = [_structure(inner, item) for item in value]
    return kind(**values)


def _inner_kinds(kind: type[Any], into: dict[tuple[type[Any], str], type[Any]]) -> None:
    """Which members of `kind`, and of what is inside it, are structures or collections of them."""
    for field in msgspec.structs.fields(kind):
        for part in _parts(field.type):
            if isinstance(part, type) and issubclass(part, Struct):
                into[kind, field.name] = part
                _inner_kinds(part, into)


def _parts(annotation: Any) -> list[Any]:
    inside = getattr(annotation, "__args__", None)
    return [part for inner in inside for part in _parts(inner)] if inside else [annotation]


_INNER: dict[tuple[type[Any], str], type[Any]] = {}
_inner_kinds(Reply, _INNER)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    number = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise WireError("the length of a message does not end")
