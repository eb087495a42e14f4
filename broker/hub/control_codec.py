"""Control messages as bytes: Centrifugo's Protobuf messages, so that nodes of both kinds understand each other.

Numbers and meaning as in Centrifuge's control protocol (https://github.com/centrifugal/centrifuge). What a newer node
may send and this one cannot carry out exactly is not carried out at all: a filter by labels left aside would hit
connections that nobody meant.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError, EncodeError

from broker.hub.control import (
    Answer,
    ControlMessage,
    DisconnectUser,
    Leaving,
    NodeInfo,
    NodeMetrics,
    Question,
    RefreshUser,
    SubscribeUser,
    Target,
    UnsubscribeUser,
)
from broker.protocol import StreamPosition, codes
from broker.protocol.schema import control_pb2 as pb

__all__ = ["NotUnderstood", "decode", "encode"]


class NotUnderstood(ValueError):
    """Not a control message that this node can carry out. `why` is one of few words, for a metric."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


# ---- out -----------------------------------------------------------------------------------------------------------


def encode(uid: str, message: ControlMessage) -> bytes:
    """`message` as node `uid` sends it.

    Raises:
        ValueError: a number does not fit.
    """
    command = pb.Command(uid=uid)
    try:
        _fill(command, message)
        return command.SerializeToString()
    except EncodeError as error:
        raise ValueError(str(error)) from None


def _fill(command: pb.Command, message: ControlMessage) -> None:
    match message:
        case NodeInfo():
            command.node.MergeFrom(_node(message))
        case Leaving():
            command.shutdown.SetInParent()
        case Question(id, op, data):
            command.survey_request.MergeFrom(pb.SurveyRequest(id=id, op=op, data=data))
        case Answer(id, code, data):
            command.survey_response.SetInParent()
            command.survey_response.MergeFrom(pb.SurveyResponse(id=id, code=code, data=data))
        case SubscribeUser():
            command.subscribe.SetInParent()
            command.subscribe.MergeFrom(_subscribe(message))
        case UnsubscribeUser(to, channel, why):
            command.unsubscribe.SetInParent()
            command.unsubscribe.MergeFrom(
                pb.Unsubscribe(
                    channel=channel,
                    user=to.user,
                    client=to.client,
                    session=to.session,
                    code=why.code,
                    reason=why.reason,
                )
            )
        case DisconnectUser(to, gone, spare):
            command.disconnect.SetInParent()
            command.disconnect.MergeFrom(
                pb.Disconnect(
                    user=to.user,
                    whitelist=sorted(spare),
                    code=gone.code,
                    reason=gone.reason,
                    client=to.client,
                    session=to.session,
                )
            )
        case RefreshUser(to, expired, expire_at, info):
            command.refresh.SetInParent()
            command.refresh.MergeFrom(
                pb.Refresh(
                    user=to.user,
                    client=to.client,
                    expired=expired,
                    expire_at=expire_at,
                    info=info,
                    session=to.session,
                )
            )


def _node(info: NodeInfo) -> pb.Node:
    node = pb.Node(
        uid=info.uid,
        name=info.name,
        version=info.version,
        num_clients=info.num_clients,
        num_users=info.num_users,
        num_channels=info.num_channels,
        uptime=info.uptime,
        num_subs=info.num_subs,
    )
    if info.metrics is not None:
        node.metrics.MergeFrom(pb.Metrics(interval=info.metrics.interval, items=info.metrics.items))
    return node


def _subscribe(command: SubscribeUser) -> pb.Subscribe:
    to = command.target
    message = pb.Subscribe(
        user=to.user,
        channel=command.channel,
        emit_presence=command.presence,
        emit_join_leave=command.join_leave,
        expire_at=command.expire_at,
        position=command.positioned,
        recover=command.recoverable,
        channel_info=command.info,
        client=to.client,
        data=command.data,
        session=to.session,
        push_join_leave=command.push_join_leave,
    )
    if command.recover_since is not None:
        message.recover_since.SetInParent()
        message.recover_since.offset = command.recover_since.offset
        message.recover_since.epoch = command.recover_since.epoch
    return message


# ---- in ------------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> tuple[str, ControlMessage]:
    """Who sent it, and what it says.

    Raises:
        NotUnderstood: `garbage`, `unknown` (a kind of message that does not concern this node, or is newer than it),
            or `labels` (it is for connections that this node cannot tell from others).
    """
    try:
        command = pb.Command.FromString(data)
    except DecodeError:
        raise NotUnderstood("garbage") from None
    if not command.uid:
        raise NotUnderstood("garbage")
    return command.uid, _read(command)


def _read(command: pb.Command) -> ControlMessage:
    match command.WhichOneof("body"):
        case "node":
            return _read_node(command.node)
        case "shutdown":
            return Leaving()
        case "survey_request":
            question = command.survey_request
            return Question(question.id, question.op, question.data)
        case "survey_response":
            answer = command.survey_response
            return Answer(answer.id, answer.code, answer.data)
        case "subscribe":
            return _read_subscribe(command.subscribe)
        case "unsubscribe":
            unsubscribe = command.unsubscribe
            left = codes.SERVER_UNSUBSCRIBE
            if unsubscribe.code:
                left = codes.Unsubscribe(unsubscribe.code, unsubscribe.reason)
            return UnsubscribeUser(_target(unsubscribe), unsubscribe.channel, left)
        case "disconnect":
            disconnect = command.disconnect
            why = codes.FORCE_DISCONNECT
            if disconnect.code:
                why = codes.Disconnect(disconnect.code, disconnect.reason)
                if not 3000 <= why.code <= 4999:
                    raise NotUnderstood("garbage")  # nothing a WebSocket could close with
            return DisconnectUser(_target(disconnect), why, frozenset(disconnect.whitelist))
        case "refresh":
            refresh = command.refresh
            return RefreshUser(_target(refresh), refresh.expired, max(refresh.expire_at, 0), refresh.info)
        case _:
            raise NotUnderstood("unknown")


def _read_node(node: pb.Node) -> NodeInfo:
    metrics = None
    if node.HasField("metrics"):
        metrics = NodeMetrics(node.metrics.interval, dict(node.metrics.items))
    return NodeInfo(
        uid=node.uid,
        name=node.name,
        version=node.version,
        num_clients=node.num_clients,
        num_users=node.num_users,
        num_subs=node.num_subs,
        num_channels=node.num_channels,
        uptime=node.uptime,
        metrics=metrics,
    )


def _read_subscribe(subscribe: pb.Subscribe) -> SubscribeUser:
    since = None
    if subscribe.HasField("recover_since"):
        since = StreamPosition(subscribe.recover_since.offset, subscribe.recover_since.epoch)
    return SubscribeUser(
        _target(subscribe),
        subscribe.channel,
        presence=subscribe.emit_presence,
        join_leave=subscribe.emit_join_leave,
        push_join_leave=subscribe.push_join_leave,
        positioned=subscribe.position,
        recoverable=subscribe.recover,
        expire_at=max(subscribe.expire_at, 0),
        info=subscribe.channel_info,
        data=subscribe.data,
        recover_since=since,
    )


def _target(message: pb.Subscribe | pb.Unsubscribe | pb.Disconnect | pb.Refresh) -> Target:
    if message.label_filter or (message.all_users and not message.user):
        raise NotUnderstood("labels")
    return Target(message.user, message.client, message.session)
