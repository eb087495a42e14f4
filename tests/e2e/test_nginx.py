"""Behind nginx, with the configuration of docs/deploy/nginx.md, and with parts of it left out."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from tests.e2e.conftest import GetBroker, GetSdk, StartBroker
from tests.e2e.daemon import PEER, SETTLE_SECONDS, Daemon
from tests.e2e.http import Answer, request
from tests.e2e.nginx import Nginx
from tests.e2e.relay import Relay
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.skipif(bool(PEER), reason="SockJS is ours alone")

CONFIG = {
    "client": {"insecure": True},
    "sockjs": {"enabled": True},
    "http_stream": {"enabled": True},
    "sse": {"enabled": True},
    "uni_sse": {"enabled": True},
}
BUFFERING = "proxy_buffering off"
HTTP_1_1 = "proxy_http_version"
StartNginx = Callable[..., Awaitable[Nginx]]


@pytest.fixture
async def nginx_before(tmp_path: Path, broker: GetBroker) -> AsyncIterator[StartNginx]:
    """Starts nginx before a port. It is stopped before the daemon is looked at."""
    started: list[Nginx] = []

    async def start(port: int, *without: str, more: str = "") -> Nginx:
        nginx = Nginx(tmp_path / f"nginx{len(started)}", port, *without, more=more)
        started.append(nginx)
        await nginx.ready()
        return nginx

    yield start
    for nginx in started:
        assert "[emerg]" not in nginx.log
        nginx.stop()


with_and_without_buffering = pytest.mark.parametrize(
    "without", [(), (BUFFERING,)], ids=["as in the guide", "with buffering"]
)


@with_and_without_buffering
@pytest.mark.parametrize("way", ["plain websocket", "websocket", "xhr-streaming", "xhr-polling"])
async def test_everything_gets_through_at_once(
    way: str, without: tuple[str, ...], get_sdk: GetSdk, broker: GetBroker, nginx_before: StartNginx, key: str
) -> None:
    daemon = await broker(CONFIG)
    nginx = await nginx_before(daemon.port, *without)
    sdk = await get_sdk("js", "json")
    if way == "plain websocket":
        alice = await sdk.connected(f"ws://127.0.0.1:{nginx.port}/connection/websocket")
    else:
        alice = await sdk.connected(f"http://127.0.0.1:{nginx.port}/connection/sockjs", sockjs=way)
    await alice.subscribe(key)
    with trio.fail_after(SETTLE_SECONDS):  # what is held back would come with the next ping, at the earliest
        await daemon.api("publish", channel=key, data="hello")
        assert (await alice.publication(key))["data"] == "hello"
    await alice.disconnect()
    await daemon.settle()  # a stream that nobody reads from ends the session, at once


@with_and_without_buffering
@pytest.mark.parametrize("way", ["http_stream", "sse", "uni_sse"])
async def test_streams_get_through_at_once(
    way: str, without: tuple[str, ...], broker: GetBroker, nginx_before: StartNginx, key: str
) -> None:
    daemon = await broker(CONFIG)
    nginx = await nginx_before(daemon.port, *without)
    async with await trio.open_tcp_stream("127.0.0.1", nginx.port) as stream:
        await stream.send_all(subscribing(way, key))
        await until(stream, b'"subs":' if way == "uni_sse" else b'"subscribe":')
        await daemon.api("publish", channel=key, data="hello")
        await until(stream, b'"data":"hello"')
    await daemon.settle()


def subscribing(way: str, channel: str) -> bytes:
    """The request for a stream that is subscribed from the start."""
    connect = '{"id":1,"connect":{}}\n' + json.dumps({"id": 2, "subscribe": {"channel": channel}})
    if way == "uni_sse":
        connect = json.dumps({"subs": {channel: {}}})
    method, query, body = (
        ("POST", "", connect) if way == "http_stream" else ("GET", f"?cf_connect={quote(connect)}", "")
    )
    head = f"{method} /connection/{way}{query} HTTP/1.1\r\nHost: broker\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


@pytest.mark.parametrize("way", ["http_stream", "sse", "uni_sse", "xhr_streaming"])
async def test_it_is_the_header_that_lets_streams_through(
    way: str, broker: GetBroker, nginx_before: StartNginx, key: str
) -> None:
    """Where nginx speaks HTTP/1.0 and may not heed `X-Accel-Buffering`, it keeps back to the very end what it otherwise
    lets through at once (`test_to_nginx_that_speaks_http_1_0`). What is chunked it passes on anyway."""
    daemon = await broker(CONFIG)
    nginx = await nginx_before(daemon.port, HTTP_1_1, BUFFERING, more="proxy_ignore_headers X-Accel-Buffering;")
    async with await trio.open_tcp_stream("127.0.0.1", nginx.port) as stream:
        if way == "xhr_streaming":
            path = f"/connection/sockjs/000/{key}/{way}"
            await stream.send_all(f"POST {path} HTTP/1.1\r\nHost: broker\r\nContent-Length: 0\r\n\r\n".encode())
            with trio.fail_after(PATIENCE):
                while (await _send(daemon, key, r'["{\"id\":1,\"connect\":{}}"]')).status != 204:  # noqa: ASYNC110
                    await trio.sleep(0.01)  # nginx has not asked for the session yet, and nobody tells us when
        else:
            await stream.send_all(subscribing(way, key))
        with trio.fail_after(PATIENCE):
            while not (await daemon.gauges())["clients"]:  # noqa: ASYNC110 (nobody tells us: it is another process)
                await trio.sleep(0.01)
        await daemon.api("publish", channel=key, data="hello")
        came = b""
        with trio.move_on_after(0.5):
            while True:
                came += await stream.receive_some()
        assert not re.search(b"connect|hello", came)
        await daemon.api("disconnect", user="")
        came += await until(stream, b"force disconnect")
        assert b"connect" in came
        assert way == "xhr_streaming" or b'"hello"' in came


async def stream_of(port: int, way: str, session: str) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    method = "GET" if way == "eventsource" else "POST"
    path = f"/connection/sockjs/000/{session}/{way}"
    await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: broker\r\nContent-Length: 0\r\n\r\n".encode())
    return stream


async def until(stream: trio.SocketStream, end: bytes) -> bytes:
    came = b""
    with trio.fail_after(PATIENCE):
        while end not in came:
            data = await stream.receive_some()
            assert data, came
            came += data
    return came


async def send(daemon: Daemon, session: str, messages: str) -> None:
    assert (await _send(daemon, session, messages)).status == 204


async def _send(daemon: Daemon, session: str, messages: str) -> Answer:
    return await request(daemon.port, "POST", f"/connection/sockjs/000/{session}/xhr_send", body=messages.encode())


@pytest.mark.parametrize("way", ["xhr_streaming", "eventsource"])
async def test_to_nginx_that_speaks_http_1_0(way: str, broker: GetBroker, nginx_before: StartNginx, key: str) -> None:
    daemon = await broker(CONFIG)
    nginx = await nginx_before(daemon.port, HTTP_1_1, BUFFERING)
    stream = await stream_of(nginx.port, way, key)
    async with stream:
        await until(stream, b"data: o\r\n" if way == "eventsource" else b"\no\n")
        await send(daemon, key, r'["{\"id\":1,\"connect\":{}}"]')
        await until(stream, rb"\"connect\"")
        await daemon.api("disconnect", user="")
        await until(stream, b'c[3503,"force disconnect"]')


async def test_connections_to_the_broker_are_used_again(
    broker: GetBroker, nginx_before: StartNginx, relay_to: Callable[[Daemon], Awaitable[Relay]]
) -> None:
    daemon = await broker(CONFIG)
    relay = await relay_to(daemon)
    nginx = await nginx_before(relay.port)
    for _ in range(5):
        assert (await request(nginx.port, "GET", "/connection/sockjs/info")).status == 200
    assert relay.carried == 1


@pytest.mark.parametrize("way", ["websocket", "http_stream", "http_stream over HTTP/1.0", "xhr_streaming"])
async def test_addresses_of_clients(way: str, broker_process: StartBroker, nginx_before: StartNginx) -> None:
    """What a client says of its address is not believed, what nginx says is, and only nginx."""
    proxies = {"trusted_proxies": ["127.0.0.1"]}
    daemon = await broker_process({**CONFIG, "log": {"level": "debug"}, "http_server": proxies})
    way, _, old = way.partition(" over ")
    nginx = await nginx_before(daemon.port, *([HTTP_1_1] if old else []))
    path = "/connection/sockjs/000/abcdefgh/xhr_streaming" if way == "xhr_streaming" else f"/connection/{way}"
    for port, client in ((nginx.port, "127.0.0.5"), (daemon.port, "127.0.0.6")):
        upgrade = way == "websocket"
        body = b'{"id":1,"connect":{}}' if way == "http_stream" else b""
        lines = [
            f"{'GET' if upgrade else 'POST'} {path} HTTP/1.1",
            "Host: broker",
            "X-Forwarded-For: 203.0.113.5",
            f"Content-Length: {len(body)}",
        ]
        if upgrade:
            lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
            lines += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        async with await trio.open_tcp_stream("127.0.0.1", port, local_address=client) as stream:
            await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)
            await daemon.wait_log(rf"(?=.*http request)(?=.*{path}).*{re.escape(client)}")
            if way == "http_stream":
                await daemon.wait_log(rf"(?=.*connection established).*{re.escape(client)}")
    assert not [line for line in daemon.log if "203.0.113.5" in line]


async def test_a_stream_ends_with_its_client_behind_the_proxy(
    broker: GetBroker, nginx_before: StartNginx, key: str
) -> None:
    daemon = await broker(CONFIG)
    nginx = await nginx_before(daemon.port)
    stream = await stream_of(nginx.port, "eventsource", key)
    await until(stream, b"data: o\r\n")
    await send(daemon, key, r'["{\"id\":1,\"connect\":{}}"]')
    await until(stream, rb"\"connect\"")
    assert (await daemon.gauges())["clients"] == 1
    await stream.aclose()
    await daemon.settle()


async def test_half_closed_connections(broker: GetBroker, key: str) -> None:
    """Without a proxy: an answer that is ready is sent, a stream is over."""
    daemon = await broker(CONFIG)
    for version in ("1.0", "1.1"):
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            await stream.send_all(f"GET /connection/sockjs HTTP/{version}\r\nHost: broker\r\n\r\n".encode())
            await stream.send_eof()
            assert b"Welcome to SockJS!" in await until(stream, b"!\n")
    async with await stream_of(daemon.port, "xhr_streaming", key) as stream:
        await until(stream, b"o\n")
        await stream.send_eof()
        with trio.fail_after(PATIENCE):
            while await stream.receive_some():
                pass
