"""Nodes that know each other, over a bus that loses, repeats, reorders, and falls silent."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing

from broker.eager import own_task
from broker.hub import EngineUnavailable, NodeMetrics, Reply
from broker.hub.channel_survey import answer_channels
from broker.hub.cluster import ANNOUNCE_EVERY, FORGET_AFTER, SURVEY_SECONDS
from broker.hub.control import Leaving, NodeInfo, Question
from broker.hub.control_codec import encode
from tests.conftest import ErrorLog
from tests.support.clock import seconds
from tests.support.fleet import Bus, open_fleet
from tests.support.peers import HISTORY, House, options

pytestmark = pytest.mark.virtual_time


def names(house: House) -> list[str]:
    return sorted(info.name for info in house.server.node.cluster.nodes())


# ---- who is there ----------------------------------------------------------------------------------------------------


async def test_nodes_know_each_other_and_describe_themselves() -> None:
    async with open_fleet(3, options(prometheus={"enabled": True})) as (_, (a, b, c)):
        client = await b.connected()
        await client.ask(subscribe={"channel": "x"})
        await trio.sleep(ANNOUNCE_EVERY + 1)
        for house in (a, b, c):
            nodes = (await house.api("info"))["result"]["nodes"]
            assert sorted(node["name"] for node in nodes) == ["node1", "node2", "node3"]
            assert [node["num_clients"] for node in nodes if node["name"] == "node2"] == [1]
            assert [node["num_subs"] for node in nodes if node["name"] == "node2"] == [1]
            assert len({node["uid"] for node in nodes}) == 3
            assert b"centrifugo_node_num_nodes 3.0" in (await house.http("GET", "/metrics")).body


async def test_a_newcomer_knows_all_at_once_and_is_known() -> None:
    async with open_fleet(2, options()) as (fleet, (a, b)), fleet.node() as c:
        await trio.sleep(0.5)
        assert names(a) == names(b) == names(c) == ["node1", "node2", "node3"]


async def test_who_leaves_is_gone_at_once() -> None:
    async with open_fleet(2, options()) as (fleet, (a, b)):
        async with fleet.node():
            await trio.sleep(0.5)
            assert len(names(a)) == 3
        await trio.sleep(0.1)
        assert names(a) == names(b) == ["node1", "node2"]


async def test_who_dies_is_gone_after_its_time_and_back_when_it_lives() -> None:
    bus = Bus(random.Random(1))
    async with open_fleet(3, options(), bus=bus) as (_, (a, b, c)):
        bus.mute.add(c.server.node.uid)
        await trio.sleep(FORGET_AFTER - ANNOUNCE_EVERY - 1)
        assert len(names(a)) == 3
        await trio.sleep(ANNOUNCE_EVERY + 2.5)
        assert names(a) == names(b) == ["node1", "node2"]
        assert len(names(c)) == 3  # it hears them still
        bus.mute.clear()
        await trio.sleep(ANNOUNCE_EVERY + 1)
        assert len(names(a)) == 3


async def test_an_announcement_that_comes_after_the_goodbye_is_none() -> None:
    async with open_fleet(1, options()) as (_, (a,)):
        cluster = a.server.node.cluster
        announcement = encode("b", NodeInfo("b", "other", "v", 0, 0, 0, 0, 0))
        cluster.received(announcement)
        assert names(a) == ["node1", "other"]
        cluster.received(encode("b", Leaving()))
        cluster.received(announcement)
        assert names(a) == ["node1"]
        await trio.sleep(FORGET_AFTER + 2)
        cluster.received(announcement)  # who still says it lives, lives
        assert names(a) == ["node1", "other"]


async def test_who_leaves_does_not_announce_itself_any_more() -> None:
    """Neither to all nor to a newcomer, although it lives until the engine has taken its goodbye."""
    bus = Bus(random.Random(1))
    async with open_fleet(2, options(), bus=bus) as (_, (a, b)):
        await b.server.node.cluster.leave()
        await trio.sleep(0.1)
        sent = b.server.node.counters.sent["control"]
        b.server.node.cluster.received(encode("new", NodeInfo("new", "", "", 0, 0, 0, 0, 0)))
        await trio.sleep(ANNOUNCE_EVERY + 1)
        assert b.server.node.counters.sent["control"] == sent
        assert names(a) == ["node1"]


async def test_what_comes_after_the_end_is_not_heard() -> None:
    """The engine lives for a moment longer than the hub, whose tasks are gone."""
    async with open_fleet(1, options()) as (fleet, _):
        async with fleet.node() as b:
            cluster = b.server.node.cluster
            await trio.sleep(0.1)
        cluster.received(encode("new", NodeInfo("new", "", "", 0, 0, 0, 0, 0)))
        cluster.received(encode("new", Question(1, "channels")))


async def test_a_process_that_stood_still_does_not_forget_the_others() -> None:
    """What they said meanwhile waits for it to be read."""
    bus = Bus(random.Random(1), most=0.2)
    async with open_fleet(3, options(), bus=bus) as (_, (a, b, c)):
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, trio.testing.MockClock)
        clock.jump(90)
        await trio.sleep(0.01)
        assert names(a) == names(b) == names(c) == ["node1", "node2", "node3"]
        bus.mute.add(c.server.node.uid)  # and who does not speak is forgotten as ever
        await trio.sleep(FORGET_AFTER + 2)
        assert names(a) == ["node1", "node2"]


async def test_metrics_stay_until_newer_ones_come() -> None:
    async with open_fleet(1, options()) as (_, (a,)):
        node = a.server.node
        measured = NodeMetrics(60.0, {"x": 2.0})
        node.cluster.received(encode("o", NodeInfo("o", "other", "v", 0, 0, 0, 0, 0, measured)))
        node.cluster.received(encode("o", NodeInfo("o", "other", "v", 1, 0, 0, 0, 0)))
        other = (await a.api("info"))["result"]["nodes"][1]
        assert other["metrics"] == {"interval": 60.0, "items": {"x": 2.0}}
        assert other["num_clients"] == 1


async def test_a_fleet_on_a_bus_that_loses_and_repeats_stays_together() -> None:
    bus = Bus(random.Random(7), most=0.2, losing=10, repeating=5)
    async with open_fleet(4, options(), bus=bus) as (_, houses):
        seen = []
        for _ in range(60):
            await trio.sleep(1)
            seen += [len(names(house)) for house in houses]
        assert seen.count(4) > 0.95 * len(seen)  # two losses in a row make one forget


# ---- what is not understood ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"garbage", "garbage"),
        (bytes.fromhex("0a0178 7a00"), "unknown"),
        (encode("liar", NodeInfo("somebody else", "", "", 0, 0, 0, 0, 0)), "garbage"),
    ],
)
async def test_garbage_and_newer_messages_are_counted_and_ignored(data: bytes, why: str) -> None:
    async with open_fleet(2, options()) as (_, (a, _b)):
        node = a.server.node
        node.cluster.received(data)
        assert node.counters.control_ignored == {why: 1}
        assert len(names(a)) == 2


async def test_a_flood_of_invented_nodes_is_bounded() -> None:
    async with open_fleet(1, options()) as (_, (a,)):
        node = a.server.node
        for number in range(1100):
            uid = f"invented{number}"
            node.cluster.received(encode(uid, NodeInfo(uid, "", "", 0, 0, 0, 0, 0)))
        assert len(names(a)) == 1001
        assert node.counters.control_ignored == {"too many nodes": 100}
        await trio.sleep(FORGET_AFTER + 2)
        assert len(names(a)) == 1


# ---- questions -------------------------------------------------------------------------------------------------------


async def test_channels_of_all_nodes_are_added_up() -> None:
    async with open_fleet(3, options()) as (_, houses):
        for house, channels in zip(houses, (["x"], ["x", "y"], ["z1"]), strict=True):
            client = await house.connected()
            for channel in channels:
                await client.ask(subscribe={"channel": channel})
        assert await channels_of(houses[0]) == {"x": 2, "y": 1, "z1": 1}
        assert await channels_of(houses[2], "z*") == {"z1": 1}


async def channels_of(house: House, pattern: str = "") -> dict[str, int]:
    result = (await house.api("channels", pattern=pattern))["result"]["channels"]
    return {name: info["num_clients"] for name, info in result.items()}


async def test_a_node_that_does_not_answer_is_an_error_in_time(error_log: ErrorLog) -> None:
    bus = Bus(random.Random(1))
    async with open_fleet(2, options(), bus=bus) as (_, (a, b)):
        error_log.expect("no answer from")
        bus.deaf.add(b.server.node.uid)
        with seconds(SURVEY_SECONDS):
            assert (await a.api("channels"))["error"]["code"] == 100
        survey = await a.server.node.cluster.survey("channels")
        assert survey.missing == {b.server.node.uid}
        assert survey.replies.keys() == {a.server.node.uid}


async def test_a_node_that_leaves_is_not_waited_for_nor_missed() -> None:
    bus = Bus(random.Random(1))
    async with open_fleet(2, options(), bus=bus) as (_, (a, b)):
        bus.deaf.add(b.server.node.uid)
        async with trio.open_nursery() as nursery:
            began = trio.current_time()

            async def ask() -> None:
                survey = await a.server.node.cluster.survey("channels")
                assert survey.missing == set()
                assert trio.current_time() - began < SURVEY_SECONDS / 2

            nursery.start_soon(ask)
            await trio.sleep(0.1)
            a.server.node.cluster.received(encode(b.server.node.uid, Leaving()))


async def test_a_node_that_falls_silent_while_it_is_asked_is_missed() -> None:
    bus = Bus(random.Random(1))
    async with open_fleet(2, options(), bus=bus) as (_, (a, b)):
        bus.deaf.add(b.server.node.uid)
        bus.mute.add(b.server.node.uid)
        with trio.fail_after(FORGET_AFTER + 2):
            survey = await a.server.node.cluster.survey("channels", seconds=60)
        assert survey.missing == {b.server.node.uid}


async def test_an_engine_that_is_away_is_no_cluster_of_one(error_log: ErrorLog) -> None:
    """Everybody is forgotten after a while, and `channels` must not take a part for the whole."""
    bus = Bus(random.Random(1))
    async with open_fleet(2, options(), bus=bus) as (_, (a, b)):
        error_log.expect("the engine failed an API call")
        for node in (a.server.node.uid, b.server.node.uid):
            bus.broken.add(node)
        await trio.sleep(FORGET_AFTER + 3)
        assert names(a) == ["node1"]
        assert (await a.api("channels"))["error"]["code"] == 100
        bus.broken.clear()
        await trio.sleep(1.1)  # who is not heard tries again sooner
        assert names(a) == names(b) == ["node1", "node2"]


async def test_questions_are_begun_in_the_order_in_which_they_come() -> None:
    async with open_fleet(2, options()) as (_, (a, b)):
        heard: list[bytes] = []

        async def answer(data: bytes) -> Reply:
            heard.append(data)
            return Reply()

        b.server.node.cluster.handlers["say"] = answer
        sent = [b"%d" % number for number in range(50)]
        for number, data in enumerate(sent):
            b.server.node.cluster.received(encode(a.server.node.uid, Question(1000 + number, "say", data)))
        await trio.sleep(0.1)
        assert heard == sent


async def test_what_is_too_long_for_the_engine_is_no_answer() -> None:
    async with open_fleet(2, options()) as (_, (a, b)):

        async def answer(data: bytes) -> Reply:
            return Reply(data=bytes(9 << 20))

        b.server.node.cluster.handlers["tell all"] = answer
        assert await a.server.node.cluster.ask(b.server.node.uid, "tell all") == Reply(code=1)


async def test_ten_thousand_channels_are_told_in_parts() -> None:
    async with open_fleet(2, options()) as (_, (a, b)):
        everything = {f"channel {number}": number % 7 + 1 for number in range(10_000)}
        answer_channels(b.server.node.cluster, everything.items)
        assert await channels_of(a) == everything
        assert await channels_of(a, "channel 99?") == {
            f"channel 99{n}": everything[f"channel 99{n}"] for n in range(10)
        }


async def test_one_node_can_be_asked_and_its_answers_may_be_errors(error_log: ErrorLog) -> None:
    async with open_fleet(2, options()) as (_, (a, b)):
        asked: list[bytes] = []

        async def answer(data: bytes) -> Reply:
            asked.append(data)
            if data == b"bad":
                raise RuntimeError("as the test wants it")
            if data == b"late":
                await own_task()
                await trio.sleep(SURVEY_SECONDS * 2)
            return Reply(data=data.upper())

        b.server.node.cluster.handlers["shout"] = answer
        ask, b_uid = a.server.node.cluster.ask, b.server.node.uid
        assert await ask(b_uid, "shout", b"hey") == Reply(data=b"HEY")
        assert await ask(b_uid, "whisper") == Reply(code=3)
        error_log.expect("could not be answered")
        assert await ask(b_uid, "shout", b"bad") == Reply(code=1)
        with seconds(SURVEY_SECONDS):
            assert await ask(b_uid, "shout", b"late") is None
        assert await ask("nobody", "shout") is None
        assert await ask(a.server.node.uid, "shout") == Reply(code=3)
        question = encode(a.server.node.uid, Question(99, "shout", b"twice"))
        b.server.node.cluster.received(question)
        b.server.node.cluster.received(question)
        await trio.sleep(1)
        assert asked.count(b"twice") == 1
        assert b.server.node.counters.control_ignored == {"repeated": 1}


# ---- commands --------------------------------------------------------------------------------------------------------


async def test_what_the_server_does_to_a_user_it_does_on_all_nodes() -> None:
    async with open_fleet(3, options(HISTORY)) as (_, (a, b, c)):
        clients = [await house.connected() for house in (a, b, c)]
        await a.api("subscribe", user="", channel="news")
        for client in clients:
            assert "subscribe" in await client.push()
        await c.api("publish", channel="news", data={"n": 1})
        for client in clients:
            assert (await client.push())["pub"]["data"] == {"n": 1}
        await b.api("refresh", user="", expire_at=int(trio.current_time()) + 10**10)
        for client in clients:
            assert "refresh" in await client.push()
        await b.api("unsubscribe", user="", channel="news")
        for client in clients:
            assert (await client.push())["unsubscribe"]["code"] == 2000
        await c.api("disconnect", user="", whitelist=[clients[0].hello["client"]])
        assert await clients[1].wait_closed() == (3503, "force disconnect")
        assert await clients[2].wait_closed() == (3503, "force disconnect")
        await clients[0].nothing()


async def test_commands_that_come_twice_are_carried_out_once() -> None:
    bus = Bus(random.Random(1), repeating=1)
    async with open_fleet(2, options(HISTORY), bus=bus) as (_, (a, b)):
        client = await b.connected()
        await a.api("subscribe", user="", channel="news")
        assert "subscribe" in await client.push()
        await a.api("publish", channel="news", data={})
        assert "pub" in await client.push()
        await a.api("unsubscribe", user="", channel="news")
        assert "unsubscribe" in await client.push()
        await client.nothing(1)
        await a.api("disconnect", user="")
        assert (await client.wait_closed())[0] == 3503


async def test_when_nobody_can_be_told_nothing_is_done_here_either(error_log: ErrorLog) -> None:
    bus = Bus(random.Random(1))
    async with open_fleet(2, options(), bus=bus) as (_, (a, _b)):
        client = await a.connected()
        bus.broken.add(a.server.node.uid)
        error_log.expect("the engine failed an API call")
        answer: dict[str, Any] = await a.api("disconnect", user="")
        assert answer["error"]["code"] == 100
        await client.nothing()
        with pytest.raises(EngineUnavailable):
            await a.server.node.cluster.survey("channels")
        await trio.sleep(10)  # announcements fail meanwhile, and are tried again
        bus.broken.clear()
        await trio.sleep(ANNOUNCE_EVERY + 1)
        assert len(names(a)) == len(names(_b)) == 2


async def test_every_node_tells_what_it_measured() -> None:
    """As Centrifugo 6.9.1 names it: counters as they grew within the interval, gauges as they were at its end."""
    async with open_fleet(2, options(node={"info_metrics_aggregate_interval": "10s"})) as (fleet, (a, b)):

        async def items(house: House, name: str) -> dict[str, float]:
            nodes = (await house.api("info"))["result"]["nodes"]
            (metrics,) = [node["metrics"] for node in nodes if node["name"] == name]
            assert metrics["interval"] == 10
            return dict(metrics["items"])

        await trio.sleep(1)
        assert (await items(a, "node1"))["centrifugo.node.num_clients"] == 0
        client = await b.connected()
        for _ in range(3):
            await b.api("publish", channel="x", data=1)
        await trio.sleep(ANNOUNCE_EVERY + 10)
        for house in (a, b):
            of_b = await items(house, "node2")
            assert of_b["centrifugo.node.num_clients"] == 1
            assert of_b["centrifugo.node.messages_sent_count.type.publication"] == 3
            assert of_b["centrifugo.client.command_duration_seconds.count.method.connect"] == 1
            assert of_b["centrifugo.client.command_duration_seconds.sum.method.connect"] >= 0
            assert of_b["centrifugo.api.command_duration_seconds.count.method.publish.protocol.http"] == 3
            assert of_b["centrifugo.node.build.version.6.9.1 OSS"] == 1
            assert not any("bucket" in name or name.startswith(("process", "python")) for name in of_b)
            assert (await items(house, "node1"))["centrifugo.node.messages_sent_count.type.publication"] == 0
        await client.leave()
        await trio.sleep(ANNOUNCE_EVERY + 10)
        of_b = await items(a, "node2")
        assert of_b["centrifugo.node.num_clients"] == 0
        assert of_b["centrifugo.node.messages_sent_count.type.publication"] == 0
        async with fleet.node() as c:
            await trio.sleep(0.5)
            assert "centrifugo.node.num_clients" in await items(c, "node1")  # a newcomer need not wait
