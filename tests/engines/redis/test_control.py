"""Messages between nodes: who listens before it speaks, and which of several Redis carries them."""

from __future__ import annotations

import trio
import trio.testing

from broker.engines.redis.controller import RedisController
from broker.hub import EngineUnavailable
from tests.faults.proxy import Way, open_proxy
from tests.support.patience import PATIENCE
from tests.support.redis import running_redis
from tests.support.redis_engine import open_redis


async def test_nothing_is_said_before_answers_are_heard() -> None:
    async with (
        running_redis() as server,
        open_proxy(server.port) as proxy,
        open_redis(server, address=[proxy.address]) as opened,
        trio.open_nursery() as nursery,
    ):
        heard: list[bytes] = []
        control = RedisController(opened.shards)
        (link,) = [link for link in proxy.links if link.said(b"SUBSCRIBE")]
        link.stop(Way.UP)  # the subscription takes its time
        control.attach("me", heard.append)
        for data in (b"hello", b"here I am"):
            nursery.start_soon(control.publish_control, data)
        await trio.testing.wait_all_tasks_blocked(0.1)
        link.go()
        with trio.fail_after(PATIENCE):
            while sorted(heard) != [b"hello", b"here I am"]:
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_redis_that_is_away_is_passed_over() -> None:
    async with running_redis() as first, running_redis() as second, open_redis(first, second) as opened:
        heard: list[bytes] = []
        control = RedisController(opened.shards)
        control.attach("me", heard.append)
        await control.publish_control(b"hello")
        first.kill()
        with trio.fail_after(PATIENCE):
            while opened.shards.all[0].up:
                await trio.testing.wait_all_tasks_blocked(0.01)
        for number in range(4):
            await control.publish_control(b"%d" % number, "me" if number % 2 else "")
        with trio.fail_after(PATIENCE):
            while heard != [b"hello", b"0", b"1", b"2", b"3"]:
                await trio.testing.wait_all_tasks_blocked(0.01)
        second.kill()
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    await control.publish_control(b"nobody is there")
                except EngineUnavailable:
                    break


async def test_messages_come_in_the_order_in_which_they_were_sent() -> None:
    """Also where one of several Redis is slower than the others."""
    async with (
        running_redis() as first,
        running_redis() as second,
        open_proxy(second.port) as slow,
        open_redis(first, second, address=[first.address, slow.address]) as opened,
    ):
        heard: list[bytes] = []
        control = RedisController(opened.shards)
        control.attach("me", heard.append)
        await control.publish_control(b"hello")  # from here on it listens
        slow.delay = 0.03
        sent = {to: [b"%b %d" % (to.encode(), number) for number in range(10)] for to in ("", "me")}
        async with trio.open_nursery() as nursery:
            for to in sent:
                for data in sent[to]:
                    nursery.start_soon(control.publish_control, data, to)
                    await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            while len(heard) < 21:
                await trio.testing.wait_all_tasks_blocked(0.01)
        for to in sent:
            assert [data for data in heard if data in sent[to]] == sent[to]
