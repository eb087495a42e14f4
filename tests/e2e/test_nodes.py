"""The scenarios of one node with three: every client is on another node, and the API is called on a third."""

from __future__ import annotations

import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from cent import Client as CentClient
from cent import DisconnectRequest, RefreshRequest, SubscribeRequest, UnsubscribeRequest
from cent.dto import Disconnect

from tests.e2e.cluster import ClusterPool
from tests.e2e.conftest import GetNodes, GetSdk
from tests.e2e.daemon import API_KEY, PEER, Daemon
from tests.e2e.http import request
from tests.e2e.nginx import Nginx
from tests.e2e.relay import Relay
from tests.e2e.sdk import Client, Sdk
from tests.e2e.tokens import token
from tests.support.backend import Backend
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.skipif(bool(PEER), reason="starts nodes over a Redis of its own")

ROOM: dict[str, Any] = {
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "history_size": 100,
    "history_ttl": "300s",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_history_for_subscriber": True,
    "allow_presence_for_subscriber": True,
}
CONFIG: dict[str, Any] = {
    "http_stream": {"enabled": True},
    "sse": {"enabled": True},
    "channel": {
        "namespaces": [
            {"name": "room", **ROOM},
            {"name": "quiet", **ROOM, "join_leave": False, "force_push_join_leave": False},
            {"name": "delta", **ROOM, "allowed_delta_types": ["fossil"], "delta_publish": True},
        ]
    },
}
RelayTo = Callable[[Daemon], Awaitable[Relay]]


@pytest.fixture(params=["js-json", "python-protobuf"])
async def sdk(request: pytest.FixtureRequest, get_sdk: GetSdk) -> Sdk:
    """Both official SDKs and both codecs; what the others share is shown with one node."""
    return await get_sdk(*request.param.split("-"))


class Cent:
    """The official client of the API, which blocks."""

    def __init__(self, daemon: Daemon) -> None:
        self._client = CentClient(f"{daemon.http}/api", API_KEY)

    async def __call__(self, method: str, request: Any) -> Any:
        return await trio.to_thread.run_sync(getattr(self._client, method), request)


async def publish(daemon: Daemon, channel: str, *data: Any) -> None:
    for item in data:
        assert "error" not in await daemon.api("publish", channel=channel, data=item)


async def received(client: Client, channel: str, count: int) -> list[Any]:
    return [(await client.publication(channel))["data"] for _ in range(count)]


# ---- channels --------------------------------------------------------------------------------------------------------


async def test_one_publishes_and_all_receive_in_one_order(sdk: Sdk, nodes: GetNodes, key: str) -> None:
    daemons = await nodes(CONFIG)
    channel = f"quiet:{key}"
    clients = [
        await sdk.connected(daemon.websocket, name, token=token(name))
        for daemon, name in zip(daemons, ("alice", "bob", "carol"), strict=True)
    ]
    for client in clients:
        await client.subscribe(channel)
    async with trio.open_nursery() as nursery:
        for daemon in daemons:
            nursery.start_soon(publish, daemon, channel, *[{"by": daemon.port, "n": n} for n in range(10)])
        for client in clients:
            nursery.start_soon(client.publish, channel, {"by": client.name})
    seen = [[await client.publication(channel) for _ in range(33)] for client in clients]
    assert [pub["offset"] for pub in seen[0]] == list(range(1, 34))
    told = [[(pub["offset"], pub["data"], (pub.get("info") or {}).get("user")) for pub in each] for each in seen]
    assert told[0] == told[1] == told[2]
    for name in ("alice", "bob", "carol"):
        assert [user for _, data, user in told[0] if data == {"by": name}] == [name]
    for daemon in daemons:
        assert [data["n"] for _, data, _ in told[0] if data["by"] == daemon.port] == list(range(10))


async def test_presence_join_and_leave(sdk: Sdk, nodes: GetNodes, key: str) -> None:
    a, b, c = await nodes(CONFIG)
    channel = f"room:{key}"
    alice = await sdk.connected(a.websocket, "alice", token=token("1", info={"name": "Alice"}))
    await alice.subscribe(channel)
    await alice.event("join", channel=channel)  # her own
    bob = await sdk.connected(b.websocket, "bob", token=token("2"))
    again = await sdk.connected(c.websocket, "again", token=token("1"))
    await bob.subscribe(channel)
    assert (await alice.event("join", channel=channel))["info"]["client"] == bob.id
    await again.subscribe(channel)
    assert (await alice.event("join", channel=channel))["info"]["client"] == again.id
    present = await bob.presence(channel)
    assert {client: info["user"] for client, info in present.items()} == {alice.id: "1", bob.id: "2", again.id: "1"}
    assert present[alice.id]["conn_info"] == {"name": "Alice"}
    assert await again.presence_stats(channel) == {"num_clients": 3, "num_users": 2}
    await again.unsubscribe(channel)
    assert (await alice.event("leave", channel=channel))["info"]["client"] == again.id
    await bob.disconnect()
    assert (await alice.event("leave", channel=channel))["info"]["client"] == bob.id
    assert (await c.api("presence_stats", channel=channel))["result"] == {"num_clients": 1, "num_users": 1}


async def test_history_is_the_same_on_all_nodes(sdk: Sdk, nodes: GetNodes, key: str) -> None:
    a, b, c = await nodes(CONFIG)
    channel = f"quiet:{key}"
    await publish(a, channel, 1, 2)
    await publish(b, channel, 3)
    alice = await sdk.connected(c.websocket, token=token("1"))
    await alice.subscribe(channel)
    told = await alice.history(channel, limit=10)
    assert [(pub["offset"], pub["data"]) for pub in told["publications"]] == [(1, 1), (2, 2), (3, 3)]
    for daemon in (a, b, c):
        history = (await daemon.api("history", channel=channel, limit=10))["result"]
        assert (history["offset"], history["epoch"]) == (3, told["epoch"])
        assert [pub["data"] for pub in history["publications"]] == [1, 2, 3]
    await b.api("history_remove", channel=channel)
    assert (await alice.history(channel, limit=10))["publications"] == []


# ---- who comes back comes to another node ----------------------------------------------------------------------------


async def test_recovery_on_another_node(sdk: Sdk, nodes: GetNodes, key: str, relay_to: RelayTo) -> None:
    a, b, c = await nodes(CONFIG)
    channel = f"quiet:{key}"
    relay = await relay_to(a)
    alice = await sdk.connected(relay.websocket, token=token("1"))
    await alice.subscribe(channel)
    await publish(a, channel, 1)
    total = 1
    for daemon, publisher in ((b, c), (c, a), (a, b)):
        relay.cut()
        await publish(publisher, channel, total + 1, total + 2)
        relay.target = daemon.outside
        relay.mend()
        back = await alice.event("subscribed", channel=channel, was_recovering=True)
        assert back["recovered"] is True
        await publish(publisher, channel, total + 3)
        total += 3
    assert await received(alice, channel, total) == list(range(1, total + 1))


async def test_server_side_subscriptions_recover_on_another_node(
    sdk: Sdk, nodes: GetNodes, key: str, relay_to: RelayTo
) -> None:
    a, b, c = await nodes(CONFIG)
    channel = f"quiet:{key}"
    relay = await relay_to(a)
    alice = await sdk.connected(relay.websocket, token=token("1", subs={channel: {}}))
    await alice.event("subscribed", channel=channel, server=True)
    await publish(c, channel, 1)
    assert await received(alice, channel, 1) == [1]
    relay.cut()
    await publish(c, channel, 2)
    relay.target = b.outside
    relay.mend()
    back = await alice.event("subscribed", channel=channel, server=True)
    assert (back["was_recovering"], back["recovered"]) == (True, True)
    await publish(a, channel, 3)
    assert await received(alice, channel, 2) == [2, 3]


async def test_deltas_go_on_after_recovery_on_another_node(
    sdk: Sdk, nodes: GetNodes, key: str, relay_to: RelayTo
) -> None:
    a, b, c = await nodes(CONFIG)
    channel = f"delta:{key}"
    documents = [{"text": "".join(chr(97 + i * i % 26) for i in range(4000)), "version": n} for n in range(8)]
    relay = await relay_to(a)
    alice = await sdk.connected(relay.websocket, token=token("1"))
    await alice.subscribe(channel, delta="fossil")
    await publish(c, channel, *documents[:2])
    assert await received(alice, channel, 2) == documents[:2]
    relay.cut()
    await publish(c, channel, *documents[2:5])
    relay.target = b.outside
    relay.sent_to_client.clear()
    relay.mend()
    assert (await alice.event("subscribed", channel=channel, was_recovering=True))["recovered"] is True
    await publish(a, channel, *documents[5:])
    assert await received(alice, channel, 6) == documents[2:]
    size = len(relay.sent_to_client)
    assert 4000 < size < 7500, f"one document in full and five deltas were expected, not {size} bytes"


# ---- what the API does to clients of other nodes ---------------------------------------------------------------------


async def test_the_api_of_one_node_reaches_clients_of_another(sdk: Sdk, nodes: GetNodes, key: str) -> None:
    a, b, c = await nodes(CONFIG)
    cent = Cent(c)
    channel = f"quiet:{key}"
    alice = await sdk.connected(a.websocket, "alice", token=token(key))
    bob = await sdk.connected(b.websocket, "bob", token=token(f"other{key}"))
    await cent("subscribe", SubscribeRequest(user=key, channel=channel, data={"hi": 1}))
    assert (await alice.event("subscribed", channel=channel, server=True))["data"] == {"hi": 1}
    await publish(b, channel, 7)
    assert await received(alice, channel, 1) == [7]
    await cent("unsubscribe", UnsubscribeRequest(user=key, channel=channel))
    await alice.event("unsubscribed", channel=channel, server=True)
    await cent("refresh", RefreshRequest(user=key, client=alice.id, expire_at=int(time.time()) + 600))
    await alice.subscribe(channel)
    await cent("refresh", RefreshRequest(user=key, expired=True))
    assert (await alice.event("connecting", code=3005))["reason"] == "connection expired"
    await alice.event("connected")
    await cent("disconnect", DisconnectRequest(user=key, disconnect=Disconnect(code=4500, reason="over")))
    ended = await alice.event("disconnected")
    assert (ended["code"], ended["reason"]) == (4500, "over")
    assert bob.seen("disconnected") + bob.seen("connecting", code=3005) + bob.seen("subscribed") == []


async def test_a_user_on_several_nodes_is_disconnected_but_for_one_client(sdk: Sdk, nodes: GetNodes, key: str) -> None:
    daemons = await nodes(CONFIG)
    clients = [await sdk.connected(daemon.websocket, f"c{n}", token=token(key)) for n, daemon in enumerate(daemons)]
    await daemons[0].api("disconnect", user=key, whitelist=[clients[1].id])
    for client in (clients[0], clients[2]):
        assert (await client.event("disconnected"))["code"] == 3503
    await clients[1].subscribe(f"quiet:{key}")  # and lives
    assert clients[1].seen("disconnected") == []


async def test_info_and_channels_of_three_nodes(sdk: Sdk, nodes: GetNodes, key: str) -> None:
    daemons = await nodes(CONFIG)
    for number, daemon in enumerate(daemons):
        client = await sdk.connected(daemon.websocket, f"c{number}", token=token(str(number)))
        await client.subscribe(f"quiet:{key}:all")
        await client.subscribe(f"quiet:{key}:{number}")
    for daemon in daemons:
        channels = (await daemon.api("channels", pattern=f"quiet:{key}:*"))["result"]["channels"]
        assert channels == {f"quiet:{key}:all": {"num_clients": 3}} | {
            f"quiet:{key}:{number}": {"num_clients": 1} for number in range(3)
        }
    with trio.fail_after(PATIENCE):
        for daemon in daemons:
            while True:  # what the others have said of themselves is up to three seconds old
                found = (await daemon.api("info"))["result"]["nodes"]
                assert len({node["uid"] for node in found}) == 3
                if [node["num_clients"] for node in found] == [1, 1, 1]:
                    break
                await trio.sleep(0.05)
            assert [(node["num_subs"], node["num_channels"]) for node in found] == [(2, 2)] * 3
            assert len({node["name"] for node in found}) == 3


# ---- streams without sticky sessions ---------------------------------------------------------------------------------


@pytest.fixture
async def nginx_in_turn(tmp_path: Path) -> AsyncIterator[Callable[[list[Daemon]], Awaitable[Nginx]]]:
    """nginx as the guide has it, before all nodes in turn."""
    started: list[Nginx] = []

    async def start(daemons: list[Daemon]) -> Nginx:
        nginx = Nginx(tmp_path / "nginx", [daemon.outside for daemon in daemons])
        started.append(nginx)
        await nginx.ready()
        return nginx

    yield start
    for nginx in started:
        nginx.stop()


async def forwarded(daemons: list[Daemon]) -> int:
    """Questions that nodes asked each other."""
    total = 0
    for daemon in daemons:
        for line in (await daemon.get("/metrics")).body.decode().splitlines():
            if line.startswith('centrifugo_node_action_count{action="survey"'):
                total += int(float(line.split()[-1]))
    return total


@pytest.mark.parametrize("way", ["http_stream json", "http_stream protobuf", "sse json"])
async def test_a_stream_whose_client_speaks_to_any_node(
    way: str,
    get_sdk: GetSdk,
    nodes: GetNodes,
    key: str,
    nginx_in_turn: Callable[[list[Daemon]], Awaitable[Nginx]],
) -> None:
    daemons = await nodes(CONFIG)
    nginx = await nginx_in_turn(daemons)
    transport, codec = way.split()
    sdk = await get_sdk("js", codec)
    http = f"http://127.0.0.1:{nginx.port}"
    channel = f"quiet:{key}"
    before = await forwarded(daemons)
    clients = []
    for name in ("alice", "bob", "carol"):
        url = f"{http}/connection/{transport}"
        client = await sdk.connected(url, name, token=token(name), transport=transport, emulation=f"{http}/emulation")
        await client.subscribe(channel)
        clients.append(client)
    for client in clients:
        for number in range(4):
            await client.publish(channel, {"by": client.name, "n": number})
    for client in clients:
        assert len(await received(client, channel, 12)) == 12
        assert len(await client.presence(channel)) == 3
    assert await forwarded(daemons) > before


async def test_what_is_sent_to_no_node(nodes: GetNodes) -> None:
    a, *_ = await nodes(CONFIG)
    nowhere = b'{"session":"x","node":"nobody","data":"{}"}'
    assert (await request(a.port, "POST", "/emulation", body=nowhere)).status == 404
    nodes_known = (await a.api("info"))["result"]["nodes"]
    elsewhere = [node["uid"] for node in nodes_known if node["uid"] != nodes_known[0]["uid"]]
    gone = b'{"session":"x","node":"%b","data":"{}"}' % elsewhere[0].encode()
    assert (await request(a.port, "POST", "/emulation", body=gone)).status == 204


# ---- what else is said between nodes ---------------------------------------------------------------------------------


async def ignored(daemon: Daemon) -> dict[str, int]:
    """Control messages that a node has left aside, by why."""
    text = (await daemon.get("/metrics")).body.decode()
    found = re.findall(r'^centrifugo_node_control_ignored_count\{reason="(.*)"\} (\S+)$', text, re.MULTILINE)
    return {reason: int(float(count)) for reason, count in found}


async def test_garbage_and_what_newer_nodes_say_is_counted_and_ignored(
    sdk: Sdk, nodes: GetNodes, cluster_pool: ClusterPool, key: str
) -> None:
    """T31: whoever reaches Redis may publish where nodes listen."""
    daemons = await nodes(CONFIG)
    redis = cluster_pool.redis
    before = [await ignored(daemon) for daemon in daemons]
    rng = random.Random(1)
    newer = b"\x0a\x05newer" + b"\xfa\x01\x03abc"  # a kind of message that does not exist yet
    uids = [node["uid"] for node in (await daemons[0].api("info"))["result"]["nodes"]]
    async with trio.open_nursery() as nursery:
        clients = []
        for number, daemon in enumerate(daemons):
            client = await sdk.connected(daemon.websocket, f"c{number}", token=token(key))
            await client.subscribe(f"quiet:{key}")
            clients.append(client)
        nursery.start_soon(publish, daemons[0], f"quiet:{key}", *range(50))
        for number in range(200):
            data = newer if number % 4 == 0 else b"\xff" + rng.randbytes(rng.randrange(200))
            to = "centrifugo.control" if number % 2 else f"centrifugo.node.{uids[number % 3]}"
            await trio.to_thread.run_sync(redis.ask, "PUBLISH", to, data)
    for client in clients:
        assert await received(client, f"quiet:{key}", 50) == list(range(50))
    await daemons[1].api("unsubscribe", user=key, channel=f"quiet:{key}")  # comes after all of it, on the same way
    for client in clients:
        await client.event("unsubscribed", channel=f"quiet:{key}")
    newer_heard = 0
    for daemon, old in zip(daemons, before, strict=True):
        counts = await ignored(daemon)
        assert counts["garbage"] - old.get("garbage", 0) >= 100  # those that went to all
        newer_heard += counts["unknown"] - old.get("unknown", 0)
        assert len((await daemon.api("info"))["result"]["nodes"]) == 3
    assert newer_heard == 50  # each went to one


# ---- another configuration, so it comes last -------------------------------------------------------------------------


async def test_a_backend_is_asked_by_the_node_of_the_client(
    sdk: Sdk, nodes: GetNodes, key: str, backend: Backend
) -> None:
    asking = {
        "without_namespace": {"proxy_enabled": True},
        "proxy": {"endpoint": backend.url("/nodes/rpc"), "timeout": "60s"},
    }
    daemons = await nodes({**CONFIG, "rpc": asking})
    await backend.answer("/nodes/rpc", {"result": {"data": {"sum": 3}}})
    clients = [await sdk.connected(each.websocket, f"c{n}", token=token(str(n))) for n, each in enumerate(daemons)]
    for client in clients:
        assert await client.rpc("add", [1, 2]) == {"sum": 3}
    asked = [each.json() for each in await backend.requests("/nodes/rpc")]
    assert [(each["user"], each["client"]) for each in asked] == [
        (str(n), client.id) for n, client in enumerate(clients)
    ]
