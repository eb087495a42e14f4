"""The official SDKs on every kind of Redis: one scenario each, through the real daemon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.conftest import GetSdk, StartBroker
from tests.e2e.test_sdk_recovery import RECOVERED
from tests.e2e.tokens import token
from tests.support.redis_topologies import RunningRedis

ROOM = {**RECOVERED, "presence": True, "join_leave": True, "force_push_join_leave": True}
MORE = {"allow_presence_for_subscriber": True, "allowed_delta_types": ["fossil"], "delta_publish": True}
KINDS = [
    *("tls", "sentinel", "cluster", "shards"),
    *(pytest.param(kind, marks=pytest.mark.long) for kind in ("unix", "redis 6.2", "fields expire")),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_room(
    kind: str, redis_topology: Callable[[str], RunningRedis], broker_process: StartBroker, get_sdk: GetSdk
) -> None:
    """Two clients in several channels: publications, deltas, presence, history, and who comes back misses nothing."""
    redis = redis_topology(kind)
    channels = [f"room:{n}" for n in range(8)]  # on several shards, in several slots
    daemon = await broker_process(
        {
            "engine": {"type": "redis", "redis": redis.options},
            "channel": {"namespaces": [{"name": "room", **ROOM, **MORE}]},
        }
    )
    sdk = await get_sdk("js", "json")
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1"))
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2"))
    for channel in channels:
        await alice.subscribe(channel)
        await bob.subscribe(channel, delta="fossil")
        await alice.publish(channel, {"text": f"hello {channel}"})
        assert (await bob.publication(channel))["data"] == {"text": f"hello {channel}"}
        await daemon.api("publish", channel=channel, data={"text": f"hello {channel} again"})
        for client in (alice, bob):
            texts = []
            while not texts or not texts[-1].endswith("again"):
                texts.append((await client.publication(channel))["data"]["text"])
            assert texts[-1] == f"hello {channel} again"
        assert len((await daemon.api("presence", channel=channel))["result"]["presence"]) == 2
        assert (await daemon.api("presence_stats", channel=channel))["result"] == {"num_clients": 2, "num_users": 2}
        history = (await daemon.api("history", channel=channel, limit=10))["result"]
        assert [pub["offset"] for pub in history["publications"]] == [1, 2]
    await alice.disconnect()
    for channel in channels:
        await daemon.api("publish", channel=channel, data={"text": "missed"})
    await alice.connect()
    for channel in channels:
        back = await alice.event("subscribed", channel=channel)
        assert (back["was_recovering"], back["recovered"]) == (True, True)
        assert (await alice.publication(channel))["data"] == {"text": "missed"}
    assert (await daemon.get("/health?ready=1")).status == 200
    info = (await daemon.api("info"))["result"]["nodes"]
    assert [node["num_clients"] for node in info] == [2]
