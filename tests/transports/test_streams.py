"""Sessions over responses without an end, in both directions: HTTP streaming and server-sent events."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import trio

from broker.protocol import codes
from tests.conftest import ErrorLog
from tests.support.clock import seconds
from tests.support.fleet import Bus, open_fleet
from tests.support.peers import NO_PINGS, WALL, open_house, options, secured, token
from tests.support.slow_engine import Gates
from tests.support.streams import ON, emulate, open_stream, request

pytestmark = pytest.mark.virtual_time

SHUTDOWN = {"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}}


def on(channel: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    return options(channel, **{**ON, **sections})


def disconnect(code: int, reason: str) -> dict[str, Any]:
    return {"push": {"disconnect": {"code": code, "reason": reason}}}


CONNECT = {"id": 1, "connect": {}}
FORMS = [
    ("http_stream", {}),
    ("http_stream", {"binary": True}),
    ("http_stream", {"version": "1.0"}),
    ("sse", {}),
    ("sse", {"get": True}),
    ("sse", {"get": True, "version": "1.0"}),
]
each_form = pytest.mark.parametrize(("transport", "form"), FORMS, ids=lambda value: str(value))


@each_form
async def test_a_conversation(transport: str, form: dict[str, Any]) -> None:
    binary = form.get("binary", False)
    async with open_house(on({"history_size": 5, "history_ttl": "60s"})) as house:
        client = await open_stream(house, transport, **form)
        assert client.hello["node"] == house.server.node.uid
        assert client.hello["session"] != client.hello["client"]
        assert client.hello["pong"] is True
        subscribe = {"id": 2, "subscribe": {"channel": "news"}}
        assert (await emulate(house, client, subscribe, binary=binary)).status == 204
        assert (await client.next())["id"] == 2
        await house.api("publish", channel="news", data={"n": 1})
        pub = (await client.next())["push"]["pub"]
        assert (pub["data"], pub["offset"]) == (b'{"n": 1}' if binary else {"n": 1}, 1)
        await house.api("disconnect", user="")
        assert await client.rest() == [disconnect(3503, "force disconnect")]
        assert client.ended == ("version" not in form)


async def test_the_request_may_hold_more_than_the_connect() -> None:
    async with open_house(on()) as house:
        client = await open_stream(house, "http_stream", CONNECT, {"id": 2, "subscribe": {"channel": "news"}})
        assert await client.next() == {"id": 2, "subscribe": {}}


async def test_headers() -> None:
    async with open_house(on()) as house:
        types = {}
        for transport, form in FORMS[:4:2] + FORMS[1:2] + FORMS[3:4]:
            client = await open_stream(house, transport, **form)
            headers = client.headers
            types[transport, *form] = headers["content-type"]
            assert headers["x-accel-buffering"] == "no"
            assert headers["cache-control"] == "private, no-cache, no-store, must-revalidate, max-age=0"
            assert headers["connection"] == "close"
            assert ("transfer-encoding" in headers) == ("version" not in form)
            assert not [name for name in headers if name.startswith("access-control")]
        assert types == {
            ("http_stream",): "text/plain; charset=utf-8",
            ("http_stream", "version"): "text/plain; charset=utf-8",
            ("http_stream", "binary"): "application/octet-stream",
            ("sse",): "text/event-stream; charset=utf-8",
        }


async def test_a_carriage_return_ends_no_event() -> None:
    async with open_house(on()) as house:
        client = await open_stream(house, "sse", CONNECT, {"id": 2, "subscribe": {"channel": "news"}}, get=True)
        await client.next()
        spaced = b'{"channel": "news", "data": {"a":\r\n 1,\r "b": "\\r"}}'
        assert (await house.http("POST", "/api/publish", spaced)).status == 200
        assert (await client.next())["push"]["pub"]["data"] == {"a": 1, "b": "\r"}


# ---- what ends a stream --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
async def test_a_client_that_goes_is_noticed_at_once(transport: str) -> None:
    async with open_house(on()) as house:
        client = await open_stream(house, transport)
        assert len(house.server.node.registry.clients) == 1
        with seconds(0):
            await client.leave()
            await trio.testing.wait_all_tasks_blocked()
        assert house.server.node.registry.clients == {}
        assert house.server.node.registry.sessions == {}


async def test_a_pong_is_expected_and_comes_by_emulation() -> None:
    async with open_house(on(client={"ping_interval": "20s", "pong_timeout": "5s"})) as house:
        client = await open_stream(house, "sse", get=True)
        assert await client.next(pings=True) == {}
        await emulate(house, client, {})
        assert await client.next(pings=True) == {}
        with seconds(5):
            assert await client.rest() == [disconnect(3012, "no pong")]


async def test_an_error_of_connect_is_told_and_the_stale_timer_ends_it() -> None:
    async with open_house({**ON, **secured()}) as house:
        connect = {"id": 1, "connect": {"token": token("alice", exp=WALL - 10)}}
        more = {"id": 2, "subscribe": {"channel": "x"}}
        client = await open_stream(house, "http_stream", connect, more)
        assert await client.next() == {"id": 1, "error": {"code": 109, "message": "token expired"}}
        with seconds(10):
            assert await client.rest() == [disconnect(3502, "stale")]


async def test_a_connect_that_is_refused() -> None:
    async with open_house({**ON, **secured()}) as house:
        client = await open_stream(house, "http_stream", {"id": 1, "connect": {"token": "broken"}})
        assert await client.rest() == [disconnect(3500, "invalid token")]


@pytest.mark.parametrize("body", [b"", b"hello", b'{"id":1}', b'{"id":1,"subscribe":{"channel":"x"}}', b"\n\n", b"{}"])
async def test_a_body_that_is_no_connect(body: bytes) -> None:
    async with open_house(on()) as house:
        for binary in (False, True):
            stream = await house.open_stream()
            kind = "Content-Type: application/octet-stream\r\n" if binary else ""
            await stream.send_all(request("http_stream", body, headers=kind))
            came = await everything(stream)
            assert came.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"bad request" in came
            assert came.endswith(b"\r\n0\r\n\r\n")


async def everything(stream: Any) -> bytes:
    came = b""
    while data := await stream.receive_some():
        came += data
    await stream.aclose()
    return came


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request("sse", b"", method="GET"), 400),
        (request("sse", b"", method="GET", query="?cf_connect="), 400),
        (request("sse", b"", method="OPTIONS"), 405),
        (request("http_stream", b"", method="GET"), 405),
        (request("http_stream", b"x" * 65537), 413),
        (request("sse", b"x" * 65537), 413),
        (request("http_stream", b"", headers="Origin: http://evil.example\r\n"), 403),
        (request("sse", b"", method="GET", query="?cf_connect=x", headers="Origin: null\r\n"), 403),
    ],
)
async def test_requests_that_begin_nothing(sent: bytes, status: int) -> None:
    async with open_house(on(client={"allowed_origins": ["http://ok.example"]})) as house:
        stream = await house.open_stream()
        await stream.send_all(sent)
        head = await stream.receive_some()
        assert int(head.split(b" ")[1]) == status
        assert house.server.node.registry.clients == {}
        await stream.aclose()


async def test_a_chunked_body_that_is_too_long_is_cut_off() -> None:
    async with open_house(on()) as house:
        stream = await house.open_stream()
        head = b"POST /connection/http_stream HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        await stream.send_all(head + b"11000\r\n" + b"x" * 0x11000)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 413 ")
        await stream.aclose()


async def test_what_follows_the_request_is_nothing_and_a_flood_of_it_ends_the_stream() -> None:
    async with open_house(on()) as house:
        client = await open_stream(house, "http_stream", CONNECT, {"id": 2, "subscribe": {"channel": "news"}})
        await client.next()
        await client.stream.send_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
        await house.api("publish", channel="news", data=1)
        assert (await client.next())["push"]["pub"]["data"] == 1
        await client.stream.send_all(b"x" * 70_000)
        assert await client.rest() == []
        assert house.server.node.registry.clients == {}


async def test_a_reader_that_stops() -> None:
    async with open_house(on(client={**NO_PINGS})) as house:
        client = await open_stream(
            house, "sse", CONNECT, {"id": 2, "subscribe": {"channel": "news"}}, get=True, lockstep=True
        )
        await client.next()
        await house.api("publish", channel="news", data="x" * 1000)
        await trio.sleep(0.9)
        assert house.server.node.registry.clients
        await trio.sleep(0.2)  # the deadline of a write is over
        assert not house.server.node.registry.clients
        assert house.server.node.counters.server_disconnects[3009] == 1
        await client.leave()


async def test_too_much_for_a_reader_that_is_slow() -> None:
    async with open_house(on(client={**NO_PINGS, "queue_max_size": 10_000})) as house:
        client = await open_stream(
            house, "http_stream", CONNECT, {"id": 2, "subscribe": {"channel": "news"}}, lockstep=True
        )
        await client.next()
        for _ in range(3):
            await house.api("publish", channel="news", data="x" * 6000)
        assert house.server.node.counters.server_disconnects[3008] == 1
        await client.leave()


async def test_the_server_leaves() -> None:
    async with open_house(on()) as house:
        client = await open_stream(house, "sse", get=True)
        house.server.doors.connections.copy().pop().machine.failed(codes.SHUTDOWN)
        assert await client.rest() == [SHUTDOWN]
        assert client.ended


# ---- emulation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
async def test_wrong_sessions_nodes_and_codecs(transport: str) -> None:
    async with open_house(on()) as house:
        client = await open_stream(house, transport)
        publish = {"id": 2, "publish": {"channel": "news", "data": {}}}
        assert (await emulate(house, client, publish, session="")).status == 204
        assert (await emulate(house, client, publish, session=client.hello["client"])).status == 204
        assert (await emulate(house, client, publish, node="another")).status == 404
        assert (await emulate(house, client, publish, node="")).status == 404
        body = {"node": client.hello["node"], "session": client.hello["session"], "data": publish}
        assert (await house.http("POST", "/emulation", json.dumps(body).encode())).status == 204  # no string: nothing
        assert (await emulate(house, client, {"id": 2, "rpc": {"method": "x"}}, binary=True)).status == 204  # not JSON
        await emulate(house, client, {"id": 3, "rpc": {"method": "none"}})
        assert (await client.next())["id"] == 3
        body["data"] = "hello"
        assert (await house.http("POST", "/emulation", json.dumps(body).encode())).status == 204
        assert await client.rest() == [disconnect(3501, "bad request")]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"hello", {}, 400),
        (b"[]", {}, 400),
        (b'{"node":1}', {}, 400),
        (b"{}", {}, 404),
        (b"null" * 20_000, {}, 413),
        (b"\x0a\xff", {"Content-Type": "application/octet-stream"}, 400),
        (b"\x0f\x00", {"Content-Type": "application/octet-stream"}, 400),
        (b"\x0a\x01\xff", {"Content-Type": "application/octet-stream"}, 400),
        (b"", {"Content-Type": "application/octet-stream"}, 404),
        (b"{}", {"Origin": "http://evil.example"}, 403),
    ],
)
async def test_bodies_that_are_no_emulation(body: bytes, headers: dict[str, str], status: int) -> None:
    async with open_house(on(client={"allowed_origins": ["http://ok.example"]})) as house:
        assert (await house.http("POST", "/emulation", body, headers)).status == status


@pytest.mark.parametrize("path", ["/connection/http_stream", "/connection/uni_http_stream", "/emulation"])
async def test_preflight(path: str) -> None:
    async with open_house(on(client={"allowed_origins": ["http://ok.example"]})) as house:
        asks = {"Origin": "http://OK.example", "Access-Control-Request-Headers": "content-type"}
        answer = await house.http("OPTIONS", path, b"", asks)
        assert answer.status == 204
        assert {name: value for name, value in answer.headers.items() if name.startswith("access-control")} == {
            "access-control-allow-origin": "http://OK.example",
            "access-control-allow-credentials": "true",
            "access-control-allow-headers": "content-type",
            "access-control-allow-methods": "POST, OPTIONS",
            "access-control-max-age": "300",
        }
        assert (await house.http("OPTIONS", path, b"", {"Origin": "http://evil.example"})).status == 403


async def test_a_preflight_leaves_the_connection_open() -> None:
    async with open_house(on(client={"allowed_origins": ["*"]})) as house:
        stream = await house.open_stream()
        await stream.send_all(request("http_stream", b"", method="OPTIONS", headers="Origin: http://any.example\r\n"))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 204 ")
        await stream.send_all(request("http_stream", b'{"id":1,"connect":{}}'))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await stream.aclose()


async def test_frames_wait_for_each_other() -> None:
    gates = Gates()
    async with open_house(on({"presence": True}), pace=gates) as house:
        client = await open_stream(house, "sse", get=True)
        gates.hold("subscribe")
        assert (await emulate(house, client, {"id": 2, "subscribe": {"channel": "a"}})).status == 204
        for id in (3, 4):
            answer = await emulate(house, client, {"id": id, "rpc": {"method": "none"}})
            assert answer.status == 204
        gates.open("subscribe")
        assert [(await client.next())["id"] for _ in range(3)] == [2, 3, 4]


async def test_a_flood_of_frames_that_wait_is_bounded() -> None:
    gates = Gates()
    async with open_house(on(client={"queue_max_size": 50_000}), pace=gates) as house:
        client = await open_stream(house, "sse", get=True)
        gates.hold("subscribe")
        await emulate(house, client, {"id": 2, "subscribe": {"channel": "a"}})
        for id in range(3, 10):
            await emulate(house, client, {"id": id, "rpc": {"method": "x" * 10_000}})
        assert await client.rest() == [disconnect(3013, "too many requests")]
        gates.open("subscribe")


async def test_a_bug_in_a_command_that_came_by_emulation_ends_its_session_only(
    monkeypatch: pytest.MonkeyPatch, error_log: ErrorLog
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("broker.sessions.queries.rpc", broken)
    async with open_house(on()) as house:
        client = await open_stream(house, "sse", get=True)
        assert (await emulate(house, client, {"id": 2, "rpc": {"method": "x"}})).status == 204
        assert await client.rest() == [disconnect(3004, "internal server error")]
        error_log.expect("a bug")


async def test_any_node_takes_what_a_client_sends() -> None:
    async with open_fleet(2, on()) as (_, (a, b)):
        await trio.sleep(1)
        for transport, form in FORMS[:2]:
            client = await open_stream(a, transport, **form)
            rpc = {"id": 2, "rpc": {"method": "none"}}
            assert (await emulate(b, client, rpc, binary=form.get("binary", False))).status == 204
            assert (await client.next())["id"] == 2
            assert (await emulate(b, client, rpc, session="another")).status == 204
            await client.leave()


async def test_a_node_that_does_not_answer() -> None:
    bus = Bus(random.Random(1))
    async with open_fleet(2, on(), bus=bus) as (_, (a, b)):
        await trio.sleep(1)
        client = await open_stream(a, "sse", get=True)
        bus.mute.add(a.server.node.uid)
        with seconds(1):
            assert (await emulate(b, client, {})).status == 500
        await client.leave()


async def test_too_many_connections() -> None:
    async with open_house(on(client={"connection_limit": 1})) as house:
        client = await open_stream(house, "sse", get=True)
        for transport, method in (("http_stream", "POST"), ("sse", "GET"), ("uni_sse", "GET")):
            answer = await house.http(method, f"/connection/{transport}?cf_connect=%7B%7D", b"")
            assert answer.status == 503
        await client.leave()


async def test_off_by_default() -> None:
    async with open_house() as house:
        for path in ("http_stream", "sse", "uni_sse", "uni_http_stream", "uni_websocket"):
            assert (await house.http("POST", f"/connection/{path}", b"{}")).status == 404
        assert (await house.http("POST", "/emulation", b"{}")).status == 404


async def test_init() -> None:
    async with open_house(on(client={"allowed_origins": ["http://ok.example"]}, init={"enabled": True})) as house:
        answer = await house.http("GET", "/connection/init", b"", {"Origin": "http://ok.example"})
        assert (answer.status, answer.body) == (200, b"{}")
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["access-control-allow-origin"] == "http://ok.example"
        assert (await house.http("GET", "/connection/init")).status == 200
        assert (await house.http("POST", "/connection/init")).status == 405
        assert (await house.http("GET", "/connection/init", b"", {"Origin": "http://evil.example"})).status == 403
    async with open_house(on()) as house:
        assert (await house.http("GET", "/connection/init")).status == 404
