"""The Protobuf codec: messages behind their length as a varint, payloads as bytes. Facts: client protocol §1.1, §2.

Parsing is Google's (upb); what is sent for every publication is written by hand, because building a message object
costs ten times as much as its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, final

from google.protobuf.message import DecodeError
from msgspec import Raw

from broker.protocol.codec import MalformedFrame
from broker.protocol.codes import Disconnect, Error, Unsubscribe
from broker.protocol.messages import (
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    FilterNode,
    HistoryRequest,
    PingRequest,
    PresenceRequest,
    Publication,
    PublishRequest,
    RefreshRequest,
    RpcRequest,
    SendRequest,
    StreamPosition,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    UnsubscribeRequest,
)
from broker.protocol.schema import client_pb2 as pb

__all__ = ["ProtobufCodec"]

_parse: Final = pb.Command.FromString


@final
class ProtobufCodec:
    """Stateless; one is enough."""

    name: Final = "protobuf"
    binary: Final = True
    ping: Final = b""

    def join(self, units: Sequence[bytes]) -> bytes:
        if len(units) == 1:
            return _varint(len(units[0])) + units[0]
        return b"".join([part for unit in units for part in (_varint(len(unit)), unit)])

    # ---- from clients -----------------------------------------------------------------------------------------------

    def commands(self, frame: bytes) -> Iterator[Command]:
        if not frame:
            raise MalformedFrame
        at = 0
        while at < len(frame):
            size, at = _read_varint(frame, at)
            if at + size > len(frame):
                raise MalformedFrame
            try:
                parsed = _parse(frame[at : at + size] if at or size != len(frame) else frame)
            except DecodeError:
                raise MalformedFrame from None
            at += size
            yield _command(parsed)

    # ---- replies ----------------------------------------------------------------------------------------------------

    def error(self, id: int, error: Error) -> bytes:
        return _reply(id, error=pb.Error(code=error.code, message=error.message, temporary=error.temporary))

    def connect(self, id: int, result: ConnectResult) -> bytes:
        message = pb.ConnectResult(
            client=result.client,
            version=result.version,
            expires=result.expires,
            ttl=result.ttl,
            data=result.data,
            ping=result.ping,
            pong=result.pong,
            session=result.session,
            node=result.node,
            time=result.time,
        )
        for channel, sub in (result.subs or {}).items():
            message.subs[channel].CopyFrom(_subscribed(sub))
        return _reply(id, connect=message)

    def subscribe(self, id: int, result: SubscribeResult) -> bytes:
        return _reply(id, subscribe=_subscribed(result))

    def unsubscribe(self, id: int) -> bytes:
        return b"\x08%b\x3a\x00" % _varint(id)

    def publish(self, id: int) -> bytes:
        return b"\x08%b\x42\x00" % _varint(id)

    def presence(self, id: int, clients: dict[str, ClientInfo]) -> bytes:
        message = pb.PresenceResult()
        for key, info in clients.items():
            message.presence[key].CopyFrom(_info(info))
        return _reply(id, presence=message)

    def presence_stats(self, id: int, clients: int, users: int) -> bytes:
        return _reply(id, presence_stats=pb.PresenceStatsResult(num_clients=clients, num_users=users))

    def history(self, id: int, publications: Sequence[Publication], top: StreamPosition) -> bytes:
        pubs = [_publication(pub) for pub in publications]
        return _reply(id, history=pb.HistoryResult(publications=pubs, epoch=top.epoch, offset=top.offset))

    def rpc(self, id: int, data: bytes) -> bytes:
        body = _field(b"\x0a", data) if data else b""
        return b"\x08%b%b" % (_varint(id), _field(b"\x6a", body))

    def refresh(self, id: int, expires: bool, ttl: int) -> bytes:
        return _reply(id, refresh=pb.RefreshResult(expires=expires, ttl=ttl))

    def sub_refresh(self, id: int, expires: bool, ttl: int) -> bytes:
        return _reply(id, sub_refresh=pb.SubRefreshResult(expires=expires, ttl=ttl))

    # ---- pushes -----------------------------------------------------------------------------------------------------

    def push_publication(self, channel: str, pub: Publication, *, escaped: bool = False, epoch: str = "") -> bytes:
        body = _field(b"\x22", pub.data) if pub.data else b""
        if pub.info is not None:
            body += _field(b"\x2a", _info_bytes(pub.info))
        if pub.offset:
            body += b"\x30" + _varint(pub.offset)
        if pub.tags:
            for key, value in pub.tags.items():
                body += _field(b"\x3a", _field(b"\x0a", key.encode()) + _field(b"\x12", value.encode()))
        if pub.delta:
            body += b"\x40\x01"
        if epoch:
            body += _field(b"\x72", epoch.encode())
        if pub.version and not escaped:
            body += b"\x80\x01" + _varint(pub.version)
        return _field(b"\x22", _field(b"\x12", channel.encode()) + _field(b"\x22", body))

    def push_join(self, channel: str, info: ClientInfo) -> bytes:
        return _push(channel=channel, join=pb.Join(info=_info(info)))

    def push_leave(self, channel: str, info: ClientInfo) -> bytes:
        return _push(channel=channel, leave=pb.Leave(info=_info(info)))

    def push_unsubscribe(self, channel: str, why: Unsubscribe) -> bytes:
        return _push(channel=channel, unsubscribe=pb.Unsubscribe(code=why.code, reason=why.reason))

    def push_subscribe(self, channel: str, result: SubscribeResult) -> bytes:
        message = pb.Subscribe(
            recoverable=result.recoverable,
            epoch=result.epoch,
            offset=result.offset,
            positioned=result.positioned,
            data=result.data,
        )
        return _push(channel=channel, subscribe=message)

    def push_refresh(self, expires: bool, ttl: int) -> bytes:
        return _push(refresh=pb.Refresh(expires=expires, ttl=ttl))

    def push_disconnect(self, why: Disconnect) -> bytes:
        return _push(disconnect=pb.Disconnect(code=why.code, reason=why.reason))


# ---- bytes ---------------------------------------------------------------------------------------------------------

_SMALL: Final = [bytes((value,)) for value in range(128)]


def _varint(value: int) -> bytes:
    if value < 128:
        return _SMALL[value]
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A length at `at`, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 35:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise MalformedFrame


def _field(tag: bytes, data: bytes) -> bytes:
    """A field of wire type 2."""
    return b"%b%b%b" % (tag, _varint(len(data)), data)


def _info_bytes(info: ClientInfo) -> bytes:
    body = b""
    if info.user:
        body += _field(b"\x0a", info.user.encode())
    if info.client:
        body += _field(b"\x12", info.client.encode())
    if info.conn_info:
        body += _field(b"\x1a", info.conn_info)
    if info.chan_info:
        body += _field(b"\x22", info.chan_info)
    return body


# ---- structures to messages ---------------------------------------------------------------------------------------


def _reply(id: int, **member: Any) -> bytes:
    return pb.Reply(id=id, **member).SerializeToString()


def _push(**members: Any) -> bytes:
    return pb.Reply(push=pb.Push(**members)).SerializeToString()


def _info(info: ClientInfo) -> pb.ClientInfo:
    return pb.ClientInfo(user=info.user, client=info.client, conn_info=info.conn_info, chan_info=info.chan_info)


def _publication(pub: Publication) -> pb.Publication:
    return pb.Publication(
        data=pub.data,
        info=_info(pub.info) if pub.info is not None else None,
        offset=pub.offset,
        tags=pub.tags,
        delta=pub.delta,
        version=pub.version,
    )


def _subscribed(result: SubscribeResult) -> pb.SubscribeResult:
    return pb.SubscribeResult(
        expires=result.expires,
        ttl=result.ttl,
        recoverable=result.recoverable,
        epoch=result.epoch,
        publications=[_publication(pub) for pub in result.publications],
        recovered=result.recovered,
        offset=result.offset,
        positioned=result.positioned,
        data=result.data,
        was_recovering=result.was_recovering,
        delta=result.delta,
    )


# ---- messages to structures ---------------------------------------------------------------------------------------


def _command(m: pb.Command) -> Command:
    """The first member present, in the order in which members count."""
    has = m.HasField
    if has("publish"):
        # the hottest first; a command with an earlier member as well is read whole below
        p = m.publish
        command = Command(
            id=m.id,
            publish=PublishRequest(channel=p.channel, data=Raw(p.data), type=p.type, key=p.key, removed=p.removed),
        )
        if not (has("connect") or has("subscribe") or has("unsubscribe")):
            return command
    command = Command(id=m.id)
    if has("connect"):
        command.connect = _connect_request(m.connect)
    elif has("subscribe"):
        command.subscribe = _subscribe_request(m.subscribe)
    elif has("unsubscribe"):
        command.unsubscribe = UnsubscribeRequest(m.unsubscribe.channel)
    elif has("presence"):
        command.presence = PresenceRequest(m.presence.channel)
    elif has("presence_stats"):
        command.presence_stats = PresenceRequest(m.presence_stats.channel)
    elif has("history"):
        h = m.history
        since = StreamPosition(h.since.offset, h.since.epoch) if h.HasField("since") else None
        command.history = HistoryRequest(h.channel, h.limit, since, h.reverse)
    elif has("rpc"):
        command.rpc = RpcRequest(Raw(m.rpc.data), m.rpc.method)
    elif has("send"):
        command.send = SendRequest(Raw(m.send.data))
    elif has("refresh"):
        command.refresh = RefreshRequest(m.refresh.token)
    elif has("sub_refresh"):
        s = m.sub_refresh
        command.sub_refresh = SubRefreshRequest(s.channel, s.token, s.type)
    elif has("ping"):
        command.ping = PingRequest()
    return command


def _connect_request(c: pb.ConnectRequest) -> ConnectRequest:
    return ConnectRequest(
        token=c.token,
        data=Raw(c.data),
        subs={channel: _subscribe_request(sub) for channel, sub in c.subs.items()},
        name=c.name,
        version=c.version,
        headers=dict(c.headers),
        flag=c.flag,
    )


def _subscribe_request(s: pb.SubscribeRequest) -> SubscribeRequest:
    return SubscribeRequest(
        channel=s.channel,
        token=s.token,
        recover=s.recover,
        epoch=s.epoch,
        offset=s.offset,
        data=Raw(s.data),
        positioned=s.positioned,
        recoverable=s.recoverable,
        join_leave=s.join_leave,
        delta=s.delta,
        tf=_filter_node(s.tf) if s.HasField("tf") else None,
        flag=s.flag,
        type=s.type,
        phase=s.phase,
        cursor=s.cursor,
        limit=s.limit,
        asc=s.asc,
    )


def _filter_node(f: pb.FilterNode) -> FilterNode:
    return FilterNode(f.op, f.key, f.cmp, f.val, list(f.vals) or None, [_filter_node(n) for n in f.nodes] or None)
