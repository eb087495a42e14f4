"""HTTP/2: requests, streams, windows, floods, the end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.support.http2 import Http2Client, http2
from tests.support.peers import House, open_house
from tests.support.sockjs import CONNECT, PREFIX, Polling, open_sockjs, quiet, with_sockjs

pytestmark = pytest.mark.virtual_time


@asynccontextmanager
async def opened(**sections: Any) -> AsyncIterator[tuple[House, Http2Client]]:
    async with open_sockjs(**sections) as house:
        client = await http2(house)
        yield house, client
        await client.stream.aclose()


def sending(*messages: dict[str, Any]) -> bytes:
    return json.dumps([json.dumps(message) for message in messages]).encode()


async def streaming(client: Http2Client, session: str = "abc") -> int:
    """A session that is connected and subscribed to news; its stream."""
    id = await client.send("POST", f"{PREFIX}/0/{session}/xhr_streaming")
    await client.until(id, b"\no\n")
    body = sending(CONNECT, {"id": 2, "subscribe": {"channel": "news"}})
    assert (await client.request("POST", f"{PREFIX}/0/{session}/xhr_send", body))[0] == 204
    await client.until(id, b'"subscribe')
    await client.until(id, b"\n")
    return id


# ---- requests -----------------------------------------------------------------------------------------------------


async def test_requests() -> None:
    async with opened() as (_, client):
        assert await client.request("GET", PREFIX) == (200, b"Welcome to SockJS!\n")
        assert (await client.request("GET", "/nowhere"))[0] == 404
        assert (await client.request("PUT", "/api/publish", b"{}"))[0] == 405
        status, body = await client.request("POST", "/api/publish", b'{"channel":"a","data":1}')
        assert (status, json.loads(body)) == (200, {"result": {}})
        assert await client.request("HEAD", PREFIX) == (200, b"")


async def test_a_body_with_a_length_and_one_in_pieces() -> None:
    async with opened() as (_, client):
        command = b'{"channel":"a","data":1}'
        assert (await client.request("POST", "/api/publish", command, content_length=str(len(command))))[0] == 200
        id = await client.send("POST", "/api/publish", command[:5], end=False)
        await quiet()
        client.h2.send_data(id, b"")
        client.h2.send_data(id, command[5:])
        client.h2.end_stream(id)
        await client.flush()
        while id not in client.ended:
            await client.read()
        assert client.status[id] == 200


async def test_what_http_1_says_about_connections_does_not_get_through() -> None:
    async with opened() as (_, client):
        id = await client.send("GET", "/nowhere")
        while id not in client.ended:
            await client.read()
        assert not client.headers[id].keys() & {"connection", "transfer-encoding", "keep-alive"}


async def test_many_requests_at_once() -> None:
    async with opened() as (_, client):
        ids = [await client.send("POST", "/api/info", b"{}") for _ in range(100)]
        while not client.ended.issuperset(ids):
            await client.read()
        assert {client.status[id] for id in ids} == {200}


async def test_a_large_body_and_a_large_answer() -> None:
    async with opened(channel={"history_size": 10, "history_ttl": "60s"}) as (_, client):
        data = "x" * 50_000
        for _ in range(4):
            body = json.dumps({"channel": "news", "data": data}).encode()
            assert (await client.request("POST", "/api/publish", body))[0] == 200
        status, answer = await client.request("POST", "/api/history", b'{"channel":"news","limit":10}')
        assert status == 200
        assert [pub["data"] for pub in json.loads(answer)["result"]["publications"]] == [data] * 4


@pytest.mark.parametrize(
    "fields",
    [
        [("bad\r\nname", "x")],
        [("bad name", "x")],
        [("name", "a\r\nInjected: yes")],
        [("name", "a\nb")],
        [("name", "a\0b")],
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
        [("content-length", "1, 2")],
    ],
)
async def test_fields_that_are_malformed(fields: list[tuple[str, str]]) -> None:
    async with opened() as (house, client):
        id = client.h2.get_next_available_stream_id()
        pseudo = [(":method", "POST"), (":path", "/api/info"), (":scheme", "https"), (":authority", "test")]
        client.h2.send_headers(id, [*pseudo, *fields])
        client.h2.send_data(id, b"{}", end_stream=True)
        client.body[id] = b""
        await client.flush()
        with trio.move_on_after(1):
            while id not in client.reset and client.terminated is None and client.status.get(id) != 400:
                await client.read()
        assert client.reset.get(id) == ErrorCodes.PROTOCOL_ERROR or client.terminated or client.status.get(id) == 400
        assert house.server.node.counters.connection_crashes == 0


@pytest.mark.parametrize("path", ["", "nothing", "/a b", "/a\r\nb", "http://evil/x", "/\xe9"])
async def test_paths_that_are_malformed(path: str) -> None:
    async with opened() as (_, client):
        id = await client.send("GET", path)
        with trio.move_on_after(1):
            while id not in client.reset and client.terminated is None:
                await client.read()
        assert id in client.reset or client.terminated


# ---- streams ------------------------------------------------------------------------------------------------------


async def test_a_stream() -> None:
    async with opened() as (house, client):
        id = await streaming(client)
        assert client.headers[id]["content-type"] == "application/javascript; charset=UTF-8"
        await house.api("publish", channel="news", data="hello")
        assert b"hello" in await client.until(id, b"\n")
        assert len(house.server.node.registry.clients) == 1
        client.h2.reset_stream(id, ErrorCodes.CANCEL)
        await client.flush()
        await quiet()
        assert house.server.node.registry.clients == {}, "who goes is noticed at once"
        assert (await client.request("GET", PREFIX))[0] == 200, "the others go on"


async def test_a_stream_that_ends() -> None:
    async with opened() as (house, client):
        id = await streaming(client)
        await house.api("disconnect", user="")
        await client.until(id, b'c[3503,"force disconnect"]\n')
        while id not in client.ended:
            await client.read()
        assert id not in client.reset


async def test_many_sessions_on_one_connection_and_their_end_with_it() -> None:
    async with opened() as (house, client):
        ids = [await streaming(client, f"s{number}") for number in range(20)]
        await house.api("publish", channel="news", data="hello")
        for id in ids:
            await client.until(id, b"hello")
        assert len(house.server.node.registry.clients) == 20
        await client.stream.aclose()
        await quiet()
        assert house.server.node.registry.clients == {}


async def test_who_gives_no_window_is_cut_off_alone() -> None:
    async with opened() as (house, client):
        slow = await streaming(client, "slow")
        fast = await streaming(client, "fast")
        client.acknowledge = False
        for number in range(4):
            await house.api("publish", channel="news", data=f"{number}" * 20_000)
            await quiet()
            with trio.move_on_after(0.001):
                while True:
                    await client.read()
            client.h2.increment_flow_control_window(40_000)
            client.h2.increment_flow_control_window(20_000, fast)
            await client.flush()
        with trio.move_on_after(2):
            while slow not in client.reset:
                await client.read()
        assert slow in client.reset
        client.acknowledge = True
        assert fast not in client.reset
        assert b"3333" in client.body[fast]
        await quiet()
        assert len(house.server.node.registry.clients) == 1


async def test_a_window_that_opens_late_lets_the_rest_through() -> None:
    async with open_house(with_sockjs()) as house:
        client = await http2(house, window=100)
        id = await client.send("GET", f"{PREFIX}/iframe.html")
        while id not in client.ended:
            await client.read()
        assert client.body[id].endswith(b"</html>\n")
        await client.stream.aclose()


async def test_a_body_that_is_too_long_and_not_read() -> None:
    async with opened(sockjs={"max_request_body_size": 100}) as (_, client):
        await client.request("POST", f"{PREFIX}/0/abc/xhr")
        id = await client.send("POST", f"{PREFIX}/0/abc/xhr_send", b"x" * 10_000, end=False)
        while id not in client.ended:
            await client.read()
        assert client.status[id] == 413
        await quiet()
        with trio.move_on_after(0.01):
            await client.read()
        assert client.reset.get(id) == ErrorCodes.NO_ERROR


# ---- attacks ------------------------------------------------------------------------------------------------------


async def sent_away(client: Http2Client, house: House) -> int | None:
    """What the server says when it has had enough; nothing of the client is left there. None if a write was cut off
    half way, which happens to answers to floods on streams like these: nothing may follow it."""
    with trio.fail_after(2):
        await client.read_all()
    await client.stream.aclose()
    await trio.sleep(2)
    assert house.server.doors.connections == set()
    return client.terminated


async def test_rapid_resets() -> None:
    async with opened() as (house, client):
        with trio.move_on_after(1):
            try:
                for _ in range(300):
                    id = client.h2.get_next_available_stream_id()
                    fields = [(":method", "GET"), (":path", PREFIX), (":scheme", "https"), (":authority", "test")]
                    client.h2.send_headers(id, fields, end_stream=True)
                    client.h2.reset_stream(id, ErrorCodes.CANCEL)
                    await client.flush()
            except trio.BrokenResourceError:
                pass
        assert await sent_away(client, house) in (ErrorCodes.ENHANCE_YOUR_CALM, None)


@pytest.mark.parametrize(
    ("frame", "count"),
    [
        (PingFrame(0, b"x" * 8), 2000),
        (SettingsFrame(0, {4: 65_535}), 2000),
        (WindowUpdateFrame(0, 1), 20_000),
    ],
    ids=["pings", "settings", "windows"],
)
async def test_floods(frame: Any, count: int) -> None:
    async with opened() as (house, client):
        flood = frame.serialize() * count
        with trio.move_on_after(1):
            for at in range(0, len(flood), 10_000):
                try:
                    await client.stream.send_all(flood[at : at + 10_000])
                except trio.BrokenResourceError:
                    break
        assert await sent_away(client, house) in (ErrorCodes.ENHANCE_YOUR_CALM, None)


async def test_a_flood_of_empty_data() -> None:
    async with opened() as (house, client):
        id = await client.send("POST", "/api/info", b"{", end=False)
        await client.stream.send_all(DataFrame(id, b"").serialize() * 2000)
        assert await sent_away(client, house) in (ErrorCodes.ENHANCE_YOUR_CALM, None)


async def test_a_head_without_end() -> None:
    async with opened() as (house, client):
        head = client.h2.encoder.encode([(":method", "GET"), (":path", "/"), (":scheme", "https")])
        first = HeadersFrame(1, head)
        await client.stream.send_all(first.serialize())
        with trio.move_on_after(1):
            for _ in range(1000):
                try:
                    await client.stream.send_all(ContinuationFrame(1, b"\x00\x01a\x01b" * 100).serialize())
                except trio.BrokenResourceError:
                    break
        assert await sent_away(client, house) is not None


async def test_a_head_that_is_too_large() -> None:
    async with opened() as (house, client):
        id = client.h2.get_next_available_stream_id()
        fields = [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "test")]
        client.h2.send_headers(id, [*fields, *((f"x-{number}", "y" * 1000) for number in range(30))], end_stream=True)
        await client.flush()
        assert await sent_away(client, house) is not None


async def test_more_streams_than_are_allowed() -> None:
    async with opened() as (house, client):
        await client.read()  # the settings
        client.h2.remote_settings[3] = 1000
        client.h2.remote_settings.acknowledge()
        with trio.move_on_after(1):
            for number in range(101):
                await client.send("POST", f"{PREFIX}/0/s{number}/xhr_streaming", b"", end=False)
        assert await sent_away(client, house) is not None


async def test_a_frame_that_is_too_large_is_not_waited_for() -> None:
    async with opened() as (house, client):
        await client.stream.send_all(b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 17_000)
        assert await sent_away(client, house) is not None


# ---- time, and the end --------------------------------------------------------------------------------------------


async def test_who_asks_for_nothing_is_sent_away() -> None:
    async with opened() as (_, client):
        began = trio.current_time()
        await client.read_all()
        assert trio.current_time() - began == pytest.approx(10, abs=1.2)
        assert client.terminated == 0


async def test_who_asks_for_nothing_more_is_sent_away() -> None:
    async with opened() as (_, client):
        assert (await client.request("GET", PREFIX))[0] == 200
        began = trio.current_time()
        await client.read_all()
        assert trio.current_time() - began == pytest.approx(30, abs=1.2)
        assert client.terminated == 0


async def test_a_body_that_does_not_come_ends_its_stream() -> None:
    async with opened() as (_, client):
        id = await client.send("POST", "/api/info", b"{", end=False)
        began = trio.current_time()
        while id not in client.reset:
            await client.read()
        assert trio.current_time() - began == pytest.approx(30, abs=1.2)
        assert (await client.request("GET", PREFIX))[0] == 200


async def test_the_shutdown_is_told_on_every_stream() -> None:
    async with opened() as (house, client):
        ids = [await streaming(client, f"s{number}") for number in range(3)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.server.doors.drain)
            await client.read_all()
            assert client.terminated == 0
            for id in ids:
                assert client.body[id] == b'c[3001,"shutdown"]\n'
            assert client.ended >= set(ids)
            await client.stream.aclose()


async def test_a_bug_ends_one_stream(monkeypatch: pytest.MonkeyPatch, error_log: Any) -> None:
    error_log.expect("a connection crashed")

    async def broken(*args: object) -> bytes:
        raise ZeroDivisionError

    async with opened() as (house, client):
        other = await streaming(client)
        route = house.server.sites[0].routes["/api/info"]
        monkeypatch.setitem(house.server.sites[0].routes, "/api/info", type(route)(route.methods, broken, 100))  # type: ignore[call-arg]
        assert (await client.request("POST", "/api/info", b"{}"))[0] == 500
        await house.api("publish", channel="news", data="hello")
        await client.until(other, b"hello")


async def test_a_session_by_polls() -> None:
    async with opened() as (house, client):
        polling = Polling(house, "abc")
        assert (await client.request("POST", f"{polling.url}/xhr"))[1] == b"o\n"
        await client.request("POST", f"{polling.url}/xhr_send", sending(CONNECT))
        assert (await client.request("POST", f"{polling.url}/xhr"))[1].startswith(b"a[")
        waiting = await client.send("POST", f"{polling.url}/xhr")
        await quiet()
        await house.api("disconnect", user="")
        while waiting not in client.ended:
            await client.read()
        assert client.body[waiting] == b'c[3503,"force disconnect"]\n'
