from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.protocol import JSON, MalformedFrame, NotJson, codes
from broker.protocol.json_codec import JsonCodec
from broker.protocol.messages import (
    ClientInfo,
    Command,
    ConnectResult,
    Publication,
    StreamPosition,
    SubscribeResult,
    payload,
)

ALICE = ClientInfo("42", "c-1", b'{"name": "Alice"}', b"[1]")
BOB = ClientInfo("", "c-2")

UNITS: list[tuple[Callable[[JsonCodec], bytes], Any]] = [
    (
        lambda c: c.error(3, codes.PERMISSION_DENIED),
        {"id": 3, "error": {"code": 103, "message": "permission denied"}},
    ),
    (
        lambda c: c.error(3, codes.INTERNAL),
        {"id": 3, "error": {"code": 100, "message": "internal server error", "temporary": True}},
    ),
    (lambda c: c.connect(1, ConnectResult()), {"id": 1, "connect": {}}),
    (
        lambda c: c.connect(
            1,
            ConnectResult(
                "c-1", "6.9.1 OSS", True, 60, b'{"a":1}', {"news": SubscribeResult(offset=1)}, 25, True, "s", "n", 9
            ),
        ),
        {
            "id": 1,
            "connect": {
                "client": "c-1",
                "version": "6.9.1 OSS",
                "expires": True,
                "ttl": 60,
                "data": {"a": 1},
                "subs": {"news": {"offset": 1}},
                "ping": 25,
                "pong": True,
                "session": "s",
                "node": "n",
                "time": 9,
            },
        },
    ),
    (lambda c: c.subscribe(2, SubscribeResult()), {"id": 2, "subscribe": {}}),
    (
        lambda c: c.subscribe(
            2,
            SubscribeResult(
                True, 60, True, "qWeR", [Publication(b"1", offset=6), Publication(b"2")], True, 7, True, b'"d"', True
            ),
        ),
        {
            "id": 2,
            "subscribe": {
                "expires": True,
                "ttl": 60,
                "recoverable": True,
                "epoch": "qWeR",
                "publications": [{"data": 1, "offset": 6}, {"data": 2}],
                "recovered": True,
                "offset": 7,
                "positioned": True,
                "data": "d",
                "was_recovering": True,
            },
        },
    ),
    (
        lambda c: c.subscribe(
            2, SubscribeResult(publications=[Publication(b'{"x":1}', version=4), Publication(b"patch")], delta=True)
        ),
        {"id": 2, "subscribe": {"publications": [{"data": '{"x":1}'}, {"data": "patch"}], "delta": True}},
    ),
    (lambda c: c.unsubscribe(3), {"id": 3, "unsubscribe": {}}),
    (lambda c: c.publish(4), {"id": 4, "publish": {}}),
    (lambda c: c.presence(5, {}), {"id": 5, "presence": {"presence": {}}}),
    (
        lambda c: c.presence(5, {"c-1": ALICE, "c-2": BOB}),
        {
            "id": 5,
            "presence": {
                "presence": {
                    "c-1": {"user": "42", "client": "c-1", "conn_info": {"name": "Alice"}, "chan_info": [1]},
                    "c-2": {"user": "", "client": "c-2"},
                }
            },
        },
    ),
    (lambda c: c.presence_stats(6, 0, 0), {"id": 6, "presence_stats": {"num_clients": 0, "num_users": 0}}),
    (lambda c: c.presence_stats(6, 3, 2), {"id": 6, "presence_stats": {"num_clients": 3, "num_users": 2}}),
    (
        lambda c: c.history(7, [], StreamPosition()),
        {"id": 7, "history": {"publications": [], "epoch": "", "offset": 0}},
    ),
    (
        lambda c: c.history(7, [Publication(b"{}", ALICE, 1, {"k": "v"}, 3)], StreamPosition(2**63 - 1, "e")),
        {
            "id": 7,
            "history": {
                "publications": [
                    {
                        "data": {},
                        "info": {"user": "42", "client": "c-1", "conn_info": {"name": "Alice"}, "chan_info": [1]},
                        "offset": 1,
                        "tags": {"k": "v"},
                        "version": 3,
                    }
                ],
                "epoch": "e",
                "offset": 2**63 - 1,
            },
        },
    ),
    (lambda c: c.rpc(8, b""), {"id": 8, "rpc": {}}),
    (lambda c: c.rpc(8, b"[null]"), {"id": 8, "rpc": {"data": [None]}}),
    (lambda c: c.refresh(9, True, 60), {"id": 9, "refresh": {"expires": True, "ttl": 60}}),
    (lambda c: c.refresh(9, False, 0), {"id": 9, "refresh": {}}),
    (lambda c: c.sub_refresh(9, True, 0), {"id": 9, "sub_refresh": {"expires": True}}),
    (lambda c: c.push_publication("a", Publication(b"1")), {"push": {"channel": "a", "pub": {"data": 1}}}),
    (lambda c: c.push_publication("a", Publication()), {"push": {"channel": "a", "pub": {}}}),
    (lambda c: c.push_publication("a", Publication(offset=2)), {"push": {"channel": "a", "pub": {"offset": 2}}}),
    (lambda c: c.push_publication("a", Publication(), escaped=True), {"push": {"channel": "a", "pub": {"data": ""}}}),
    (
        lambda c: c.push_publication('"\\\n\x00é😀', Publication(b"1", BOB, 1, {"k": '"'}, 5), epoch="xyz"),
        {
            "push": {
                "channel": '"\\\n\x00é😀',
                "pub": {
                    "data": 1,
                    "info": {"user": "", "client": "c-2"},
                    "offset": 1,
                    "tags": {"k": '"'},
                    "epoch": "xyz",
                    "version": 5,
                },
            }
        },
    ),
    (
        lambda c: c.push_publication("a", Publication("1@é,".encode(), offset=3, delta=True, version=5), escaped=True),
        {"push": {"channel": "a", "pub": {"data": "1@é,", "offset": 3, "delta": True}}},
    ),
    (
        lambda c: c.push_join("a", BOB),
        {"push": {"channel": "a", "join": {"info": {"user": "", "client": "c-2"}}}},
    ),
    (
        lambda c: c.push_leave("a", BOB),
        {"push": {"channel": "a", "leave": {"info": {"user": "", "client": "c-2"}}}},
    ),
    (
        lambda c: c.push_unsubscribe("a", codes.INSUFFICIENT),
        {"push": {"channel": "a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}},
    ),
    (
        lambda c: c.push_subscribe("a", SubscribeResult(True, 9, True, "e", offset=2, positioned=True, data=b"{}")),
        {
            "push": {
                "channel": "a",
                "subscribe": {"recoverable": True, "epoch": "e", "offset": 2, "positioned": True, "data": {}},
            }
        },
    ),
    (lambda c: c.push_refresh(True, 60), {"push": {"refresh": {"expires": True, "ttl": 60}}}),
    (
        lambda c: c.push_disconnect(codes.SHUTDOWN),
        {"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}},
    ),
    (lambda c: c.ping, {}),
]


@pytest.mark.parametrize(("unit", "expected"), UNITS)
def test_units(unit: Callable[[JsonCodec], bytes], expected: Any) -> None:
    encoded = unit(JSON)
    assert json.loads(encoded) == expected
    assert b"\n" not in encoded


def test_units_join_without_a_trailing_line_feed() -> None:
    assert JSON.join([b"{}"]) == b"{}"
    assert JSON.join([b"{}", b'{"id":1,"publish":{}}']) == b'{}\n{"id":1,"publish":{}}'


# ---- from clients ---------------------------------------------------------------------------------------------------


def test_a_frame_with_one_command() -> None:
    (command,) = JSON.commands(b'{"id":1,"publish":{"channel":"news","data":{"a": 1}}}')
    assert command.id == 1
    assert command.publish is not None
    assert command.publish.channel == "news"
    assert payload(command.publish.data) == b'{"a": 1}'


@pytest.mark.parametrize("frame", [b'{"id":1}\n{"id":2}\n{"id":3}', b'{"id":1}\n{"id":2}\n{"id":3}\n'])
def test_commands_come_in_order(frame: bytes) -> None:
    assert [command.id for command in JSON.commands(frame)] == [1, 2, 3]


@pytest.mark.parametrize(
    "frame",
    [
        b'{"id":1}\n\n{"id":2}',
        b'{"id":1}\nnot json\n{"id":2}',
        b'{"id":1}\n{"id":2}}',
        b'{"id":1}\n[]',
        b'{"id":1}\n{"id":2,"connect":{"name":"\xff"}}',
        b'{"id":1}\n{"id":2,"rpc":{"data":"\xff"}}',
        b'{"id":1}\n\n',
        b'{"id":1}\n ',
    ],
)
def test_commands_before_a_broken_one_are_given(frame: bytes) -> None:
    commands = JSON.commands(frame)
    assert next(commands).id == 1
    with pytest.raises(MalformedFrame):
        next(commands)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\n",
        b" ",
        b"\n{}",
        b"boom",
        b"[]",
        b"null",
        b"{} {}",
        b'{"id":"1"}',
        b'{"id":1.5}',
        b'{"id":-1}',
        b'{"id":4294967296}',
        b'{"id":1,"publish":[]}',
        b'{"id":1,"publish":{"channel":5}}',
        b'{"id":1,"publish":{"data":}}',
        b'{"id":1,"history":{"limit":2147483648}}',
        b'{"id":1,"subscribe":{"offset":-1}}',
        b'{"id":1,"rpc":{"data":"a\tb"}}',
        b'{"id":1,"rpc":{"data":"\xed\xa0\x80"}}',
        b'{"id":1,"rpc":{"data":NaN}}',
        b"\xef\xbb\xbf{}",
        b"[" * 65_536,
        b'{"id":1,"rpc":{"data":' + b"[" * 60_000,
        b'{"id":1,"rpc":{"data":' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
        b'{"id":1,"subscribe":{"tf":' + b'{"nodes":[' * 6_000,
    ],
)
def test_what_is_no_command(frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        list(JSON.commands(frame))


def test_a_frame_of_line_feeds_ends_at_the_first() -> None:
    seen = 0

    class Counted(bytes):
        def find(self, *args: Any) -> int:
            nonlocal seen
            seen += 1
            return super().find(*args)

    with pytest.raises(MalformedFrame):
        next(JSON.commands(Counted(b"\n" * 65_536)))
    assert seen == 1


def test_null_members_count_as_absent() -> None:
    text = b"""{"id":1,"connect":null,"subscribe":{"channel":"a","token":null,"recover":null,"epoch":null,"offset":null,
    "data":null,"tf":null,"flag":null,"type":null,"limit":null,"asc":null},"history":{"since":null},"rpc":null}"""
    (command,) = JSON.commands(text.replace(b"\n", b""))
    assert command.connect is None
    assert command.rpc is None
    request = command.subscribe
    assert request is not None
    assert not any((request.token, request.recover, request.epoch, request.offset, request.tf, request.flag))
    assert payload(request.data) == b""


def test_unknown_members_are_ignored() -> None:
    assert list(JSON.commands(b'{"id":1,"later":{"x":[1]}}')) == [Command(1)]


def test_an_empty_command_is_a_pong() -> None:
    assert list(JSON.commands(b"{}")) == [Command()]


# ---- payloads that JSON cannot carry --------------------------------------------------------------------------------

NOT_JSON = [b"boom", b"{", b"{} {}", b"\xff", b'"\xff"', b'"a\tb"', b"NaN", b" ", b'"\\ud8"', b"[" * 100_000]


@pytest.mark.parametrize("data", NOT_JSON)
@pytest.mark.parametrize(
    "unit",
    [
        lambda data: JSON.push_publication("a", Publication(data)),
        lambda data: JSON.history(1, [Publication(data)], StreamPosition()),
        lambda data: JSON.subscribe(1, SubscribeResult(publications=[Publication(data)])),
        lambda data: JSON.subscribe(1, SubscribeResult(data=data)),
        lambda data: JSON.connect(1, ConnectResult(data=data)),
        lambda data: JSON.push_subscribe("a", SubscribeResult(data=data)),
        lambda data: JSON.rpc(1, data),
        lambda data: JSON.presence(1, {"c": ClientInfo(conn_info=data)}),
        lambda data: JSON.push_join("a", ClientInfo(chan_info=data)),
    ],
)
def test_other_payloads_are_refused(unit: Callable[[bytes], bytes], data: bytes) -> None:
    with pytest.raises(NotJson):
        unit(data)


def test_whether_a_publication_is_json_is_asked_once() -> None:
    good, bad = Publication(b"{}"), Publication(b"boom")
    JSON.push_publication("a", good)
    with pytest.raises(NotJson):
        JSON.push_publication("a", bad)
    assert (good.is_json, bad.is_json) == (True, False)
    with pytest.raises(NotJson):
        JSON.push_publication("a", Publication(b"{}", is_json=False))


def test_an_escaped_payload_is_any_text() -> None:
    unit = JSON.push_publication("a", Publication(b"boom\n", is_json=False), escaped=True)
    assert json.loads(unit)["push"]["pub"] == {"data": "boom\n"}
    with pytest.raises(NotJson):
        JSON.push_publication("a", Publication(b"\xff"), escaped=True)


def test_line_feeds_of_a_payload_are_deleted() -> None:
    unit = JSON.push_publication("a", Publication(b'{\n"a": [1,\r\n2]\n}'))
    assert unit == b'{"push":{"channel":"a","pub":{"data":{"a": [1,\r2]}}}}'
    assert b"\n" not in JSON.rpc(1, b"[\n]")
