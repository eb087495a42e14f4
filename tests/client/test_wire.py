"""The client's codecs: what they send is what a server reads, what a server says is what they give."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from broker.client.wire import JsonWire, ProtobufWire, Reply, WireError
from broker.protocol import (
    ClientInfo,
    Command,
    ConnectRequest,
    HistoryRequest,
    Publication,
    PublishRequest,
    StreamPosition,
    SubscribeRequest,
    UnsubscribeRequest,
)
from broker.protocol.protobuf_fields import read_varint
from broker.protocol.schema import client_pb2 as pb

COMMANDS = [
    (Command(1, connect=ConnectRequest()), {"id": 1, "connect": {}}),
    (
        Command(
            1,
            connect=ConnectRequest(
                "t", Raw(b'{"a":1}'), {"#42": SubscribeRequest(recover=True, offset=1 << 40, epoch="e")}, "n", "v"
            ),
        ),
        {
            "id": 1,
            "connect": {
                "token": "t",
                "data": {"a": 1},
                "subs": {"#42": {"recover": True, "offset": 1 << 40, "epoch": "e"}},
                "name": "n",
                "version": "v",
            },
        },
    ),
    (Command(3, unsubscribe=UnsubscribeRequest("c")), {"id": 3, "unsubscribe": {"channel": "c"}}),
    (Command(4, publish=PublishRequest("ü", Raw(b'"x"'))), {"id": 4, "publish": {"channel": "ü", "data": "x"}}),
    (
        Command(5, history=HistoryRequest("c", -1, StreamPosition(7, "e"), True)),
        {"id": 5, "history": {"channel": "c", "limit": -1, "since": {"offset": 7, "epoch": "e"}, "reverse": True}},
    ),
]


@pytest.mark.parametrize(("command", "expected"), COMMANDS)
def test_json_commands_leave_out_what_is_absent(command: Command, expected: object) -> None:
    assert json.loads(JsonWire().encode(command)) == expected


@pytest.mark.parametrize(("command", "expected"), COMMANDS)
def test_protobuf_commands_say_the_same(command: Command, expected: dict[str, object]) -> None:
    frame = ProtobufWire().encode(command)
    assert frame[0] == len(frame) - 1  # a varint of one byte
    message = pb.Command.FromString(frame[1:])
    sent = {field.name for field, _ in message.ListFields()}
    assert sent == set(expected)
    if command.connect is not None and command.connect.subs:
        subs = message.connect.subs["#42"]
        assert (subs.recover, subs.offset, subs.epoch) == (True, 1 << 40, "e")
        assert (message.connect.data, message.connect.token) == (b'{"a":1}', "t")
    if command.publish is not None:
        assert (message.publish.channel, message.publish.data) == ("ü", b'"x"')
    if command.history is not None:
        assert (message.history.limit, message.history.since.offset, message.history.reverse) == (-1, 7, True)


INFO = pb.ClientInfo(user="u", client="c", conn_info=b"{}")
INFO_TEXT = '{"user":"u","client":"c","conn_info":{}}'
PUBLICATION = pb.Publication(data=b"1", offset=9, tags={"k": "v"}, info=INFO)
PUBLICATION_TEXT = f'{{"data":1,"offset":9,"tags":{{"k":"v"}},"info":{INFO_TEXT}}}'

REPLIES = [
    (
        pb.Reply(id=1, error=pb.Error(code=103, message="no", temporary=True)),
        '{"id":1,"error":{"code":103,"message":"no","temporary":true}}',
    ),
    (
        pb.Reply(
            id=2,
            connect=pb.ConnectResult(
                client="c", ping=25, pong=True, subs={"a": pb.SubscribeResult(offset=3, recoverable=True)}
            ),
        ),
        '{"id":2,"connect":{"client":"c","ping":25,"pong":true,"subs":{"a":{"offset":3,"recoverable":true}}}}',
    ),
    (
        pb.Reply(id=3, subscribe=pb.SubscribeResult(epoch="e", publications=[PUBLICATION])),
        f'{{"id":3,"subscribe":{{"epoch":"e","publications":[{PUBLICATION_TEXT}]}}}}',
    ),
    (pb.Reply(id=4, publish=pb.Empty()), '{"id":4,"publish":{}}'),
    (
        pb.Reply(id=5, presence=pb.PresenceResult(presence={"c": INFO})),
        f'{{"id":5,"presence":{{"presence":{{"c":{INFO_TEXT}}}}}}}',
    ),
    (
        pb.Reply(id=6, history=pb.HistoryResult(publications=[PUBLICATION], epoch="e", offset=1 << 40)),
        f'{{"id":6,"history":{{"publications":[{PUBLICATION_TEXT}],"epoch":"e","offset":{1 << 40}}}}}',
    ),
    (pb.Reply(id=7, rpc=pb.RpcResult(data=b"[1, 2]")), '{"id":7,"rpc":{"data":[1, 2]}}'),
    (
        pb.Reply(push=pb.Push(channel="a", join=pb.Join(info=INFO))),
        f'{{"push":{{"channel":"a","join":{{"info":{INFO_TEXT}}}}}}}',
    ),
    (
        pb.Reply(push=pb.Push(channel="a", subscribe=pb.Subscribe(recoverable=True, epoch="e", offset=2))),
        '{"push":{"channel":"a","subscribe":{"recoverable":true,"epoch":"e","offset":2}}}',
    ),
    (
        pb.Reply(push=pb.Push(channel="a", unsubscribe=pb.Unsubscribe(code=2500, reason="r"))),
        '{"push":{"channel":"a","unsubscribe":{"code":2500,"reason":"r"}}}',
    ),
    (pb.Reply(push=pb.Push(message=pb.Message(data=b"{}"))), '{"push":{"message":{"data":{}}}}'),
    (pb.Reply(), "{}"),
]


def delimited(message: pb.Reply) -> bytes:
    body = message.SerializeToString()
    size = len(body)
    return (bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))) + body


@pytest.mark.parametrize(("message", "text"), REPLIES)
def test_both_codecs_read_the_same(message: pb.Reply, text: str) -> None:
    [from_json] = JsonWire().decode(text)
    [from_protobuf] = ProtobufWire().decode(delimited(message))
    assert plain(from_json) == plain(from_protobuf)
    assert plain(from_json) != plain(Reply()) or text == "{}"


def plain(value: object) -> object:
    """With raw payloads as bytes, which can be compared."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    fields = getattr(value, "__struct_fields__", None)
    if fields is None:
        return value or None  # an empty map is what an absent one means
    return {name: plain(getattr(value, name)) for name in fields}


def test_several_replies_in_one_message() -> None:
    assert [reply.id for reply in JsonWire().decode('{"id":1}\n{"id":2}\n{}')] == [1, 2, 0]
    assert [reply.id for reply in ProtobufWire().decode(b"\x02\x08\x01\x02\x08\x02\x00")] == [1, 2, 0]


def test_publications_keep_their_bytes() -> None:
    text = '{"push":{"channel":"a","pub":{"data": {"n" : 1.0} ,"info":{"user":"","client":"c"}}}}'
    [reply] = JsonWire().decode(text)
    assert reply.push is not None
    assert reply.push.pub is not None
    assert reply.push.pub.public() == Publication(b'{"n" : 1.0}', ClientInfo("", "c"))


@pytest.mark.parametrize("text", ["<html>", "[]", '{"id":"1"}', '{"id":1'])
def test_json_that_is_no_reply(text: str) -> None:
    with pytest.raises(WireError):
        JsonWire().decode(text)


@pytest.mark.parametrize("data", [b"\x05\x08", b"\x80", b"\xff" * 10, b"\x02\x0a\x05", b"\x02\xff\xff"])
def test_protobuf_that_is_no_reply(data: bytes) -> None:
    with pytest.raises(WireError):
        ProtobufWire().decode(data)


@given(st.one_of(st.binary(), st.text()))
def test_any_message_is_read_or_refused(message: str | bytes) -> None:
    for wire in (JsonWire(), ProtobufWire()):
        try:
            replies = wire.decode(message)
        except WireError:
            continue
        assert all(isinstance(reply, Reply) for reply in replies)


@given(st.binary(min_size=100, max_size=40_000))
def test_payloads_of_any_length_fit_into_protobuf(data: bytes) -> None:
    frame = ProtobufWire().encode(Command(1, publish=PublishRequest("c", Raw(data))))
    size, begin = read_varint(frame, 0)
    assert begin + size == len(frame)
    assert pb.Command.FromString(frame[begin:]).publish.data == data
