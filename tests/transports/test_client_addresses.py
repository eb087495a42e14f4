"""Where a client is, through every door: as hooks and the log have it."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from broker.hooks import ConnectEvent, ConnectResult, Hooks
from tests.support.http2 import http2
from tests.support.peers import House, RawClient, open_house, options
from tests.support.sockjs import Polling
from tests.support.streams import ON, open_stream

pytestmark = pytest.mark.virtual_time

FORWARDED = "X-Forwarded-For: 6.6.6.6, 203.0.113.5\r\n"


def asked() -> tuple[Hooks, list[ConnectEvent]]:
    """Hooks that let everybody in, and what they were asked."""
    app = Hooks(http_headers=["X-Forwarded-For"])
    events: list[ConnectEvent] = []

    @app.on.connect()
    async def connect(event: ConnectEvent) -> ConnectResult:
        events.append(event)
        return ConnectResult(user="42")

    return app, events


def configured(*networks: str) -> dict[str, Any]:
    return options(
        http_server={"trusted_proxies": list(networks)}, sockjs={"enabled": True}, client={"insecure": False}, **ON
    )


async def come_in(house: House, transport: str, peer: str) -> None:
    if transport == "websocket":
        client = RawClient(await house.open_stream(peer=peer))
        house.clients.append(client)
        await client.stream.send_all(
            b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            + FORWARDED.encode()
            + b"\r\n"
        )
        await client.read_handshake()
        await client.ask(connect={})
    elif transport == "sockjs":
        polling = Polling(house)
        headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.5"}
        assert (await house.http("POST", f"{polling.url}/xhr", b"", headers, peer=peer)).body == b"o\n"
        await polling.command(id=1, connect={})
        await polling.units()
    elif transport == "http/2":
        client2 = await http2(house, peer=peer)
        body = json.dumps({"id": 1, "connect": {}}).encode()
        id = await client2.send("POST", "/connection/sse", body, x_forwarded_for="6.6.6.6, 203.0.113.5")
        await client2.until(id, b'"connect"')
        await client2.stream.aclose()
    else:
        await open_stream(house, transport, headers=FORWARDED, peer=peer)


TRANSPORTS = ["websocket", "http_stream", "sse", "uni_sse", "uni_http_stream", "sockjs", "http/2"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("networks", "peer", "address", "forwarded"),
    [
        (["10.0.0.0/8"], "10.0.0.1", "203.0.113.5", "6.6.6.6, 203.0.113.5"),
        (["10.0.0.0/8"], "198.51.100.1", "198.51.100.1", None),
        ([], "10.0.0.1", "10.0.0.1", "6.6.6.6, 203.0.113.5"),  # as Centrifugo: passed on, and not believed here
    ],
    ids=["a proxy", "a stranger", "no list"],
)
async def test_what_a_hook_sees(
    transport: str, networks: list[str], peer: str, address: str, forwarded: str | None
) -> None:
    app, events = asked()
    async with open_house(configured(*networks), hooks=app) as house:
        await come_in(house, transport, peer)
    assert [event.address for event in events] == [address]
    assert events[0].headers.get("x-forwarded-for") == forwarded


async def test_a_user_that_a_header_names() -> None:
    """With a list only listed proxies may name users; without one whoever comes may, as in Centrifugo."""
    client = {"insecure": False, "user_id_http_header": "X-User"}
    for networks, peer, let_in in (
        (["10.0.0.0/8"], "10.0.0.1", True),
        (["10.0.0.0/8"], "8.8.8.8", False),
        ([], "", True),
    ):
        section = {"trusted_proxies": networks}
        async with open_house(options(client=client, http_server=section, **ON)) as house:
            await open_stream(house, "http_stream", headers="X-User: 42\r\n", peer=peer)
            assert list(house.server.node.registry.users) == (["42"] if let_in else [])


async def test_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="broker")
    async with open_house(options(http_server={"trusted_proxies": ["10.0.0.0/8"]}, **ON)) as house:
        client = await open_stream(house, "sse", get=True, headers=FORWARDED, peer="10.0.0.1")
        await house.http("GET", "/nowhere?token=secret", peer="10.0.0.9")
        await client.leave()
    lines = [record.getMessage() for record in caplog.records if "addr=" in record.getMessage()]
    assert lines[0].startswith("event='client connection established'") or "http request" in lines[0]
    about = [line for line in lines if "203.0.113.5" in line]
    assert any("http request" in line and "path='/connection/sse'" in line and "status=200" in line for line in about)
    assert any("connection established" in line and client.hello["client"] in line for line in about)
    assert any("connection completed" in line and client.hello["client"] in line for line in about)
    assert any("status=404" in line and "addr='10.0.0.9'" in line for line in lines)
    assert "secret" not in "".join(lines)
    assert "cf_connect" not in "".join(lines)
