"""Centrifugo and our daemon on the same Redis, with the same configuration: what moving without a stop rests on.

`BROKER_E2E_CENTRIFUGO` names a binary of Centrifugo 6.9.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, final

import attrs
import pytest
import trio

from tests.e2e.balancer import Balancer
from tests.e2e.cluster import over_redis, wait_known
from tests.e2e.conftest import GetSdk
from tests.e2e.crowd import Crowd
from tests.e2e.daemon import Daemon
from tests.e2e.relay import Relay
from tests.e2e.sdk import Client, Sdk
from tests.e2e.tokens import token
from tests.support.redis import running_redis

CENTRIFUGO = os.environ.get("BROKER_E2E_CENTRIFUGO", "")
pytestmark = pytest.mark.skipif(not CENTRIFUGO, reason="BROKER_E2E_CENTRIFUGO names no binary of Centrifugo")

ROOM: dict[str, Any] = {
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "history_size": 1000,
    "history_ttl": "300s",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_history_for_subscriber": True,
    "allow_presence_for_subscriber": True,
}
QUIET = ROOM | {"join_leave": False, "force_push_join_leave": False}
CONFIG: dict[str, Any] = {
    "http_stream": {"enabled": True},
    "sse": {"enabled": True},
    "channel": {
        "namespaces": [
            {"name": "room", **ROOM},
            {"name": "quiet", **QUIET},
            {"name": "delta", **QUIET, "allowed_delta_types": ["fossil"], "delta_publish": True},
        ]
    },
}


@final
@attrs.frozen
class Servers:
    """Both kinds over one Redis. `start` starts one more."""

    start: Callable[..., Daemon]
    ours: Daemon
    theirs: Daemon


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    running: list[Daemon] = []
    async with running_redis() as redis:

        def start(command: str = "", port: int = 0) -> Daemon:
            folder = tmp_path / str(len(running))
            folder.mkdir()
            running.append(Daemon(folder, over_redis(CONFIG, redis.address), command=command, port=port))
            return running[-1]

        try:
            theirs, ours = start(centrifugo()), start()
            for daemon in (ours, theirs):
                await daemon.ready()
            await wait_known([ours, theirs])
            yield Servers(start, ours, theirs)
            for daemon in running:
                if daemon.process.args[0] != CENTRIFUGO:
                    await daemon.settle()
                    await daemon.stop()
                    daemon.check_log()
        finally:
            for daemon in running:
                daemon.process.kill()
                daemon.process.wait()


def centrifugo() -> str:
    return f"{shlex.quote(CENTRIFUGO)} -c {{config}}"


@pytest.fixture(params=["js-json", "python-protobuf"])
async def sdk(request: pytest.FixtureRequest, servers: Servers, get_sdk: GetSdk) -> Sdk:
    """Its clients go before the servers are looked at."""
    return await get_sdk(*request.param.split("-"))


@pytest.fixture(params=["ours first", "theirs first"])
def pair(request: pytest.FixtureRequest, servers: Servers) -> tuple[Daemon, Daemon]:
    """Both ways round."""
    both = (servers.ours, servers.theirs)
    return both if request.param == "ours first" else both[::-1]


async def publish(daemon: Daemon, channel: str, *data: Any) -> None:
    for item in data:
        assert "error" not in await daemon.api("publish", channel=channel, data=item)


async def received(client: Client, channel: str, count: int) -> list[Any]:
    return [(await client.publication(channel))["data"] for _ in range(count)]


async def test_publications_history_and_presence(sdk: Sdk, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    alice = await sdk.connected(a.websocket, "alice", token=token("1", info={"name": "Alice"}))
    bob = await sdk.connected(b.websocket, "bob", token=token("2"))
    await alice.subscribe("room:x")
    await alice.event("join", channel="room:x")
    await bob.subscribe("room:x")
    assert (await alice.event("join", channel="room:x"))["info"]["client"] == bob.id
    await publish(a, "room:x", {"n": 1})
    await publish(b, "room:x", {"n": 2})
    await alice.publish("room:x", {"n": 3})
    for client in (alice, bob):
        told = [await client.publication("room:x") for _ in range(3)]
        assert [(pub["offset"], pub["data"]) for pub in told] == [(n, {"n": n}) for n in (1, 2, 3)]
        assert told[2]["info"]["conn_info"] == {"name": "Alice"}
    histories = [(await daemon.api("history", channel="room:x", limit=10))["result"] for daemon in pair]
    assert histories[0] == histories[1]
    assert len(histories[0]["publications"]) == 3
    for daemon in pair:
        present = (await daemon.api("presence", channel="room:x"))["result"]["presence"]
        assert {client: info["user"] for client, info in present.items()} == {alice.id: "1", bob.id: "2"}
        assert present[alice.id]["conn_info"] == {"name": "Alice"}
        assert (await daemon.api("presence_stats", channel="room:x"))["result"] == {"num_clients": 2, "num_users": 2}
    await bob.disconnect()
    assert (await alice.event("leave", channel="room:x"))["info"]["client"] == bob.id


async def test_recovery_from_one_to_the_other_and_back(
    sdk: Sdk, pair: tuple[Daemon, Daemon], relay_to: Callable[[Daemon], Awaitable[Relay]]
) -> None:
    a, b = pair
    relay = await relay_to(a)
    alice = await sdk.connected(relay.websocket, token=token("1", subs={"quiet:server": {}}))
    await alice.event("subscribed", channel="quiet:server", server=True)
    epoch = (await alice.subscribe("quiet:x"))["position"]["epoch"]
    await publish(a, "quiet:x", 1)
    total = 1
    for here, there in ((b, a), (a, b), (b, a)):
        relay.cut()
        await publish(there, "quiet:x", total + 1)
        await publish(here, "quiet:x", total + 2)
        await publish(there, "quiet:server", total)
        relay.target = here.outside
        relay.mend()
        assert (await alice.event("subscribed", channel="quiet:server", server=True))["recovered"] is True
        back = await alice.event("subscribed", channel="quiet:x", was_recovering=True)
        assert (back["recovered"], back["position"]["epoch"]) == (True, epoch)
        total += 2
    assert await received(alice, "quiet:x", total) == list(range(1, total + 1))
    assert await received(alice, "quiet:server", 3) == [1, 3, 5]


async def test_the_api_of_one_reaches_clients_of_the_other(sdk: Sdk, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    alice = await sdk.connected(a.websocket, "alice", token=token("1"))
    bob = await sdk.connected(b.websocket, "bob", token=token("1"))
    await b.api("subscribe", user="1", channel="quiet:x", data={"hi": 1})
    for client in (alice, bob):
        assert (await client.event("subscribed", channel="quiet:x", server=True))["data"] == {"hi": 1}
    for daemon in pair:
        channels = (await daemon.api("channels", pattern="quiet:*"))["result"]["channels"]
        assert channels == {"quiet:x": {"num_clients": 2}}
        nodes = (await daemon.api("info"))["result"]["nodes"]
        assert len({node["uid"] for node in nodes}) == 2
    await b.api("unsubscribe", user="1", channel="quiet:x")
    for client in (alice, bob):
        await client.event("unsubscribed", channel="quiet:x", server=True)
    await b.api("refresh", user="1", client=alice.id, expired=True)
    assert (await alice.event("connecting"))["code"] in (0, 3005)
    await alice.event("connected")
    await b.api("disconnect", user="1", whitelist=[bob.id], disconnect={"code": 4500, "reason": "over"})
    while (gone := await alice.event("disconnected"))["code"] != 4500:
        pass
    assert gone["reason"] == "over"
    await bob.subscribe("quiet:y")  # and lives


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
async def test_a_stream_of_one_whose_client_speaks_to_the_other(
    transport: str, get_sdk: GetSdk, pair: tuple[Daemon, Daemon]
) -> None:
    a, b = pair
    sdk = await get_sdk("js", "json")
    url = f"{a.http}/connection/{transport}"
    alice = await sdk.connected(url, token=token("1"), transport=transport, emulation=f"{b.http}/emulation")
    await alice.subscribe("quiet:x")
    for number in range(5):
        await alice.publish("quiet:x", number)
    assert await received(alice, "quiet:x", 5) == list(range(5))


async def test_patches_and_repeats(sdk: Sdk, pair: tuple[Daemon, Daemon]) -> None:
    a, b = pair
    documents = [{"text": "same long text " * 100, "version": n} for n in range(6)]
    alice = await sdk.connected(a.websocket, token=token("1"))
    await alice.subscribe("delta:x", delta="fossil")
    for number, document in enumerate(documents):
        await publish(pair[number % 2], "delta:x", document)
    assert await received(alice, "delta:x", 6) == documents
    first = await a.api("publish", channel="quiet:x", data=1, idempotency_key="k")
    assert await b.api("publish", channel="quiet:x", data=1, idempotency_key="k") == first
    assert (await a.api("history", channel="quiet:x"))["result"]["offset"] == 1


async def test_one_server_after_another_is_replaced_under_load(servers: Servers, get_sdk: GetSdk) -> None:
    """Three nodes of Centrifugo become three of ours, behind a balancer; nobody misses anything."""
    servers.ours.signal(signal.SIGTERM)
    assert await servers.ours.exited() == 0
    old = [servers.theirs, servers.start(centrifugo()), servers.start(centrifugo())]
    for daemon in old:
        await daemon.ready()
    await wait_known(old)
    async with trio.open_nursery() as nursery:
        balancer = Balancer(nursery, [daemon.outside for daemon in old])
        crowd = Crowd(balancer, ["quiet:1", "quiet:2"], ttl=60)
        for language, codec in (("js", "json"), ("python", "protobuf")):
            await crowd.gather(await get_sdk(language, codec), 6)
        nursery.start_soon(crowd.publish, old, 0.03)
        nursery.start_soon(crowd.look, old, 0.2)
        await crowd.until(lambda: crowd.acknowledged >= 10)
        nodes = list(old)
        for number, daemon in enumerate(old):
            await crowd.until(lambda: all(follower.view.live for follower in crowd.followers))
            crowd.unknown(daemon)
            daemon.signal(signal.SIGTERM)
            await trio.to_thread.run_sync(daemon.process.wait)
            nodes[number] = servers.start(port=daemon.outside)
            await nodes[number].ready()
            await wait_known(nodes)
        crowd.load.cancel()
        await crowd.settled(nodes)
        assert [follower.lost for follower in crowd.followers] == [0] * len(crowd.followers)
        assert all(follower.subscribed > 1 for follower in crowd.followers)
        crowd.judge()
        nursery.cancel_scope.cancel()
