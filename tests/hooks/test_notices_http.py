"""Backends that are told what has happened, over HTTP: what they get, and what becomes of bad answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.support.backend import Backend
from tests.support.peers import NO_PINGS, open_house, secured, token

pytestmark = pytest.mark.virtual_time(idle=0.01)

OK = {"result": {}}


def options(url: str, **more: Any) -> dict[str, Any]:
    proxy = {"endpoint": url, "timeout": "600s", **more}
    return {
        **secured(client={**NO_PINGS, "proxy": {"disconnect": {"enabled": True, **proxy}}}),
        "channel": {
            "without_namespace": {
                "allow_subscribe_for_client": True,
                "unsubscribe_proxy_enabled": True,
                "unsubscribe_proxy_name": "leaving",
                "state_proxy_enabled": True,
                "state_proxy_name": "states",
            },
        },
        "proxies": [{"name": "leaving", **proxy}, {"name": "states", **proxy, "endpoint": f"{url}/state"}],
    }


async def test_requests(backend: Backend) -> None:
    await backend.answer("/told", OK)
    await backend.answer("/told/state", OK)
    config = options(backend.url("/told"), include_connection_meta=True, http_headers=["X-Device"])
    async with open_house(config) as house:
        client = await house.connected(token=token("42", meta={"a": 1}), with_headers="X-Device: phone\r\n")
        await client.ask(subscribe={"channel": "news"})
        await trio.sleep(1)
        await client.ask(unsubscribe={"channel": "news"})
        await client.leave()
        await trio.sleep(10)
    requests = await backend.requests("/told")
    assert {asked.headers["x-device"] for asked in requests} == {"phone"}
    unsubscribed, disconnected = (asked.json() for asked in requests)
    head = {"client": client.hello["client"], "transport": "websocket", "protocol": "json", "encoding": "json"}
    head |= {"user": "42", "meta": {"a": 1}}
    assert unsubscribed.pop("time_ms") > 1_700_000_000_000
    assert unsubscribed == {**head, "channel": "news", "code": 0, "reason": "client unsubscribed"}
    assert disconnected.pop("time_ms") > 1_700_000_000_000
    assert disconnected.pop("duration_ms") >= 0
    assert disconnected == {**head, "code": 3000, "reason": "connection closed"}
    occupied, vacated = (asked.json() for asked in await backend.requests("/told/state"))
    assert occupied["node"] == vacated["node"] == house.server.node.uid
    assert set(occupied["events"][0]) == {"channel", "type", "time_ms", "generation"}
    assert vacated["events"][0]["generation"] > occupied["events"][0]["generation"]


BAD = [
    {"status": 500},
    {"status": 301, "headers": {"Location": "/good"}},
    {"status": 204},
    {"body": b"<html></html>"},
    {"body": b'{"result": []}'},
    {"body": b'{"error": {"code": 1000, "message": "no"}}'},
    {"body": b'{"disconnect": {"code": 4500, "reason": "bye"}}'},
    {"raw": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"},
    {"raw": b""},
]
IDS = ["500", "redirect", "204", "html", "type", "error", "disconnect", "cut", "gone"]


@pytest.mark.parametrize(
    "how", BAD, ids=["500", "redirect", "204", "html", "type", "error", "disconnect", "cut", "gone"]
)
async def test_a_state_is_told_until_the_answer_is_a_good_one(
    backend: Backend, how: dict[str, Any], error_log: Any
) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/told", OK)
    await backend.answer("/told/state", **how)
    async with open_house(options(backend.url("/told"))) as house:
        client = await house.connected(token=token("42"))
        await client.ask(subscribe={"channel": "news"})
        await trio.sleep(30)
        failed = [asked.json() for asked in await backend.requests("/told/state")]
        await backend.answer("/told/state", OK)
        await trio.sleep(30)
        (good,) = [asked.json() for asked in await backend.requests("/told/state")]
        assert len(failed) > 3
        assert all(each == good for each in failed)


@pytest.mark.parametrize(
    "how", BAD, ids=["500", "redirect", "204", "html", "type", "error", "disconnect", "cut", "gone"]
)
async def test_the_end_of_a_client_is_told_once_whatever_the_answer(
    backend: Backend, how: dict[str, Any], error_log: Any
) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/told/state", OK)
    await backend.answer("/told", **how)
    async with open_house(options(backend.url("/told"))) as house:
        client = await house.connected(token=token("42"))
        await client.ask(subscribe={"channel": "news"})
        await client.leave()
        await trio.sleep(60)
        assert [asked.json()["code"] for asked in await backend.requests("/told")] == [1, 3000]
        assert not any(house.server.context.notices.waiting().values())


async def test_a_backend_that_is_down_for_a_minute_knows_the_truth_afterwards(error_log: Any) -> None:
    """What it missed of clients is lost and counted; of channels it hears the latest."""
    error_log.expect("a hook failed")
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    paths: list[str] = []
    state: dict[str, str] = {}

    async def serve(stream: trio.SocketStream) -> None:
        buffer = b""
        while data := await stream.receive_some():
            buffer += data
            head, end, body = buffer.partition(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]) if end else 0
            if not end or len(body) < size:
                continue
            buffer = body[size:]
            paths.append(head.split()[1].decode())
            for event in json.loads(body[:size]).get("events", ()):
                state[event["channel"]] = event["type"]
            await stream.send_all(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"result":{}}')

    async with trio.open_nursery() as nursery:
        async with open_house(options(f"http://127.0.0.1:{port}/told")) as house:
            clients = [await house.connected(token=token("42")) for _ in range(2)]
            for client in clients:
                await client.ask(subscribe={"channel": "news"})
            await clients[0].ask(subscribe={"channel": "short"})
            await trio.sleep(10)
            await clients[0].leave()
            await trio.sleep(50)
            assert house.server.context.notices.waiting() == {"unsubscribe": 0, "disconnect": 0, "state": 2}
            listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            await trio.sleep(30)
            assert state == {"news": "occupied", "short": "vacated"}
            assert set(paths) == {"/told/state"}
            await clients[1].leave()
            await trio.sleep(10)
            assert state == {"news": "vacated", "short": "vacated"}
            assert paths.count("/told") == 2
        nursery.cancel_scope.cancel()
