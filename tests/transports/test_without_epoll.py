"""Systems without epoll: the same connections, each on a stream with a reading task of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.transports import door
from tests.transports.test_sockets import open_street, read_all

pytestmark = [pytest.mark.virtual_time(idle=0.01), pytest.mark.e2e]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_clients_are_served(tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HAS_EPOLL", False)
    async with open_street(tls, tmp_path) as street:
        alice, bob = await street.client(), await street.client()
        for client in (alice, bob):
            assert (await client.ask(subscribe={"channel": "chat"}))["subscribe"] == {}
        await alice.ask(publish={"channel": "chat", "data": "x" * 50_000})
        for client in (alice, bob):
            assert (await client.push())["pub"]["data"] == "x" * 50_000
        await street.others_are_served()
        await street.vanish(bob, rude=not tls)
        stream = await street.stream()
        await stream.send_all(b"GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 404")
        await stream.aclose()
