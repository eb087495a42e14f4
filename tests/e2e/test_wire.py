"""Conversations on a bare WebSocket: what a client says, and everything that it hears.

The answers are Centrifugo 6.9's, too: run with `BROKER_E2E_PEER` to see.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, wrap_client_stream

from tests.e2e.conftest import GetBroker
from tests.e2e.daemon import Daemon
from tests.support.patience import PATIENCE

HISTORY = {"history_size": 10, "history_ttl": "60s"}
OPEN = {
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_subscriber": True,
    "allow_publish_for_anonymous": True,
    "allow_presence_for_subscriber": True,
    "allow_presence_for_anonymous": True,
    "allow_history_for_subscriber": True,
    "allow_history_for_anonymous": True,
}
CONFIG: dict[str, Any] = {
    "client": {"allow_anonymous_connect_without_token": True, "channel_limit": 2},
    "channel": {
        "namespaces": [
            {"name": "chat", "presence": True, **HISTORY, **OPEN},
            {"name": "stream", "force_recovery": True, **HISTORY, **OPEN},
            {"name": "bare", "allow_tags_filter": True, **OPEN},
            {"name": "closed"},
        ]
    },
}

CONNECT = '{"id":1,"connect":{}}'
CONNECTED = {"id": 1, "connect": {"client": "*", "version": "*", "ping": 25, "pong": True}}
SUBSCRIBED = {"id": 2, "subscribe": {}}
BAD_REQUEST = (3501, "bad request")
LAST = {"id": 999, "unsubscribe": {}}


def error(code: int, message: str, id: int = 2) -> dict[str, Any]:
    return {"id": id, "error": {"code": code, "message": message}}


def subscribe(channel: str, id: int = 2, **more: Any) -> str:
    return json.dumps({"id": id, "subscribe": {"channel": channel, **more}})


def command(id: int, **members: Any) -> str:
    return json.dumps({"id": id, **members})


async def converse(daemon: Daemon, frames: list[str | bytes]) -> list[Any]:
    """Send all frames, and a command that is always answered; all that came back before that answer, or the close code.

    What differs from run to run, client ids, epochs and versions, is `*`.
    """
    heard: list[Any] = []
    async with await trio.open_tcp_stream("127.0.0.1", daemon.outside) as stream, trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/connection/websocket")
        with suppress(ConnectionClosed):  # closed already: what was said before is still to be read
            for frame in [*frames, command(999, unsubscribe={"channel": "none"})]:
                await websocket.send_message(frame)
        try:
            with trio.fail_after(PATIENCE):
                while LAST not in heard:
                    message = await websocket.get_message()
                    heard += [starred(json.loads(line)) for line in str(message).split("\n")]
        except ConnectionClosed as closed:
            heard.append((int(closed.reason.code), closed.reason.reason or ""))  # type: ignore[union-attr]
        await websocket.aclose()
    return [line for line in heard if line != LAST]


def starred(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "*" if name in ("client", "epoch", "version") and isinstance(part, str) else starred(part)
            for name, part in value.items()
        }
    return [starred(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("", id="an empty frame"),
        pytest.param("\n", id="a line feed"),
        pytest.param("nope", id="no JSON"),
        pytest.param("[]", id="an array"),
        pytest.param("1", id="a number"),
        pytest.param("{", id="half an object"),
        pytest.param('{"connect":{}}', id="no id"),
        pytest.param('{"id":0,"connect":{}}', id="id 0"),
        pytest.param('{"id":"1","connect":{}}', id="a text for an id"),
        pytest.param('{"id":-1,"connect":{}}', id="a negative id"),
        pytest.param('{"id":1.5,"connect":{}}', id="a fraction for an id"),
        pytest.param('{"id":4294967296,"connect":{}}', id="an id of 33 bits"),
        pytest.param('{"id":1,"connect":null}', id="null for a command"),
        pytest.param('{"id":1,"connect":5}', id="a number for a command"),
        pytest.param('{"id":1,"connect":[]}', id="an array for a command"),
        pytest.param('{"id":1,"connect":{"token":5}}', id="a number for a token"),
        pytest.param('{"id":1,"subscribe":{"channel":"chat:a"}}', id="not connected"),
        pytest.param('{"id":1,"connect":{"subs":{"nowhere:a":{}}}}', id="an unknown namespace in subs"),
    ],
)
async def test_no_connection_begins_like_this(broker: GetBroker, frame: str) -> None:
    assert await converse(await broker(CONFIG), [frame]) == [BAD_REQUEST]


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(CONNECT, id="connect again"),
        pytest.param("{}", id="a pong that nobody asked for"),
        pytest.param('{"id":2}', id="no command"),
        pytest.param('{"id":2,"ping":{}}', id="ping"),
        pytest.param('{"id":2,"subscribe":{}}', id="subscribe without a channel"),
        pytest.param(subscribe(""), id="subscribe to nothing"),
        pytest.param('{"id":2,"subscribe":{"channel":null}}', id="subscribe to null"),
        pytest.param(subscribe("chat:a", delta="other"), id="an unknown delta"),
        pytest.param(command(2, unsubscribe={"channel": ""}), id="unsubscribe from nothing"),
        pytest.param(command(2, publish={"channel": "", "data": 1}), id="publish to nothing"),
        pytest.param(command(2, presence={"channel": ""}), id="presence of nothing"),
        pytest.param(command(2, presence_stats={"channel": ""}), id="presence stats of nothing"),
        pytest.param(command(2, history={"channel": ""}), id="history of nothing"),
        pytest.param(command(2, refresh={"token": ""}), id="refresh without a token"),
        pytest.param(command(2, sub_refresh={"channel": "", "token": "x"}), id="sub_refresh of nothing"),
        pytest.param(CONNECT.replace("1", "2") + "\n\n" + CONNECT, id="an empty line in the middle"),
    ],
)
async def test_what_ends_a_connection(broker: GetBroker, frame: str) -> None:
    assert await converse(await broker(CONFIG), [CONNECT, frame]) == [CONNECTED, BAD_REQUEST]


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (command(2, refresh={"token": "x"}), (3500, "invalid token")),
        ('{"send":{"data":{}}}', (3508, "not available")),
        (command(2, send={"data": {}}), (3508, "not available")),
        ("x" * 65_537, (1009, "")),
    ],
    ids=["a bad token", "send", "send with an id", "a frame that is too large"],
)
async def test_other_ends(broker: GetBroker, frame: str, why: tuple[int, str]) -> None:
    assert await converse(await broker(CONFIG), [CONNECT, frame]) == [CONNECTED, why]


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (subscribe("nowhere:a"), error(102, "unknown channel")),
        (subscribe("closed:a"), error(103, "permission denied")),
        (subscribe("$chat:a"), error(103, "permission denied")),
        (subscribe("chat:é"), error(107, "bad request")),
        (subscribe("chat:" + "x" * 251), error(107, "bad request")),
        (subscribe("chat:a", token="x"), error(103, "permission denied")),
        (subscribe("chat:a", type=1), error(103, "permission denied")),
        (subscribe("chat:a", type=4), error(108, "not available")),
        (subscribe("chat:a", tf={"key": "a", "cmp": "eq", "val": "b"}), error(107, "bad request")),
        (subscribe("bare:a", tf={"key": "a", "cmp": "no", "val": "b"}), error(107, "bad request")),
        (subscribe("stream:a", recover=True, epoch="x", flag=2), error(112, "unrecoverable position")),
        (command(2, unsubscribe={"channel": "nowhere:a"}), {"id": 2, "unsubscribe": {}}),
        (command(2, publish={"channel": "nowhere:a", "data": 1}), error(102, "unknown channel")),
        (command(2, publish={"channel": "chat:a", "data": 1}), error(103, "permission denied")),
        (command(2, publish={"channel": "chat:a"}), error(107, "bad request")),
        (command(2, presence={"channel": "chat:a"}), error(103, "permission denied")),
        (command(2, presence={"channel": "bare:a"}), error(108, "not available")),
        (command(2, presence_stats={"channel": "bare:a"}), error(108, "not available")),
        (command(2, history={"channel": "chat:a"}), error(103, "permission denied")),
        (command(2, history={"channel": "bare:a"}), error(108, "not available")),
        (command(2, rpc={"method": "x", "data": {}}), error(108, "not available")),
        (command(2, rpc={}), error(108, "not available")),
        (command(2, sub_refresh={"channel": "chat:a", "token": "x"}), error(103, "permission denied")),
    ],
)
async def test_what_is_answered_to_a_stranger(broker: GetBroker, frame: str, answer: dict[str, Any]) -> None:
    assert await converse(await broker(CONFIG), [CONNECT, frame]) == [CONNECTED, answer]


async def test_subscribing(broker: GetBroker, key: str) -> None:
    frames = [
        CONNECT + "\n" + subscribe(f"chat:{key}"),
        subscribe(f"chat:{key}", 3),
        subscribe(f"stream:{key}", 4),
        subscribe(f"bare:{key}", 5),
        command(6, unsubscribe={"channel": f"chat:{key}"}),
        command(7, unsubscribe={"channel": f"chat:{key}"}),
        subscribe(f"bare:{key}", 8),
    ]
    positioned = {"recoverable": True, "positioned": True, "epoch": "*"}
    assert await converse(await broker(CONFIG), [*frames]) == [
        CONNECTED,
        SUBSCRIBED,
        error(105, "already subscribed", 3),
        {"id": 4, "subscribe": positioned},
        error(106, "limit exceeded", 5),
        {"id": 6, "unsubscribe": {}},
        {"id": 7, "unsubscribe": {}},
        {"id": 8, "subscribe": {}},
    ]


async def test_publishing(broker: GetBroker, key: str) -> None:
    """The reply to a subscribe comes before a push in its channel, a push before the reply to its publish."""
    channel = f"chat:{key}"
    first = {"data": {"a": "<b>&"}, "info": {"user": "", "client": "*"}, "offset": 1}
    frames = [
        CONNECT + "\n" + subscribe(channel) + "\n" + command(3, publish={"channel": channel, "data": {"a": "<b>&"}}),
        '{"id":4,"publish":{"channel":"CHANNEL","data":null}}'.replace("CHANNEL", channel),
        command(5, presence_stats={"channel": channel}),
        command(6, presence={"channel": channel}),
        command(7, history={"channel": channel}),
    ]
    heard = await converse(await broker(CONFIG), [*frames])
    (present,) = heard[7]["presence"].pop("presence").values()
    assert present == {"user": "", "client": "*"}
    assert heard == [
        CONNECTED,
        SUBSCRIBED,
        {"push": {"channel": channel, "pub": {**first, "epoch": "*"}}},  # the first of an epoch says which
        {"id": 3, "publish": {}},
        {"push": {"channel": channel, "pub": {**first, "data": None, "offset": 2}}},
        {"id": 4, "publish": {}},
        {"id": 5, "presence_stats": {"num_clients": 1, "num_users": 1}},
        {"id": 6, "presence": {}},
        {"id": 7, "history": {"publications": [], "epoch": "*", "offset": 2}},
    ]


async def test_history_and_its_refusals(broker: GetBroker, key: str) -> None:
    channel = f"chat:{key}"
    daemon = await broker(CONFIG)
    await daemon.api("publish", channel=channel, data=1, tags={"a": "b"})
    await daemon.api("publish", channel=channel, data=2)

    def history(id: int, **more: Any) -> str:
        return command(id, history={"channel": channel, **more})

    heard = await converse(
        daemon,
        [
            CONNECT + "\n" + subscribe(channel),
            history(3, limit=1, reverse=True),
            history(4, limit=5, since={"offset": 1, "epoch": ""}),
            history(5, limit=5, since={"offset": 1, "epoch": "x"}),
            history(6, limit=5, since={"offset": 0, "epoch": ""}, reverse=True),
        ],
    )
    second = {"publications": [{"data": 2, "offset": 2}], "epoch": "*", "offset": 2}
    assert heard[2:] == [
        {"id": 3, "history": second},
        {"id": 4, "history": second},
        error(112, "unrecoverable position", 5),
        error(107, "bad request", 6),
    ]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ({"offset": 1}, {"recovered": True, "offset": 1, "publications": [{"data": 2, "offset": 2}]}),
        ({"offset": 2}, {"recovered": True, "offset": 2}),
        ({"offset": 3}, {"offset": 2}),
        ({"offset": 2, "epoch": "other"}, {"offset": 2}),
    ],
    ids=["one missed", "none missed", "ahead of the stream", "another epoch"],
)
async def test_recovery(broker: GetBroker, key: str, asked: dict[str, Any], answered: dict[str, Any]) -> None:
    daemon = await broker(CONFIG)
    for number in (1, 2):
        await daemon.api("publish", channel=f"stream:{key}", data=number)
    heard = await converse(daemon, [CONNECT, subscribe(f"stream:{key}", recover=True, **asked)])
    always = {"recoverable": True, "positioned": True, "epoch": "*", "was_recovering": True}
    assert heard == [CONNECTED, {"id": 2, "subscribe": always | answered}]


async def test_subscriptions_in_the_connect_command(broker: GetBroker) -> None:
    """What may not be subscribed to is left out without a word."""
    frame = '{"id":1,"connect":{"subs":{"bare:a":{},"closed:a":{},"$bare:b":{}}}}'
    (connected,) = await converse(await broker(CONFIG), [frame])
    assert connected["connect"]["subs"] == {"bare:a": {}}


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(CONNECT + "\n", id="a line feed at the end"),
        pytest.param(CONNECT.encode(), id="a binary frame"),
        pytest.param('{"id":2,"id":1,"connect":{}}', id="a member twice: the last counts"),
        pytest.param('{"id":1,"connect":{"x":1},"y":[{}]}', id="members that nobody knows"),
        pytest.param('{"id":1,"subscribe":{"channel":"nowhere:a"},"connect":{}}', id="two commands: connect counts"),
        pytest.param('{"id":1,"connect":{"name":"%s"}}' % ("x" * 300), id="a long name"),
        pytest.param('{"id":1,"connect":{"data":%s}}' % ("[" * 500 + "]" * 500), id="deep data"),
    ],
)
async def test_oddities_that_are_welcome(broker: GetBroker, frame: str | bytes) -> None:
    assert await converse(await broker(CONFIG), [frame]) == [CONNECTED]
