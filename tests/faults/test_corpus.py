"""Every attack of the corpus against a running daemon (T02): the documented answer, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import pytest
import trio

from tests.e2e.conftest import StartBroker
from tests.e2e.daemon import Daemon
from tests.e2e.tokens import token
from tests.faults.corpus import COMMANDS, DEFLATE, FRAMES, HANDSHAKES, OFFERS, PROTOBUF, REQUESTS, upgrade
from tests.http1.smuggling import SMUGGLING
from tests.support.judge import Judge
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

CONFIG: dict[str, Any] = {
    "http_api": {"insecure": True},  # bodies of strangers are not read at all, and these are to be
    "channel": {"without_namespace": {"allow_subscribe_for_client": True, "allow_publish_for_subscriber": True}},
}
MOST_CPU = 0.6
"""Seconds of the daemon's processor that one attack may cost, the checks after it included."""


@final
class Bystander:
    """A client that minds its own business: publishes and hears itself."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._said = 1

    async def connect(self) -> None:
        await self._judge.open()
        await self._say({"id": 1, "connect": {"token": token("bystander")}}, 1)
        await self._say({"id": 2, "subscribe": {"channel": "square"}}, 1)
        self._said = 2

    async def is_fine(self) -> None:
        self._said += 1
        command = {"id": self._said, "publish": {"channel": "square", "data": self._said}}
        reply, push = sorted(await self._say(command, 2), key=lambda unit: "push" in unit)
        assert reply == {"id": self._said, "publish": {}}
        assert push["push"]["pub"]["data"] == self._said

    async def _say(self, command: Mapping[str, Any], answers: int) -> list[dict[str, Any]]:
        self._judge.protocol.send_text(json.dumps(command).encode())
        units: list[dict[str, Any]] = []
        while len(units) < answers:
            for event in await self._judge.talk(1):
                lines = event.data.split(b"\n")
                units += [unit for unit in map(json.loads, lines) if unit]
        assert "error" not in units[0], units
        return units


@asynccontextmanager
async def town(daemon: Daemon) -> AsyncIterator[Bystander]:
    async with await trio.open_tcp_stream("127.0.0.1", daemon.outside) as stream:
        bystander = Bystander(Judge(stream, "/connection/websocket"))
        await bystander.connect()
        yield bystander


async def statuses(port: int, data: bytes) -> list[int]:
    """The statuses of all responses until the server closes."""
    received = b""
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            with contextlib.suppress(trio.BrokenResourceError):  # a reset, if it closed without reading to the end
                await stream.send_all(data)
                async for chunk in stream:
                    received += chunk
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


async def close_code(port: int, data: bytes, *, deflate: bool = False, subprotocol: str = "") -> int:
    """The close code after these bytes, sent after a handshake."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        judge = Judge(stream, "/connection/websocket", deflate=deflate, subprotocol=subprotocol)
        await judge.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(judge.pour, data)
            return await judge.wait_closed()


def cpu_seconds(daemon: Daemon) -> float:
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def test_requests(broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    async with town(daemon) as bystander:
        for name, (data, status) in REQUESTS.items():
            before = cpu_seconds(daemon)
            assert await statuses(daemon.outside, data) == [status], name
            assert (await daemon.get("/health")).status == 200, name
            await bystander.is_fine()
            assert cpu_seconds(daemon) - before < MOST_CPU, name


async def test_requests_on_the_internal_port(broker_process: StartBroker) -> None:
    port = free_port()
    internal = {"http_server": {"internal_address": "127.0.0.1", "internal_port": str(port)}}
    daemon = await broker_process(CONFIG | internal, health_port=port)
    async with town(daemon) as bystander:
        for name, (data, status) in SMUGGLING.items():
            assert await statuses(port, data) == [status], name
            assert (await daemon.get("/health")).status == 200, name
            await bystander.is_fine()
        for name, (data, _) in HANDSHAKES.items():
            assert await statuses(port, data) != [101], name


async def test_a_page_answers_upgrades_it_does_not_know(broker_process: StartBroker) -> None:
    """Plainly; what comes behind is read as requests, and these are none."""
    daemon = await broker_process(CONFIG)
    data = upgrade(path=b"/health", behind=b"\x81\x85" + bytes(9))
    assert await statuses(daemon.outside, data) == [200, 400]


async def test_nothing_is_read_behind_the_last_request(broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    last, more = (
        b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    )
    assert await statuses(daemon.outside, more + last + more) == [200, 200]
    assert await statuses(daemon.outside, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + more) == [404]


@pytest.mark.parametrize("compression", [False, True])
async def test_offers_of_extensions(broker_process: StartBroker, compression: bool) -> None:
    daemon = await broker_process(CONFIG | {"websocket": {"compression": compression}})
    for name, offer in OFFERS.items():
        async with await trio.open_tcp_stream("127.0.0.1", daemon.outside) as stream:
            await stream.send_all(upgrade(b"Sec-WebSocket-Extensions: " + offer))
            with trio.fail_after(PATIENCE):
                answer = bytes(await stream.receive_some())
        assert answer.startswith(b"HTTP/1.1 101 "), name
        assert b"xtensions" not in answer, name


async def test_frames_and_commands(broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    async with town(daemon) as bystander:
        for name, (data, code) in {**FRAMES, **COMMANDS}.items():
            before = cpu_seconds(daemon)
            assert await close_code(daemon.outside, data) == code, name
            assert (await daemon.get("/health")).status == 200, name
            await bystander.is_fine()
            assert cpu_seconds(daemon) - before < MOST_CPU, name


async def test_protobuf(broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    async with town(daemon) as bystander:
        for name, (data, code) in {**FRAMES, **PROTOBUF}.items():
            assert await close_code(daemon.outside, data, subprotocol="centrifuge-protobuf") == code, name
            assert (await daemon.get("/health")).status == 200, name
            await bystander.is_fine()


async def test_deflate(broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG | {"websocket": {"compression": True}})
    async with town(daemon) as bystander:
        for name, (data, code) in DEFLATE.items():
            before = cpu_seconds(daemon)
            assert await close_code(daemon.outside, data, deflate=True) == code, name
            assert (await daemon.get("/health")).status == 200, name
            await bystander.is_fine()
            assert cpu_seconds(daemon) - before < MOST_CPU, name
