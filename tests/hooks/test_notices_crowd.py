"""A crowd vanishes at once, and its backend is slow: each end is told once or counted as dropped, and nobody waits."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import trio

from broker.hooks import post
from tests.support.backend import Backend
from tests.support.peers import NO_PINGS, open_house, secured, token

pytestmark = pytest.mark.virtual_time(idle=0.01)

CLIENTS = 300
PLACES = 16


@pytest.mark.parametrize("most", [64 << 20, 150 * 1100], ids=["all-of-it", "more-than-may-wait"])
async def test_a_crowd_that_vanishes(
    backend: Backend, most: int, monkeypatch: pytest.MonkeyPatch, error_log: object
) -> None:
    monkeypatch.setattr(post, "_MOST", most)
    bounded = most < CLIENTS * 2 * 1024
    if bounded:
        error_log.expect("too many events wait for a hook")  # type: ignore[attr-defined]
    await backend.answer("/told", {"result": {}}, delay=0.2 if bounded else 0.05)
    await backend.answer("/rpc", {"result": {"data": "served"}})
    telling = {"endpoint": backend.url("/told"), "timeout": "100h", "http": {"max_connections": PLACES}}
    file = {
        **secured(client={**NO_PINGS, "proxy": {"disconnect": {"enabled": True, **telling}}}),
        "channel": {
            "without_namespace": {"allow_subscribe_for_client": True, "unsubscribe_proxy_enabled": True},
            "proxy": {"unsubscribe": telling},
        },
        "rpc": {
            "without_namespace": {"proxy_enabled": True},
            "proxy": {"endpoint": backend.url("/rpc"), "timeout": "100h"},
        },
    }
    async with open_house(file) as house:
        notices = house.server.context.notices.post
        stays = await house.connected(token=token("stays"))
        crowd = [await house.connected(token=token("42")) for _ in range(CLIENTS)]
        for client in crowd:
            await client.ask(subscribe={"channel": "news"})
        ids = {client.hello["client"] for client in crowd}
        for client in crowd:
            await client.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert set(house.server.node.registry.clients) == {stays.hello["client"]}
        assert notices._bytes <= most
        assert sum(notices.waiting.values()) <= min(2 * CLIENTS, most // 1024)

        # who is still there is served before the crowd is told of
        assert (await stays.ask(rpc={"method": "x"}))["rpc"] == {"data": "served"}
        assert notices.waiting["unsubscribe"] > 0

        await notices.wait_empty()
        assert notices._bytes == 0
        assert sum(notices.waiting.values()) == 0
        told: defaultdict[str, list[str]] = defaultdict(list)
        for asked in await backend.requests("/told"):
            body = asked.json()
            told[body["client"]].append("unsubscribe" if "channel" in body else "disconnect")
        whole, half = ["unsubscribe", "disconnect"], ["unsubscribe"]
        assert all(events in (whole, half) for events in told.values())  # in order, and none of them twice
        assert set(told) <= ids
        counts = Counter(event for events in told.values() for event in events)
        dropped = house.server.node.counters.events_dropped
        for kind in whole:
            assert counts[kind] + dropped[kind, "full"] == CLIENTS
        assert bool(sum(dropped.values())) is bounded
