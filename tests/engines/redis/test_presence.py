"""Presence that expires: what a node leaves behind when it dies goes by itself, by the clock of Redis."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from broker.hub import EngineUnavailable, PresenceStats
from broker.protocol import ClientInfo
from tests.support.redis import REDIS_6_2, RedisClock, packaged, running_redis
from tests.support.redis_engine import open_redis
from tests.support.redis_topologies import RunningRedis

KINDS = ["tcp", "users counted", "cluster", "fields expire"]
jumping = pytest.mark.virtual_time(make_clock=RedisClock)


@jumping
@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_not_refreshed_is_gone_after_the_ttl(
    kind: str, redis_topology: Callable[[str], RunningRedis]
) -> None:
    running = redis_topology(kind)
    async with open_redis(*running.masters, **running.options) as engine:
        presence = engine.presence
        for client, user in (("dead", "u1"), ("alive", "u2"), ("left", "u3")):
            await presence.add("room", client, ClientInfo(user, client))
        for _ in range(4):
            await trio.sleep(20)
            await presence.add("room", "alive", ClientInfo("u2", "alive", b"still here"))
        assert await presence.clients("room") == {"alive": ClientInfo("u2", "alive", b"still here")}
        assert await presence.stats("room") == PresenceStats(1, 1)
        await presence.remove("room", "left")  # late, of an entry that is gone
        assert await presence.stats("room") == PresenceStats(1, 1)
        await trio.sleep(62)
        assert await presence.stats("room") == PresenceStats(0, 0)
        for server in running.masters:
            assert server.ask("KEYS", "*presence*") == [], "nothing is left behind"


@jumping
async def test_a_user_of_whom_one_client_died_is_counted_for_one_ttl_at_most(
    redis_topology: Callable[[str], RunningRedis],
) -> None:
    running = redis_topology("users counted")
    async with open_redis(*running.masters, **running.options) as engine:
        presence = engine.presence
        await presence.add("room", "dead", ClientInfo("u", "dead"))
        for _ in range(4):
            await presence.add("room", "alive", ClientInfo("u", "alive"))
            await trio.sleep(20)
        assert await presence.stats("room") == PresenceStats(1, 1)
        await presence.remove("room", "alive")
        assert (await presence.stats("room")).clients == 0
        await trio.sleep(62)
        assert await presence.stats("room") == PresenceStats(0, 0)


async def test_fields_that_expire_are_refused_where_redis_does_not_know_them() -> None:
    program = packaged(*REDIS_6_2)
    if not program:
        pytest.skip("no package with Redis 6.2 for this Python and machine")
    async with running_redis(program=program) as server:
        with pytest.RaisesGroup(
            pytest.RaisesExc(EngineUnavailable, match=f"{server.address}: it does not know HEXPIRE"),
            flatten_subgroups=True,
        ):
            async with open_redis(server, presence_hash_field_ttl=True):
                pass
