from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from broker.protocol import PROTOBUF, MalformedFrame, codes, compile_filter
from broker.protocol.messages import (
    ClientInfo,
    Command,
    ConnectResult,
    FilterNode,
    Publication,
    StreamPosition,
    SubscribeResult,
    payload,
)
from broker.protocol.protobuf_codec import ProtobufCodec
from broker.protocol.protobuf_fields import delimited, message, read_varint, text, varint
from broker.protocol.protobuf_requests import REQUESTS
from broker.protocol.schema import client_pb2 as pb

ALICE = ClientInfo("42", "c-1", b"\x00\xff", b"[1]")
ALICE_PB = pb.ClientInfo(user="42", client="c-1", conn_info=b"\x00\xff", chan_info=b"[1]")
BOB = ClientInfo("", "c-2")

UNITS: list[tuple[Callable[[ProtobufCodec], bytes], pb.Reply]] = [
    (
        lambda c: c.error(3, codes.INTERNAL),
        pb.Reply(id=3, error=pb.Error(code=100, message="internal server error", temporary=True)),
    ),
    (lambda c: c.connect(1, ConnectResult()), pb.Reply(id=1, connect=pb.ConnectResult())),
    (
        lambda c: c.connect(
            300,
            ConnectResult(
                "c-1",
                "6.9.1",
                True,
                60,
                b"{}",
                {"news": SubscribeResult(offset=1), "": SubscribeResult()},
                25,
                True,
            ),
        ),
        pb.Reply(
            id=300,
            connect=pb.ConnectResult(
                client="c-1",
                version="6.9.1",
                expires=True,
                ttl=60,
                data=b"{}",
                subs={"news": pb.SubscribeResult(offset=1), "": pb.SubscribeResult()},
                ping=25,
                pong=True,
            ),
        ),
    ),
    (
        lambda c: c.connect(1, ConnectResult(session="s", node="n", time=1_795_000_000_000)),
        pb.Reply(id=1, connect=pb.ConnectResult(session="s", node="n", time=1_795_000_000_000)),
    ),
    (lambda c: c.subscribe(2, SubscribeResult()), pb.Reply(id=2, subscribe=pb.SubscribeResult())),
    (
        lambda c: c.subscribe(
            2,
            SubscribeResult(
                True, 60, True, "e", [Publication(b"1", version=4), Publication()], True, 7, True, b"d", True, False
            ),
        ),
        pb.Reply(
            id=2,
            subscribe=pb.SubscribeResult(
                expires=True,
                ttl=60,
                recoverable=True,
                epoch="e",
                publications=[pb.Publication(data=b"1", version=4), pb.Publication()],
                recovered=True,
                offset=7,
                positioned=True,
                data=b"d",
                was_recovering=True,
            ),
        ),
    ),
    (
        lambda c: c.subscribe(2, SubscribeResult(publications=[Publication(b"1", delta=True, version=4)], delta=True)),
        pb.Reply(id=2, subscribe=pb.SubscribeResult(publications=[pb.Publication(data=b"1", delta=True)], delta=True)),
    ),
    (lambda c: c.unsubscribe(3), pb.Reply(id=3, unsubscribe=pb.Empty())),
    (lambda c: c.publish(2**32 - 1), pb.Reply(id=2**32 - 1, publish=pb.Empty())),
    (lambda c: c.presence(5, {}), pb.Reply(id=5, presence=pb.PresenceResult())),
    (
        lambda c: c.presence(5, {"c-1": ALICE, "c-2": BOB}),
        pb.Reply(id=5, presence=pb.PresenceResult(presence={"c-1": ALICE_PB, "c-2": pb.ClientInfo(client="c-2")})),
    ),
    (
        lambda c: c.presence_stats(6, 3, 0),
        pb.Reply(id=6, presence_stats=pb.PresenceStatsResult(num_clients=3)),
    ),
    (lambda c: c.history(7, [], StreamPosition()), pb.Reply(id=7, history=pb.HistoryResult())),
    (
        lambda c: c.history(7, [Publication(b"\xff", ALICE, 1, {"k": "v", "": ""}, 3)], StreamPosition(2**63 - 1, "e")),
        pb.Reply(
            id=7,
            history=pb.HistoryResult(
                publications=[
                    pb.Publication(data=b"\xff", info=ALICE_PB, offset=1, tags={"k": "v", "": ""}, version=3)
                ],
                epoch="e",
                offset=2**63 - 1,
            ),
        ),
    ),
    (lambda c: c.rpc(8, b""), pb.Reply(id=8, rpc=pb.RpcResult())),
    (lambda c: c.rpc(8, b"x" * 300), pb.Reply(id=8, rpc=pb.RpcResult(data=b"x" * 300))),
    (lambda c: c.refresh(9, True, 60), pb.Reply(id=9, refresh=pb.RefreshResult(expires=True, ttl=60))),
    (lambda c: c.sub_refresh(9, True, 60), pb.Reply(id=9, sub_refresh=pb.SubRefreshResult(expires=True, ttl=60))),
    (
        lambda c: c.push_publication("a", Publication(), epoch="xyz"),
        pb.Reply(push=pb.Push(channel="a", pub=pb.Publication(epoch="xyz"))),
    ),
    (
        lambda c: c.push_publication("a", Publication(b"p", offset=3, delta=True, version=5), escaped=True),
        pb.Reply(push=pb.Push(channel="a", pub=pb.Publication(data=b"p", offset=3, delta=True))),
    ),
    (lambda c: c.push_join("a", ALICE), pb.Reply(push=pb.Push(channel="a", join=pb.Join(info=ALICE_PB)))),
    (lambda c: c.push_leave("a", ALICE), pb.Reply(push=pb.Push(channel="a", leave=pb.Leave(info=ALICE_PB)))),
    (
        lambda c: c.push_unsubscribe("a", codes.INSUFFICIENT),
        pb.Reply(push=pb.Push(channel="a", unsubscribe=pb.Unsubscribe(code=2500, reason="insufficient state"))),
    ),
    (
        lambda c: c.push_subscribe("a", SubscribeResult(True, 9, True, "e", offset=2, positioned=True, data=b"{}")),
        pb.Reply(
            push=pb.Push(
                channel="a", subscribe=pb.Subscribe(recoverable=True, epoch="e", offset=2, positioned=True, data=b"{}")
            )
        ),
    ),
    (lambda c: c.push_refresh(True, 60), pb.Reply(push=pb.Push(refresh=pb.Refresh(expires=True, ttl=60)))),
    (
        lambda c: c.push_disconnect(codes.SHUTDOWN),
        pb.Reply(push=pb.Push(disconnect=pb.Disconnect(code=3001, reason="shutdown"))),
    ),
    (lambda c: c.ping, pb.Reply()),
]


@pytest.mark.parametrize(("unit", "expected"), UNITS)
def test_units(unit: Callable[[ProtobufCodec], bytes], expected: pb.Reply) -> None:
    assert pb.Reply.FromString(unit(PROTOBUF)) == expected


texts = st.text(min_size=1, max_size=300)
infos = st.builds(ClientInfo, texts, texts, st.binary(max_size=300), st.binary(max_size=20))


@given(
    channel=texts,
    data=st.binary(max_size=20_000),
    info=st.none() | infos,
    offset=st.integers(0, 2**63 - 1),
    tags=st.none() | st.dictionaries(texts, texts, max_size=3),
    version=st.integers(0, 2**64 - 1),
    delta=st.booleans(),
    epoch=texts,
)
def test_a_publication_is_what_the_library_would_write(
    channel: str,
    data: bytes,
    info: ClientInfo | None,
    offset: int,
    tags: dict[str, str] | None,
    version: int,
    delta: bool,
    epoch: str,
) -> None:
    unit = PROTOBUF.push_publication(channel, Publication(data, info, offset, tags, version, delta), epoch=epoch)
    pub = pb.Publication(data=data, offset=offset, tags=tags, version=version, delta=delta, epoch=epoch)
    if info is not None:
        pub.info.SetInParent()
        pub.info.MergeFrom(
            pb.ClientInfo(user=info.user, client=info.client, conn_info=info.conn_info, chan_info=info.chan_info)
        )
    expected = pb.Reply(push=pb.Push(channel=channel, pub=pub))
    assert pb.Reply.FromString(unit) == expected
    assert len(unit) == expected.ByteSize()  # nothing absent is written


def test_units_join_each_behind_its_length() -> None:
    assert PROTOBUF.join([b""]) == b"\x00"
    assert PROTOBUF.join([b"", b"x" * 130, b"y"]) == b"\x00\x82\x01" + b"x" * 130 + b"\x01y"


# ---- from clients ---------------------------------------------------------------------------------------------------


def frame(*commands: pb.Command) -> bytes:
    return b"".join(delimited(command.SerializeToString()) for command in commands)


def test_a_frame_with_one_command() -> None:
    (command,) = PROTOBUF.commands(frame(pb.Command(id=1, publish=pb.PublishRequest(channel="news", data=b"\xff"))))
    assert command.id == 1
    assert command.publish is not None
    assert command.publish.channel == "news"
    assert payload(command.publish.data) == b"\xff"


def test_commands_come_in_order() -> None:
    commands = PROTOBUF.commands(frame(*(pb.Command(id=id) for id in (1, 300, 3))))
    assert [command.id for command in commands] == [1, 300, 3]


def test_an_empty_command_is_a_pong() -> None:
    assert list(PROTOBUF.commands(b"\x00")) == [Command()]
    assert list(PROTOBUF.commands(b"\x00\x00")) == [Command(), Command()]


@pytest.mark.parametrize(
    "rest",
    [
        b"\x05",
        b"\x02\x08",
        b"\x01\x08",
        b"\x80",
        b"\xff" * 10,
        b"\x03\x08\x01\x0b",
        b"\x04\x08\x01\x0c\x01",
        b"\x04\x08\x01\x3a\x05",
        b"\x02\x02\x00",
        delimited(b"\x08\x01\x3a\x03\x0a\x01\xff"),
        delimited(b"\x08\x01\x2a\x0b\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ],
)
def test_commands_before_a_broken_one_are_given(rest: bytes) -> None:
    commands = PROTOBUF.commands(frame(pb.Command(id=7)) + rest)
    assert next(commands).id == 7
    with pytest.raises(MalformedFrame):
        next(commands)


def nested(depth: int) -> bytes:
    """A subscribe with a filter as deep as that."""
    node = b""
    for _ in range(depth):
        node = message(b"\x32", node)
    return delimited(b"\x08\x01" + message(b"\x2a", message(b"\x6a", node)))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\x80" * 9 + b"\x01", b"\xff" * 11, b"\x7f", nested(200), nested(9_000), b"\x02\x0b\x0b" * 5_000],
)
def test_what_is_no_frame(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        list(PROTOBUF.commands(data))


def test_nested_groups_are_refused() -> None:
    groups = b"\x0b" * 200 + b"\x0c" * 200
    with pytest.raises(MalformedFrame):
        list(PROTOBUF.commands(delimited(groups)))


def test_a_bounded_depth_is_read() -> None:
    (command,) = PROTOBUF.commands(nested(20))
    assert command.subscribe is not None
    assert command.subscribe.tf is not None


def test_a_frame_of_pongs_is_read_as_asked() -> None:
    commands = PROTOBUF.commands(bytes(65_536))
    assert next(commands) == next(commands) == Command()


def test_of_a_filter_no_more_is_read_than_could_be_used() -> None:
    def subscribe(tree: bytes) -> FilterNode:
        data = b"\x08\x01" + message(b"\x2a", message(b"\x6a", tree))
        (command,) = PROTOBUF.commands(delimited(data))
        assert command.subscribe is not None
        assert command.subscribe.tf is not None
        return command.subscribe.tf

    def count(node: FilterNode) -> int:
        return 1 + sum(map(count, node.nodes or ()))

    leaf = message(b"\x32", text(b"\x12", "k") + text(b"\x1a", "ex"))
    tree = subscribe(text(b"\x0a", "and") + leaf * 255)
    assert count(tree) == 256
    compile_filter(tree)
    op = text(b"\x0a", "and")
    deep = leaf
    for _ in range(30):
        deep = message(b"\x32", op + deep)
    for wide in (leaf * 256, leaf * 5_000, message(b"\x32", op + leaf * 200) * 40, deep * 150):
        tree = subscribe(op + wide)
        assert count(tree) == 257
        with pytest.raises(ValueError, match="too large"):
            compile_filter(tree)


# ---- frames made to be expensive ------------------------------------------------------------------------------------


def many(tag: bytes, body: Callable[[int], bytes]) -> bytes:
    """About 64 KiB of the same field."""
    return b"".join(message(tag, body(n)) for n in range(60_000 // (len(body(9_999)) + 2)))


@pytest.mark.parametrize(
    "command",
    {
        "subscriptions": message(b"\x22", many(b"\x1a", lambda n: text(b"\x0a", f"{n}"))),
        "subscriptions with filters": message(
            b"\x22", many(b"\x1a", lambda n: text(b"\x0a", f"{n}") + message(b"\x12", b"\x6a\x00"))
        ),
        "headers": message(b"\x22", many(b"\x32", lambda n: text(b"\x0a", f"{n}"))),
        "nodes": message(b"\x2a", message(b"\x6a", many(b"\x32", lambda n: b""))),
        "vals": message(b"\x2a", message(b"\x6a", many(b"\x2a", lambda n: b""))),
        "the same member": many(b"\x3a", lambda n: b""),
        "unknown fields": b"\xf8\x07\x01" * 20_000,
        "groups": b"\x83\x01" * 15_000 + b"\x84\x01" * 15_000,
        "groups beside each other": b"\x83\x01\x84\x01" * 15_000,
    }.items(),
    ids=lambda item: item[0],
)
def test_costly_frames(command: tuple[str, bytes]) -> None:
    frame = delimited(b"\x08\x01" + command[1])
    times = []
    for _ in range(3):
        started = time.thread_time()
        with contextlib.suppress(MalformedFrame):
            list(PROTOBUF.commands(frame))
        times.append(time.thread_time() - started)
    assert min(times) < 0.05  # at most 16 ms on the machine where this was written


# ---- the quick way reads what the library reads ---------------------------------------------------------------------


def structure(data: bytes) -> Command:
    """As the library reads it."""
    parsed = pb.Command.FromString(data)
    command = Command(parsed.id)
    for name, make in REQUESTS.items():
        if parsed.HasField(name):
            setattr(command, name, make(getattr(parsed, name)))
    return command


def plain(value: Any) -> Any:
    """A structure as something that compares."""
    if hasattr(value, "__struct_fields__"):
        return type(value), [plain(getattr(value, name)) for name in value.__struct_fields__]
    return bytes(value) if type(value).__name__ == "Raw" else value


pieces = st.sampled_from(
    [
        *(b"\x08\x01", b"\x08\xac\x02", b"\x08" + b"\xff" * 9 + b"\x01", b"\x08" + b"\xff" * 5),  # ids
        *(b"\x3a\x03\x0a\x01a", b"\x3a\x06\x0a\x01a\x12\x01b", b"\x3a\x00", b"\x3a\x80\x00", b"\x2a\x02\x38\x05"),
        *(b"\x22\x00", b"\x32\x00", b"\x52\x03\x0a\x01a", b"\x5a\x00", b"\x62\x00", b"\x6a\x03\x0a\x01x", b"\x7a\x00"),
        *(b"\x10\x01", b"\x92\x03\x00", b"\x12\x01x", b"\x3d\x00\x00\x00\x00", b"\x39" + bytes(8)),  # unknown fields
        *(b"\x0b\x0c", b"\x3a", b"\x3a\x05", b"\x08"),
    ]
)


@given(st.lists(pieces | st.binary(max_size=4), max_size=5).map(b"".join))
@example(b"\x08\x01\x3a\x03\x0a\x01a\x3a\x03\x12\x01b")
@example(b"\x08\x01\x3a\x00\x22\x00")
def test_any_command_is_read_as_the_library_reads_it(data: bytes) -> None:
    try:
        expected = structure(data)
    except (DecodeError, ValueError):
        with pytest.raises(MalformedFrame):
            list(PROTOBUF.commands(delimited(data)))
        return
    assert plain(*PROTOBUF.commands(delimited(data))) == plain(expected)


# ---- varints --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
@example(127, b"")
@example(128, b"")
@example(1023, b"")
@example(1024, b"")
def test_varints_are_read_as_written(value: int, rest: bytes) -> None:
    data = varint(value)
    assert read_varint(rest + data + rest, len(rest)) == (value, len(rest) + len(data))
    assert len(data) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize(("data", "error"), [(b"", IndexError), (b"\x80", IndexError), (b"\x80" * 10, ValueError)])
def test_varints_without_end(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_varint(data, 0)
