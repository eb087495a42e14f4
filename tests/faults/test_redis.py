"""A server on a real Redis on its bad days, seen by its clients: nobody is told a lie, and all comes back by itself.

The reliability tests T20 to T27 of the design, with checker C1: everybody who subscribes logs what it is told, and what
was published has to be where it was said to be, for all of them.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import pytest
import trio

from broker.app import open_server
from broker.engines.redis.address import Server
from broker.engines.redis.names import Names, slot_of
from tests.conftest import ErrorLog
from tests.faults.proxy import Proxy, Way, open_proxy
from tests.support.crowd import KEPT, Crowd
from tests.support.peers import House, configured, options
from tests.support.redis import RedisServer, running_redis
from tests.support.redis_topologies import RunningRedis, cluster, sentinel, until
from tests.support.sentinels import HERE, sentinels

KNOWN_WITHIN = 30.0
"""Seconds in which whoever missed something is told, and readiness turns: 5 on a machine that is not busy."""
CHANNELS = ["a", "b", "{c}"]
T = TypeVar("T")


@pytest.fixture(autouse=True)
def refusals(error_log: ErrorLog) -> None:
    """What Redis does not take is an error of the API's, and told as one."""
    error_log.expect("the engine failed an API call")


@asynccontextmanager
async def open_house(redis: dict[str, Any], **client: Any) -> AsyncIterator[House]:
    """A server on a Redis, in this process."""
    sections = options(
        KEPT,
        engine={"type": "redis", "redis": {"io_timeout": "1s", **redis}},
        client={"channel_position_check_delay": "2s", **client},
        health={"enabled": True},
    )
    async with (
        open_server(configured(sections), listen=False) as server,
        trio.open_nursery() as nursery,
    ):
        house = House(server, nursery)
        yield house
        for each in house.clients:
            await each.leave()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def at_work(house: House, channels: list[str] = CHANNELS) -> AsyncIterator[Crowd]:
    """A crowd; when the block ends, everything must come right."""
    crowd = Crowd(house.client, house.api, channels)
    async with trio.open_nursery() as nursery:
        async with crowd.at_work(nursery):
            yield crowd
            await crowd.wait_acknowledged()
        await crowd.settle()
        nursery.cancel_scope.cancel()


async def came_true(condition: Callable[[], Awaitable[T]], within: float = KNOWN_WITHIN) -> T:
    """Ask again and again, of what is another process, until the answer is something."""
    with trio.fail_after(within):
        while not (answer := await condition()):  # noqa: ASYNC110 (nobody tells us: it is another process)
            await trio.sleep(0.02)
        return answer


async def readiness(house: House, ready: bool, within: float = KNOWN_WITHIN, why: str = "") -> str:
    """Wait until `/health?ready=1` says so, and why; return what it says. Plain `/health` is well all the time."""

    async def said() -> str:
        answer = await house.http("GET", "/health?ready=1")
        assert (await house.http("GET", "/health")).status == 200
        text = answer.body.decode()
        return text if answer.status == (200 if ready else 503) and why in text else ""

    return await came_true(said, within)


class Wires:
    """What becomes of messages of pub/sub: links stay up, everything else passes.

    `starving`: none arrives. `losing`: one in so many is lost.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.starving = False
        self.losing = 0
        self.lost = 0
        self._seen = 0
        proxy.rewrites[Way.DOWN] = lambda: partial(self._rewrite, bytearray())

    def _rewrite(self, rest: bytearray, chunk: bytes) -> bytes:
        """Cut a stream into messages; what is no message passes as it is."""
        rest += chunk
        passed = bytearray()
        while rest:
            head = b"*3\r\n$7\r\nmessage\r\n"
            if not rest.startswith(head):
                if head.startswith(rest[: len(head)]):
                    break  # it may become one
                at = rest.find(b"*3\r\n$7\r\nmessage\r\n", 1)
                at = at if at > 0 else len(rest)
                passed += rest[:at]
                del rest[:at]
                continue
            end = _after_bulk(rest, _after_bulk(rest, len(head)))
            if end < 0:
                break
            self._seen += 1
            if self.starving or (self.losing and b".probe." not in rest[:end] and self._seen % self.losing == 0):
                self.lost += 1
            else:
                passed += rest[:end]
            del rest[:end]
        return bytes(passed)


def _after_bulk(data: bytearray, start: int) -> int:
    """Where the next part begins; -1 if this one is not all there."""
    line = data.find(b"\r\n", start) if start >= 0 else -1
    if line < 0:
        return -1
    end = line + 2 + int(data[start + 1 : line]) + 2
    return end if end <= len(data) else -1


# ---- pub/sub away or silent (T23, T26) -------------------------------------------------------------------------------


async def test_pubsub_that_delivers_nothing_is_seen_and_told() -> None:
    """Silent starvation: links are up, subscriptions are accepted, and no message comes."""
    async with running_redis() as server, open_proxy(server.port) as proxy:
        wires = Wires(proxy)
        async with open_house({"address": [proxy.address]}) as house:
            client = await house.connected()
            await client.ask(subscribe={"channel": "news"})
            await house.api("publish", channel="news", data=1)
            assert (await client.push())["pub"]["offset"] == 1
            assert await readiness(house, True) == "{}"
            wires.starving = True
            await house.api("publish", channel="news", data=2)
            await readiness(house, False, why=f"{proxy.address}: connected, and delivers nothing")
            with trio.fail_after(KNOWN_WITHIN):
                assert (await client.push())["unsubscribe"]["code"] == 2500
            wires.starving = False
            await readiness(house, True)
            reply = await client.ask(subscribe={"channel": "news", "recover": True, "offset": 1, "epoch": ""})
            assert reply["subscribe"]["recovered"] is True
            assert [pub["offset"] for pub in reply["subscribe"]["publications"]] == [2]


@pytest.mark.long
async def test_readiness_stays_red_for_as_long_as_nothing_is_delivered() -> None:
    async with running_redis() as server, open_proxy(server.port) as proxy:
        wires = Wires(proxy)
        async with open_house({"address": [proxy.address]}) as house:
            await readiness(house, True)
            wires.starving = True
            await readiness(house, False)
            before = proxy.accepted

            async def dialled_in_vain() -> bool:
                assert (await house.http("GET", "/health?ready=1")).status == 503
                return proxy.accepted >= before + 2

            await came_true(dialled_in_vain, 3 * KNOWN_WITHIN)


async def test_who_missed_a_publication_while_pubsub_was_cut_knows_soon() -> None:
    async with (
        running_redis() as server,
        open_proxy(server.port) as proxy,
        open_house({"address": [proxy.address]}, channel_position_check_delay="10m") as house,
    ):
        client = await house.connected()
        await client.ask(subscribe={"channel": "news"})
        (link,) = [link for link in proxy.links if link.said(b"SUBSCRIBE")]
        link.stop(Way.DOWN)
        await house.api("publish", channel="news", data=1)
        link.reset()
        with trio.fail_after(KNOWN_WITHIN):
            assert (await client.push())["unsubscribe"]["code"] == 2500


async def test_messages_that_get_lost_are_missed() -> None:
    async with running_redis() as server, open_proxy(server.port) as proxy:
        wires = Wires(proxy)
        patient = {"address": [proxy.address], "io_timeout": "60s"}
        async with open_house(patient) as house, at_work(house) as crowd:
            wires.losing = 25
            await crowd.wait(lambda: wires.lost > 5)
            wires.losing = 0
    assert crowd.recovered[True] > 0
    assert crowd.recovered[False] == 0
    assert crowd.refused == 0


async def test_commands_that_are_cut_off_fail_in_time_and_come_back() -> None:
    async with (
        running_redis() as server,
        open_proxy(server.port) as proxy,
        open_house({"address": [proxy.address]}) as house,
        at_work(house) as crowd,
    ):
        for link in proxy.links:
            if not link.said(b"SUBSCRIBE"):
                link.stop()
        await crowd.wait(lambda: crowd.refused > 0)
    assert crowd.longest < KNOWN_WITHIN
    assert crowd.recovered[False] == 0, "the same run of Redis: nothing is lost"


# ---- Redis stops, dies, forgets (T21, T22) ---------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1.5, *(pytest.param(n, marks=pytest.mark.long) for n in (10, 60))])
async def test_a_redis_that_stands_still(seconds: float) -> None:
    async with running_redis() as server, open_house({"address": [server.address]}) as house, at_work(house) as crowd:
        before = crowd.connections
        server.signal(signal.SIGSTOP)
        await trio.sleep(seconds)
        server.signal(signal.SIGCONT)
    assert crowd.longest < KNOWN_WITHIN
    assert crowd.connections == before, "nobody is sent away"
    assert crowd.recovered[False] == 0


@pytest.mark.parametrize("kind", ["empty", "everything", "an old file"])
async def test_a_killed_redis(kind: str) -> None:
    """It comes back with nothing, with everything (AOF), or as it was a while ago."""
    saving = {
        "empty": (),
        "everything": ("--appendonly", "yes", "--appendfsync", "always"),
        "an old file": ("--save", "3600 1"),
    }
    async with (
        running_redis(*saving[kind]) as server,
        open_house({"address": [server.address]}) as house,
        at_work(house) as crowd,
    ):
        if kind == "an old file":
            server.ask("SAVE")
            await crowd.wait_acknowledged()
        server.kill()
        await crowd.wait(lambda: crowd.refused > 0)
        server.start()
        await server.wait_ready()
    assert crowd.recovered[False] > 0, "the fence: another run of Redis, another epoch"


def _flush(server: RedisServer) -> None:
    server.ask("FLUSHALL")


def _forget_scripts(server: RedisServer) -> None:
    server.ask("SCRIPT", "FLUSH")


def _kill_links(server: RedisServer) -> None:
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    server.ask("CLIENT", "KILL", "TYPE", "pubsub")


@pytest.mark.parametrize("mischief", [_flush, _forget_scripts, _kill_links])
async def test_an_operator_at_work(mischief: Callable[[RedisServer], None]) -> None:
    async with running_redis() as server, open_house({"address": [server.address]}) as house, at_work(house) as crowd:
        for _ in range(3):
            mischief(server)
            await crowd.wait_acknowledged()
    assert (crowd.recovered[False] > 0) is (mischief is _flush)


async def test_a_full_memory_and_a_slow_script() -> None:
    async with running_redis() as server, open_house({"address": [server.address]}) as house, at_work(house) as crowd:
        server.ask("CONFIG", "SET", "maxmemory", "1")
        await crowd.wait(lambda: crowd.refused > 3)
        server.ask("CONFIG", "SET", "maxmemory", "0")
        await crowd.wait_acknowledged()
        slow = "local till = redis.call('TIME')[1] + 2 while redis.call('TIME')[1] + 0 < till do end"
        await trio.to_thread.run_sync(server.ask, "EVAL", slow, 0)
    assert crowd.recovered[False] == 0
    assert crowd.longest < KNOWN_WITHIN


async def test_a_password_that_was_changed(caplog: pytest.LogCaptureFixture) -> None:
    async with running_redis("--requirepass", "first") as plain:
        server = RedisServer(plain.folder, port=plain.port, login=("first",))
        async with open_house({"address": [server.address], "password": "first"}) as house, at_work(house) as crowd:
            server.ask("CONFIG", "SET", "requirepass", "second")
            other = RedisServer(plain.folder, port=plain.port, login=("second",))
            _kill_links(other)
            said = await readiness(house, False, why="the password is not accepted (WRONGPASS")
            assert "first" not in said
            other.ask("CONFIG", "SET", "requirepass", "first")
            await readiness(house, True)
        assert crowd.recovered[False] == 0
    assert "WRONGPASS" in caplog.text


# ---- the wire between a publication and its answer (T24) -------------------------------------------------------------


async def test_a_publication_whose_answer_was_lost_is_made_once_with_a_key() -> None:
    async with (
        running_redis() as server,
        open_proxy(server.port) as proxy,
        open_house({"address": [proxy.address]}) as house,
    ):
        client = await house.connected()
        await client.ask(subscribe={"channel": "news"})
        (link,) = [link for link in proxy.links if not link.said(b"SUBSCRIBE")]
        link.stop(Way.DOWN)
        once = partial(house.api, "publish", channel="news", data=1, idempotency_key="k")
        assert (await once())["error"]["code"] == 100, "nobody knows whether it was made"
        assert (await client.push())["pub"]["offset"] == 1, "it was"

        async def again() -> dict[str, Any]:
            return (await once()).get("result", {})

        assert (await came_true(again))["offset"] == 1
        await house.api("publish", channel="news", data=2)
        assert (await client.push())["pub"]["offset"] == 2


# ---- failover (T25) --------------------------------------------------------------------------------------------------


def _lag(redis: RunningRedis) -> None:
    """From now on the replica learns nothing."""
    for replica in redis.replicas:
        replica.ask("CONFIG", "SET", "masterauth", "wrong")
    redis.masters[0].ask("CLIENT", "KILL", "TYPE", "replica")
    until(lambda: all(replica.info("master_link_status") == "down" for replica in redis.replicas))


async def test_a_failover_to_a_replica_that_lags() -> None:
    """It gives offsets away again that clients have seen: they must not be told that they recovered."""
    with sentinel() as redis:
        async with open_house(redis.options) as house, at_work(house) as crowd:
            _lag(redis)
            await crowd.wait_acknowledged(50)
            redis.masters[0].kill()
            await crowd.wait(lambda: crowd.refused > 0)
            await crowd.wait_acknowledged()
        assert crowd.recovered[True] == 0
        assert crowd.recovered[False] >= len(CHANNELS)
        assert redis.replicas[0].info("role") == "master"


async def test_a_master_that_is_alive_and_was_replaced_is_left_by_all_links() -> None:
    """It would go on to take publications: nothing is wrong with it but that Sentinels name another one."""
    async with running_redis() as old, running_redis() as new:
        words: list[Server | None] = [Server(HERE, old.port)] * 3
        async with sentinels(words) as servers:
            asked = ",".join(f"{server.host}:{server.port}" for server in servers)
            async with open_house({"sentinel_address": asked, "sentinel_master_name": "main"}) as house:
                await house.api("publish", channel="news", data=1)
                assert old.ask("DBSIZE") > 0
                words[0] = Server(HERE, new.port)  # one alone is not believed
                await readiness(house, True)
                words[1] = words[0]

                async def left() -> bool:
                    await house.api("publish", channel="news", data=2)
                    return new.ask("DBSIZE") > 0 and not old.ask("CLIENT", "LIST", "TYPE", "pubsub")

                await came_true(left)
                assert await readiness(house, True) == "{}"


@pytest.mark.long
async def test_a_master_that_was_replaced_while_it_stood_still() -> None:
    """It comes back and thinks that it still is the master, until Sentinel tells it otherwise."""
    with sentinel() as redis:
        async with open_house(redis.options) as house, at_work(house) as crowd:
            redis.masters[0].signal(signal.SIGSTOP)
            await crowd.wait(lambda: crowd.refused > 0)
            await crowd.wait_acknowledged()
            redis.masters[0].signal(signal.SIGCONT)
            with trio.fail_after(30):
                while redis.masters[0].info("role") == "master":
                    await crowd.wait_acknowledged()
        assert redis.replicas[0].info("role") == "master"


@pytest.mark.long
async def test_a_failover_that_the_operator_asks_for_comes_back_by_itself() -> None:
    with sentinel() as redis:
        async with open_house(redis.options) as house, at_work(house) as crowd:
            watcher = redis.sentinels[0]

            async def leader() -> bytes:
                return watcher.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")[1]

            async def quiet() -> bool:
                return b"failover" not in watcher.ask("SENTINEL", "MASTER", "main")[9]

            for _ in range(2):
                old = await leader()

                async def replaced(old: bytes = old) -> bool:
                    if (
                        await quiet()
                    ):  # Sentinel does not do two at once, nor one to a replica that it does not know yet
                        watcher.ask("SENTINEL", "FAILOVER", "main")
                    return await leader() != old

                await came_true(replaced, 60)
                await readiness(house, True, 30)
                await crowd.wait_acknowledged()


# ---- Cluster (T27) ---------------------------------------------------------------------------------------------------

BRACES = ["a", "{b}c", "}d", "{}e", "f{", "{g"]


def _move(slot: int, source: RedisServer, target: RedisServer, servers: Sequence[RedisServer]) -> Iterator[str]:
    """Move a slot, as `redis-cli --cluster reshard` does; stops after each step."""
    to, here = target.ask("CLUSTER", "MYID"), source.ask("CLUSTER", "MYID")
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to)
    yield "announced"
    for key in source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1000):
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
        yield "half moved"
    yield "all there"
    for server in (target, source, *servers):
        if server.info("role") == "master":
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", to)
    yield "moved"


@pytest.mark.long
async def test_slots_that_move_under_load() -> None:
    with cluster() as redis:
        names = Names("centrifugo", cluster=True)
        async with open_house(redis.options) as house, at_work(house, BRACES) as crowd:
            for channel in BRACES:
                slot = slot_of(names.message(channel))
                source = redis.master_of(names.message(channel))
                target = next(server for server in redis.masters if server is not source)
                for step in _move(slot, source, target, redis.masters):
                    await crowd.wait_acknowledged(len(BRACES))
                    if step == "all there":  # and still the other one's, who says ASK
                        assert "error" not in await house.api("history", channel=channel, limit=0)
            assert sum(house.server.node.counters.reply_errors.values()) == 0
        assert crowd.refused == 0, "whoever publishes does not see it"


@pytest.mark.long
async def test_a_master_of_a_cluster_that_is_killed() -> None:
    with cluster(replicas=True) as redis:
        names = Names("centrifugo", cluster=True)
        async with open_house(redis.options) as house, at_work(house, BRACES) as crowd:
            victim = redis.master_of(names.message("a"))
            victim.kill()
            await crowd.wait(lambda: crowd.refused > 0)
            assert "waiting_for" in await readiness(house, False)
            await readiness(house, True, 30)
            await crowd.wait_acknowledged(len(BRACES) * 20)
            victim.start()
            await victim.wait_ready()
            await crowd.wait_acknowledged(len(BRACES) * 20)
        assert crowd.longest < KNOWN_WITHIN
        assert crowd.recovered[False] > 0, "another server holds its channels now"


@pytest.mark.long
async def test_a_member_of_a_cluster_that_the_others_cannot_tell() -> None:
    """Pub/sub hangs on one member. What the others publish comes over links between members: if those are cut, the
    link to Redis is as well as ever, and most channels are silent."""
    with cluster(node_timeout=60) as redis:
        async with open_house(redis.options) as house:
            await readiness(house, True)
            member = next(server for server in redis.masters if server.ask("CLIENT", "LIST", "TYPE", "pubsub"))
            others = [server for server in redis.masters if server is not member]
            for server in others:
                assert server.ask("CLUSTER", "FORGET", member.ask("CLUSTER", "MYID")) == b"OK"
            await readiness(house, False)

            async def all_are_named() -> bool:
                said = await readiness(house, False)
                return all(server.address in said for server in others)

            await came_true(all_are_named)
