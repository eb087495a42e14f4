"""Nodes that die, stand still, are cut off, or are restarted in turn, under load: nobody misses anything unnoticed.

The official SDKs follow recoverable channels, the checkers C1 and C2 judge what they saw (tests/faults/checkers.py).
"""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, final

import pytest
import trio

from tests.e2e.balancer import Balancer
from tests.e2e.cluster import over_redis, wait_known
from tests.e2e.conftest import GetSdk
from tests.e2e.crowd import ROOM, Crowd
from tests.e2e.daemon import PEER, Daemon
from tests.e2e.http import request
from tests.e2e.tokens import token
from tests.faults.proxy import Link, Proxy, Way, start_proxy
from tests.support.backend import Backend
from tests.support.patience import PATIENCE
from tests.support.redis import running_redis

pytestmark = pytest.mark.skipif(bool(PEER), reason="starts nodes over a Redis of its own")

CHANNELS = ("room:1", "room:2")
TTL = 10
CONFIG: dict[str, Any] = {
    "client": {"presence_update_interval": "2s"},
    "channel": {"namespaces": [ROOM]},
    "http_stream": {"enabled": True},
}


@final
class Node:
    """A daemon that is started again on the same port, and the proxy through which it goes to Redis."""

    def __init__(self, folder: Path, config: Mapping[str, Any], wire: Proxy) -> None:
        self._folder = folder
        self._config = over_redis(config, wire.address, io_timeout="2s", presence_ttl=f"{TTL}s")
        self._starts = 0
        self.wire = wire
        self.daemon = self._started()

    def _started(self, port: int = 0) -> Daemon:
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir(parents=True)
        daemon = Daemon(folder, self._config, port=port)
        for error in ("the engine failed an API call", "no answer from"):
            daemon.allow_error(error)
        return daemon

    async def restart(self) -> None:
        """After its process has ended."""
        self.daemon.process.wait()
        self.daemon = self._started(self.daemon.outside)
        await self.daemon.ready()


StartNodes = Callable[..., Awaitable[list[Node]]]


@pytest.fixture
async def start_nodes(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[StartNodes]:
    """Starts nodes over one Redis. In the end they stop in good order, with nothing of their clients left in them."""
    nodes: list[Node] = []
    async with running_redis() as redis:

        async def start(count: int, config: Mapping[str, Any] = CONFIG) -> list[Node]:
            for _ in range(count):
                wire = await start_proxy(nursery, redis.port)
                nodes.append(Node(tmp_path / f"node{len(nodes)}", config, wire))
            for node in nodes:
                await node.daemon.ready()
            await wait_known([node.daemon for node in nodes])
            return nodes

        try:
            yield start
            for node in nodes:
                await node.daemon.settle()
                await node.daemon.stop()
                node.daemon.check_log()
        finally:
            for node in nodes:
                node.daemon.process.kill()
                node.daemon.process.wait()


@pytest.fixture
async def fixtures_in_order(start_nodes: StartNodes, get_sdk: GetSdk) -> tuple[StartNodes, GetSdk]:
    """The clients of the SDKs go before the nodes are looked at."""
    return start_nodes, get_sdk


Both = tuple[StartNodes, GetSdk]


async def gathered(crowd: Crowd, get_sdk: GetSdk, each: int) -> None:
    for language, codec in (("js", "json"), ("python", "protobuf")):
        await crowd.gather(await get_sdk(language, codec), each)


async def test_one_dies_one_stands_still_and_one_is_cut_off_from_redis(fixtures_in_order: Both) -> None:
    await bad_day(fixtures_in_order, seed=1, each=8, pause=0.05)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 8))
async def test_bad_days_of_many(fixtures_in_order: Both, seed: int) -> None:
    await bad_day(fixtures_in_order, seed=seed, each=40, pause=0.01)


async def bad_day(fixtures: Both, *, seed: int, each: int, pause: float) -> None:
    start_nodes, get_sdk = fixtures
    nodes = await start_nodes(4)
    healthy, dies, stands, cut = random.Random(seed).sample(nodes, 4)
    a = healthy.daemon
    async with trio.open_nursery() as nursery:
        balancer = Balancer(nursery, [node.daemon.outside for node in nodes])
        crowd = Crowd(balancer, CHANNELS, ttl=TTL)
        await gathered(crowd, get_sdk, each)
        nursery.start_soon(crowd.publish, [a, dies.daemon, cut.daemon], pause)
        nursery.start_soon(crowd.look, [a], 0.2)
        await crowd.until(lambda: crowd.acknowledged >= 10)

        for node in (dies, stands, cut):
            crowd.unknown(node.daemon)
            balancer.ports.remove(node.daemon.outside)  # as what looks at their health does
        dies.daemon.signal(signal.SIGKILL)
        stands.daemon.signal(signal.SIGSTOP)
        cut.wire.stop()
        with trio.fail_after(PATIENCE):
            silent = await uid_of(a, stands.daemon)
            if silent:  # it is known still: nobody waits for it for ever
                assert (await a.api("channels")).keys() <= {"error", "result"}
                sent = b'{"session":"x","node":"%b","data":"{}"}' % silent.encode()
                assert (await request(a.port, "POST", "/emulation", body=sent)).status in (404, 500)
            while (await cut.daemon.get("/health?ready=1")).status == 200:  # noqa: ASYNC110 (another process)
                await trio.sleep(0.05)
            assert (await cut.daemon.get("/health")).status == 200
            await wait_known([a], 1)
        assert "result" in await a.api("channels")

        stands.daemon.signal(signal.SIGCONT)
        if seed % 2:
            cut.wire.reset()  # what was said meanwhile is lost; else it comes late
        cut.wire.go()
        await dies.restart()
        for node in (dies, stands, cut):
            balancer.ports.append(node.daemon.outside)
        await wait_known([node.daemon for node in nodes])
        crowd.load.cancel()
        await crowd.settled([a])
        assert [follower.lost for follower in crowd.followers] == [0] * len(crowd.followers)
        crowd.judge()
        nursery.cancel_scope.cancel()


async def uid_of(asked: Daemon, wanted: Daemon) -> str:
    """What `asked` knows of `wanted`; empty if nothing."""
    nodes = (await asked.api("info"))["result"]["nodes"]
    return next((str(node["uid"]) for node in nodes if node["name"].endswith(f"_{wanted.outside}")), "")


@pytest.mark.parametrize("key", ["with a key", ""])
async def test_a_publication_whose_answer_was_lost(fixtures_in_order: Both, key: str) -> None:
    """T24: tried again with its idempotency key, on any node, it is there once; without one, twice."""
    start_nodes, get_sdk = fixtures_in_order
    a, b = await start_nodes(2)
    alice = await (await get_sdk("js", "json")).connected(b.daemon.websocket, token=token("1"))
    await alice.subscribe("room:1")
    answers: list[dict[str, Any]] = []

    async def publish(node: Node, number: int) -> None:
        idempotency_key = f"{key}{number}" if key else ""
        params = {"channel": "room:1", "data": number, "idempotency_key": idempotency_key}
        answers.append(await node.daemon.api("publish", **params))

    await publish(a, 0)
    top = (await alice.publication("room:1"))["offset"]
    for number in range(1, 5):
        link = await publishing_link(a)
        link.stop(Way.DOWN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, a, number)
            pub = await alice.publication("room:1")  # it was made
            link.reset()  # and nobody was told
        assert (pub["data"], pub["offset"]) == (number, top + 1)
        assert answers[-1]["error"]["code"] == 100
        await publish(b, number)
        again = answers[-1]["result"]["offset"]
        assert again == (top + 1 if key else top + 2)
        if not key:
            await alice.publication("room:1")
        top = again


async def publishing_link(node: Node) -> Link:
    """The link by which it publishes; dialled anew after the last one was reset."""
    with trio.fail_after(PATIENCE):
        while True:
            for link in node.wire.links:
                if link.said(b"EVALSHA"):
                    return link
            await node.daemon.api("publish", channel="room:2", data=0)


# ---- everybody comes back at once ------------------------------------------------------------------------------------


async def test_who_comes_back_waits_for_a_slow_backend_and_asks_once(fixtures_in_order: Both, backend: Backend) -> None:
    await storm(fixtures_in_order, backend, each=8, delay=0.3, most=3)


@pytest.mark.long
async def test_many_who_come_back_wait_for_a_slow_backend_and_ask_once(
    fixtures_in_order: Both, backend: Backend
) -> None:
    await storm(fixtures_in_order, backend, each=60, delay=1.0, most=40)


async def storm(fixtures: Both, backend: Backend, *, each: int, delay: float, most: int) -> None:
    """T32: a node dies, and the backend that has to let its clients in elsewhere is slow."""
    start_nodes, get_sdk = fixtures
    asking = {
        "enabled": True,
        "endpoint": backend.url("/storm/connect"),
        "timeout": "20s",
        "http": {"max_connections": most},
    }
    await backend.answer("/storm/connect", {"result": {"user": "1"}})
    stays, dies = await start_nodes(2, {**CONFIG, "client": {**CONFIG["client"], "proxy": {"connect": asking}}})
    async with trio.open_nursery() as nursery:
        balancer = Balancer(nursery, [stays.daemon.outside, dies.daemon.outside])
        crowd = Crowd(balancer, CHANNELS, ttl=TTL, tokens=False)
        await gathered(crowd, get_sdk, each)
        nursery.start_soon(crowd.publish, [stays.daemon], 0.02)
        nursery.start_soon(crowd.look, [stays.daemon], 0.2)
        await crowd.until(lambda: crowd.acknowledged >= 10)
        there = crowd.on(dies.daemon)
        crowd.unknown(dies.daemon)
        await backend.answer("/storm/connect", {"result": {"user": "1"}}, delay=delay)
        dies.daemon.signal(signal.SIGKILL)
        await crowd.until(lambda: all(follower.subscribed == 2 for follower in there))
        asked = await backend.requests("/storm/connect")
        assert len(asked) == len(there)  # nobody lost patience and asked again
        assert len({each.connection for each in asked}) <= most
        await dies.restart()
        crowd.load.cancel()
        await crowd.settled([stays.daemon])
        assert [follower.lost for follower in crowd.followers] == [0] * len(crowd.followers)
        crowd.judge()
        nursery.cancel_scope.cancel()


# ---- a rolling restart -----------------------------------------------------------------------------------------------


async def test_a_rolling_restart_loses_nothing_and_is_paced(fixtures_in_order: Both) -> None:
    await rolling_restart(fixtures_in_order, each=6, window=1.5, pause=0.01, rounds=1)


@pytest.mark.long
async def test_rolling_restarts_of_many_lose_nothing(fixtures_in_order: Both) -> None:
    await rolling_restart(fixtures_in_order, each=90, window=6.0, pause=0.02, rounds=2)


async def rolling_restart(fixtures: Both, *, each: int, window: float, pause: float, rounds: int) -> None:
    start_nodes, get_sdk = fixtures
    nodes = await start_nodes(3, {**CONFIG, "shutdown": {"timeout": "20s", "drain_window": f"{window}s"}})
    async with trio.open_nursery() as nursery:
        balancer = Balancer(nursery, [node.daemon.outside for node in nodes])
        crowd = Crowd(balancer, CHANNELS, ttl=TTL)
        await gathered(crowd, get_sdk, each)
        nursery.start_soon(crowd.publish, [node.daemon for node in nodes], pause)
        nursery.start_soon(crowd.look, [node.daemon for node in nodes], 0.2)
        await crowd.until(lambda: crowd.acknowledged >= 10)
        for node in nodes * rounds:
            # who has just come back has a new id, and has to be known by it before its node goes
            await crowd.until(lambda: all(follower.view.live for follower in crowd.followers))
            there = crowd.on(node.daemon)
            assert there
            crowd.unknown(node.daemon)
            before = {follower: len(follower.goodbyes) for follower in there}
            ids = [(follower.channel, follower.id) for follower in there]
            began = trio.current_time()
            node.daemon.signal(signal.SIGTERM)
            assert await node.daemon.exited() == 0
            await crowd.until(lambda there=there, before=before: all(len(f.goodbyes) > before[f] for f in there))
            for channel, id in ids:  # it ended in good order: nobody is left behind
                crowd.presence[channel].gone(id, trio.current_time())
            told = sorted(follower.goodbyes[before[follower]] for follower in there)
            assert {code for _, code in told} == {3001}
            # never sooner than its turn, however slow the machine: so they come back spread over the window
            turns = len(there) + 2  # a request or two may have been among the connections
            for number, (at, _) in enumerate(told):
                assert at - began >= window * number / turns, [at - began for at, _ in told]
            await node.restart()
            await wait_known([each.daemon for each in nodes])
        crowd.load.cancel()
        await crowd.settled([node.daemon for node in nodes])
        assert [follower.lost for follower in crowd.followers] == [0] * len(crowd.followers)
        assert all(follower.subscribed > 1 for follower in crowd.followers)
        crowd.judge()
        nursery.cancel_scope.cancel()
