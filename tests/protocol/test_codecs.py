"""Both codecs beside each other: whatever comes in is read or refused, and what is read is what was written."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from broker.protocol import JSON, PROTOBUF, Codec, Command, MalformedFrame, Publication, StreamPosition, payload
from broker.protocol.messages import (
    ConnectRequest,
    FilterNode,
    HistoryRequest,
    PingRequest,
    PresenceRequest,
    PublishRequest,
    RefreshRequest,
    RpcRequest,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from broker.protocol.schema import client_pb2 as pb

CODECS = pytest.mark.parametrize("codec", [JSON, PROTOBUF], ids=["json", "protobuf"])

# ---- commands as clients write them ---------------------------------------------------------------------------------

texts = st.text(max_size=40)
flags = st.booleans()
i32 = st.integers(-(2**31), 2**31 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
offsets = st.integers(0, 2**63 - 1)
values = st.recursive(
    st.none() | flags | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
raws = st.builds(
    lambda value, ascii, indent: Raw(json.dumps(value, ensure_ascii=ascii, separators=indent).encode()),
    values.filter(lambda value: value is not None),
    flags,
    st.sampled_from([(",", ":"), (" , ", " : "), (",\t", ":\r")]),
)
filters: st.SearchStrategy[FilterNode] = st.recursive(
    st.builds(FilterNode, st.just(""), texts, texts, texts, st.none() | st.lists(texts, min_size=1, max_size=3)),
    lambda inner: st.builds(FilterNode, texts, nodes=st.lists(inner, min_size=1, max_size=3)),
    max_leaves=5,
)
subscribes = st.builds(
    SubscribeRequest, texts, texts, flags, texts, offsets, raws, flags, flags, flags, texts, st.none() | filters,
    i64, i32, i32, texts, i32, flags,
)  # fmt: skip
positions = st.builds(StreamPosition, offsets, texts)
commands: st.SearchStrategy[Command] = st.builds(
    lambda id, members: Command(id, **members),
    st.integers(0, 2**32 - 1),
    st.fixed_dictionaries(
        {},
        optional={
            "connect": st.builds(
                ConnectRequest,
                texts,
                raws,
                st.dictionaries(texts, subscribes, min_size=1, max_size=2),
                texts,
                texts,
                st.dictionaries(texts, texts, min_size=1, max_size=2),
                i64,
            ),
            "subscribe": subscribes,
            "unsubscribe": st.builds(UnsubscribeRequest, texts),
            "publish": st.builds(PublishRequest, texts, raws, i32, texts, flags),
            "presence": st.builds(PresenceRequest, texts),
            "presence_stats": st.builds(PresenceRequest, texts),
            "history": st.builds(HistoryRequest, texts, i32, st.none() | positions, flags),
            "rpc": st.builds(RpcRequest, raws, texts),
            "send": st.builds(SendRequest, raws),
            "refresh": st.builds(RefreshRequest, texts),
            "sub_refresh": st.builds(SubRefreshRequest, texts, texts, i32),
            "ping": st.just(PingRequest()),
        },
    ),
)


def plain(value: Any) -> Any:
    """Structures as dictionaries, payloads as bytes: something that compares and that both clients can write."""
    if isinstance(value, Struct):
        members = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        return {name: member for name, member in members.items() if member is not None}
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def as_json(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return b"{" + b",".join(b"%b:%b" % (as_json(key), as_json(item)) for key, item in value.items()) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(as_json, value)) + b"]"
    return json.dumps(value).encode()


def fill(message: Any, members: dict[str, Any]) -> Any:
    for name, value in members.items():
        field = getattr(message, name)
        if name in ("subs", "headers"):
            for key, item in value.items():
                field.update({key: item}) if isinstance(item, str) else fill(field[key], item)
        elif name == "nodes":
            for item in value:
                fill(field.add(), item)
        elif name == "vals":
            field.extend(value)
        elif isinstance(value, dict):
            field.SetInParent()
            fill(field, value)
        else:
            setattr(message, name, value)
    return message


def as_frame(codec: Codec, wanted: list[Command]) -> bytes:
    if codec.binary:
        return codec.join([fill(pb.Command(), plain(command)).SerializeToString() for command in wanted])
    return codec.join([as_json(plain(command)) for command in wanted])


def read(codec: Codec, frame: bytes) -> tuple[list[Any], bool]:
    """The commands of a frame, and whether it ended well."""
    seen: list[Any] = []
    try:
        seen.extend(map(plain, codec.commands(frame)))
    except MalformedFrame:
        return seen, False
    return seen, True


@CODECS
@given(wanted=st.lists(commands, min_size=1, max_size=3), data=st.data())
def test_commands_are_read_as_they_were_written_and_a_cut_changes_none_of_them(
    codec: Codec, wanted: list[Command], data: st.DataObject
) -> None:
    frame = as_frame(codec, wanted)
    expected = [plain(command) for command in wanted]
    assert read(codec, frame) == (expected, True)
    cut = data.draw(st.integers(0, len(frame) - 1))
    seen, whole = read(codec, frame[:cut])
    assert seen == expected[: len(seen)]
    assert not whole or len(seen) < len(wanted)


# ---- anything else --------------------------------------------------------------------------------------------------


@CODECS
@given(frame=st.binary(max_size=200))
def test_any_bytes_are_commands_or_malformed(codec: Codec, frame: bytes) -> None:
    read(codec, frame)


def damaged(codec: Codec) -> Iterator[bytes]:
    """Frames with a few bytes changed, moved, doubled, or lost."""
    chance = random.Random(4711)
    good = [
        as_frame(codec, [Command(1, connect=ConnectRequest("t", Raw(b'{"a":[1]}'), {"a": SubscribeRequest("b")}))]),
        as_frame(codec, [Command(300, subscribe=SubscribeRequest("news", tf=FilterNode("", "k", "eq", "v")))]),
        as_frame(
            codec, [Command(2, publish=PublishRequest("news", Raw('"\\ud83d é"'.encode()))), Command(), Command(9)]
        ),
        as_frame(codec, [Command(3, history=HistoryRequest("news", -1, StreamPosition(2**40, "e"), True))]),
    ]
    for _ in range(10_000):
        frame = bytearray(chance.choice(good))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(frame))
            match chance.randrange(4):
                case 0:
                    frame[at] = chance.randrange(256)
                case 1:
                    frame[at] ^= 1 << chance.randrange(8)
                case 2:
                    frame[at:at] = frame[at : at + chance.randint(1, 9)]
                case _:
                    del frame[at : at + chance.randint(1, 3)]
            if not frame:
                frame.append(0)
        yield bytes(frame)


@CODECS
def test_damaged_frames_are_commands_or_malformed(codec: Codec) -> None:
    outcomes = {read(codec, frame)[1] for frame in damaged(codec)}
    assert outcomes == {True, False}


# ---- payloads are carried, never rewritten --------------------------------------------------------------------------

PAYLOADS = [
    b'{"a":1,"a":2}',
    b"123456789012345678901234567890",
    b"1e999",
    b"-0",
    b"1.0",
    rb'"\ud800"',
    rb'["\uDfFf", "\ue800 \\ud800 \/ \u0041"]',
    b'{ "spaced" :\t[ 1 ,2 ]\r}',
    '"é 한 🐙 \u2028 <script>&"'.encode(),
    b'"\\u0000"',
    b"[" * 200 + b"]" * 200,
    b"0",
    b"false",
    b'""',
]


@CODECS
@pytest.mark.parametrize("data", PAYLOADS)
def test_payloads_come_in_byte_for_byte(codec: Codec, data: bytes) -> None:
    raw = Raw(data)
    frame = as_frame(
        codec,
        [
            Command(1, connect=ConnectRequest(data=raw, subs={"a": SubscribeRequest(data=raw)})),
            Command(2, subscribe=SubscribeRequest(data=raw)),
            Command(3, publish=PublishRequest("a", raw)),
            Command(4, rpc=RpcRequest(raw)),
            Command(5, send=SendRequest(raw)),
        ],
    )
    connect, subscribe, publish, rpc, send = codec.commands(frame)
    assert connect.connect is not None
    assert connect.connect.subs is not None
    sub = connect.connect.subs["a"]
    assert sub is not None
    assert subscribe.subscribe is not None
    assert publish.publish is not None
    assert rpc.rpc is not None
    assert send.send is not None
    for request in (connect.connect, sub, subscribe.subscribe, publish.publish, rpc.rpc, send.send):
        assert payload(request.data) == data


@pytest.mark.parametrize("data", PAYLOADS)
def test_payloads_go_out_byte_for_byte(data: bytes) -> None:
    pub = Publication(data)
    assert JSON.push_publication("a", pub) == b'{"push":{"channel":"a","pub":{"data":%b}}}' % data
    assert JSON.rpc(1, data) == b'{"id":1,"rpc":{"data":%b}}' % data
    assert JSON.history(1, [pub], StreamPosition()).startswith(
        b'{"id":1,"history":{"publications":[{"data":%b}]' % data
    )
    assert pb.Reply.FromString(PROTOBUF.push_publication("a", pub)).push.pub.data == data
    assert pb.Reply.FromString(PROTOBUF.rpc(1, data)).rpc.data == data


@pytest.mark.parametrize("data", [b"boom", b"\x00\xff", b"", bytes(range(256))])
def test_protobuf_carries_anything(data: bytes) -> None:
    frame = as_frame(PROTOBUF, [Command(1, publish=PublishRequest("a", Raw(data)))])
    (command,) = PROTOBUF.commands(frame)
    assert command.publish is not None
    assert bytes(command.publish.data) == data
    assert pb.Reply.FromString(PROTOBUF.push_publication("a", Publication(data))).push.pub.data == data


@CODECS
def test_a_stored_payload_keeps_no_frame_alive(codec: Codec) -> None:
    small = Command(1, publish=PublishRequest("a", Raw(b'"small"')))
    frame = as_frame(codec, [small, Command(2, rpc=RpcRequest(Raw(b'"%b"' % (b"x" * 60_000))))])
    kept = []
    tracemalloc.start()
    try:
        for _ in range(50):
            command = next(codec.commands(bytes(bytearray(frame))))  # a frame of its own each time
            assert command.publish is not None
            kept.append(payload(command.publish.data))
            del command
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept) == 50
    assert current < 60_000


# ---- frames made to be expensive ------------------------------------------------------------------------------------


@CODECS
@pytest.mark.parametrize("size", [65_536, 8 << 20])
def test_a_frame_of_delimiters_makes_no_copies(codec: Codec, size: int) -> None:
    frame = b"\n" * size
    tracemalloc.start()
    try:
        read(codec, frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000
