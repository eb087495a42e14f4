"""The node: channels opened once and let go of after a moment, publishers that wait, commands to connections."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from broker.eager import Promise, begin
from broker.engines import open_memory_engine
from broker.hub import (
    Channel,
    DisconnectUser,
    EngineUnavailable,
    HistoryOptions,
    Node,
    PublishOptions,
    RefreshUser,
    Subscription,
    Target,
    open_node,
    plain_key,
)
from broker.protocol import ClientInfo, Publication, codes
from tests.conftest import ErrorLog
from tests.support.listeners import Listener
from tests.support.slow_engine import Gates, SlowEngine, Turn, slow_engine

pytestmark = pytest.mark.virtual_time


@attrs.frozen
class Hall:
    """A node over an engine that waits where the test says so."""

    node: Node
    engine: SlowEngine
    gates: Gates

    async def subscriber(self, channel: str = "room") -> Listener:
        return Listener().prepare(await self.node.open_channel(channel)).go_live()


@asynccontextmanager
async def open_hall() -> AsyncIterator[Hall]:
    gates = Gates()
    async with (
        slow_engine(gates)(random.Random(1)) as engine,
        open_node("node", engine.broker, engine.presence, engine.controller) as node,
    ):
        yield Hall(node, engine, gates)


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


def publication(data: bytes = b"1") -> Publication:
    return Publication(data, is_json=True)


# ---- channels --------------------------------------------------------------------------------------------------------


async def test_a_channel_is_opened_once_however_many_ask() -> None:
    async with open_hall() as hall, trio.open_nursery() as nursery:
        hall.gates.hold("subscribe")
        opened: list[Channel] = []

        async def ask() -> None:
            opened.append(await hall.node.open_channel("room"))

        for _ in range(5):
            nursery.start_soon(ask)
        await settled()
        assert hall.gates.held("subscribe") == 1
        assert opened == []
        hall.gates.open("subscribe")
        await settled()
        assert len(opened) == 5
        assert len({id(channel) for channel in opened}) == 1
        assert hall.engine.broker.subscribed == {"room"}


async def test_who_goes_while_a_channel_opens_takes_nobody_along() -> None:
    async with open_hall() as hall, trio.open_nursery() as nursery:
        hall.gates.hold("subscribe")
        listeners: list[Listener] = []

        async def first() -> None:
            await hall.node.open_channel("room")

        async def second() -> None:
            listeners.append(await hall.subscriber())

        async with trio.open_nursery() as going:
            going.start_soon(first)
            await hall.gates.wait_until_held("subscribe")
            nursery.start_soon(second)
            await settled()
            going.cancel_scope.cancel()
        assert hall.gates.held("subscribe") == 1
        hall.gates.open("subscribe")
        await settled()
        await hall.node.publish("room", publication())
        assert listeners[0].data == [1]


async def test_a_channel_that_nobody_waits_for_any_more_is_let_go_of() -> None:
    async with open_hall() as hall:
        hall.gates.hold("subscribe done")
        with trio.move_on_after(1):
            await hall.node.open_channel("room")
        hall.gates.open("subscribe done")
        await trio.sleep(3)
        assert hall.node.registry.channels == {}
        assert hall.engine.broker.subscribed == set()


async def test_an_engine_that_fails_fails_all_who_wait_and_none_who_come_later() -> None:
    async with open_hall() as hall, trio.open_nursery() as nursery:
        hall.gates.hold("subscribe")
        hall.gates.failing.add("subscribe")
        failures: list[EngineUnavailable] = []

        async def ask() -> None:
            with pytest.raises(EngineUnavailable) as caught:
                await hall.node.open_channel("room")
            failures.append(caught.value)

        for _ in range(3):
            nursery.start_soon(ask)
        await settled()
        hall.gates.open("subscribe")
        await settled()
        assert len(failures) == 3
        assert hall.node.registry.channels == {}
        hall.gates.failing.clear()
        listener = await hall.subscriber()
        await hall.node.publish("room", publication())
        assert listener.data == [1]


async def test_a_channel_lingers_for_who_comes_back() -> None:
    async with open_hall() as hall:
        listener = await hall.subscriber()
        channel = listener.channel
        listener.leave()
        assert channel is not None
        hall.node.release(channel)
        await trio.sleep(0.9)
        again = await hall.subscriber()
        assert again.channel is channel
        await trio.sleep(10)
        await hall.node.publish("room", publication())
        assert again.data == [1]


async def test_a_channel_without_subscriptions_goes() -> None:
    async with open_hall() as hall:
        listener = await hall.subscriber()
        assert listener.channel is not None
        listener.leave()
        hall.node.release(listener.channel)
        await trio.sleep(2)
        assert hall.node.registry.channels == {}
        assert hall.engine.broker.subscribed == set()


async def test_who_comes_while_a_channel_is_let_go_of_waits_and_gets_a_new_one() -> None:
    async with open_hall() as hall, trio.open_nursery() as nursery:
        hall.gates.hold("unsubscribe")
        old = await hall.subscriber()
        assert old.channel is not None
        old.leave()
        hall.node.release(old.channel)
        await hall.gates.wait_until_held("unsubscribe")
        came: list[Listener] = []

        async def come() -> None:
            came.append(await hall.subscriber())

        nursery.start_soon(come)
        await settled()
        assert came == []
        hall.gates.open("unsubscribe")
        await settled()
        assert came[0].channel is not old.channel
        assert hall.engine.broker.subscribed == {"room"}
        await hall.node.publish("room", publication())
        assert came[0].data == [1]


async def test_letting_go_of_one_channel_does_not_hold_up_another() -> None:
    async with open_hall() as hall:
        hall.gates.hold("unsubscribe done")
        for name in ("a", "b", "c"):
            listener = await hall.subscriber(name)
            assert listener.channel is not None
            listener.leave()
            hall.node.release(listener.channel)
        await hall.gates.wait_until_held("unsubscribe done", 3)
        hall.gates.open("unsubscribe done")
        await settled()
        assert hall.node.registry.channels == {}


async def test_an_engine_that_does_not_let_go_ends_nothing() -> None:
    async with open_hall() as hall:
        hall.gates.failing.add("unsubscribe")
        listener = await hall.subscriber()
        assert listener.channel is not None
        listener.leave()
        hall.node.release(listener.channel)
        await trio.sleep(2)
        assert hall.node.registry.channels == {}
        hall.gates.failing.clear()
        again = await hall.subscriber()
        await hall.node.publish("room", publication())
        assert again.data == [1]


async def test_opening_a_channel_waits_for_a_promise() -> None:
    async with open_hall() as hall:
        hall.gates.hold("subscribe", "unsubscribe")
        first, second = hall.node.open_channel("room"), hall.node.open_channel("room")
        promises = [begin(first)[1], begin(second)[1]]
        assert all(isinstance(promise, Promise) and not promise.settled for promise in promises)
        hall.gates.open("subscribe")
        await settled()
        assert all(isinstance(promise, Promise) and promise.settled for promise in promises)
        channel = hall.node.registry.channels["room"]
        assert begin(first) == begin(second) == (True, channel)
        at_once = begin(hall.node.open_channel("room"))
        assert at_once == (True, hall.node.registry.channels["room"])
        await hall.gates.wait_until_held("unsubscribe")  # letting go
        opening = hall.node.open_channel("room")
        assert isinstance(begin(opening)[1], Promise)
        opening.close()
        hall.gates.open("unsubscribe")


# ---- publications ----------------------------------------------------------------------------------------------------


async def test_a_full_pump_makes_publishers_wait() -> None:
    async with open_hall() as hall:
        listeners = [await hall.subscriber() for _ in range(20)]
        channel = listeners[0].channel
        assert channel is not None
        while not channel.full:
            done, _ = begin(hall.node._broker.inner.publish("room", publication(), PublishOptions()))  # type: ignore[attr-defined]
            assert done
        waiting = hall.node.publish("room", publication(b'"last"'))
        assert begin(waiting) == (False, None)
        waiting.close()
        await hall.node.publish("room", publication(b'"last"'))
        await settled()
        assert listeners[7].data[-1] == "last"
        assert len(listeners[7].data) == 1025


async def test_what_is_counted_of_publications() -> None:
    async with open_hall() as hall:
        counters = hall.node.counters
        keep = HistoryOptions(10, 60, 600)
        for key, version in (("k", 0), ("k", 0), ("", 5), ("", 4)):
            await hall.node.publish("room", publication(), PublishOptions(keep, idempotency_key=key, version=version))
        assert counters.sent["publication"] == 2
        assert (counters.suppressed["idempotency"], counters.suppressed["version"]) == (1, 1)
        await hall.subscriber()
        await hall.node.publish("room", publication())
        await hall.node.publish_join("room", ClientInfo("u", "c"))
        await hall.node.publish_leave("room", ClientInfo("u", "c"))
        assert dict(counters.received) == {"publication": 1, "join": 1, "leave": 1}
        assert hall.node.deliveries == 1


async def test_deliveries_of_a_channel_that_is_gone_still_count() -> None:
    async with open_hall() as hall:
        listener = await hall.subscriber()
        await hall.node.publish("room", publication())
        assert listener.channel is not None
        listener.leave()
        hall.node.release(listener.channel)
        await trio.sleep(3)
        assert hall.node.registry.channels == {}
        assert hall.node.deliveries == 1


async def test_nobody_is_told_of_what_nobody_subscribed_to() -> None:
    async with open_hall() as hall:
        listener = await hall.subscriber("a")
        await hall.node.publish("b", publication())
        assert listener.sent == []
        assert await hall.node.channels() == {"a": 1}


# ---- connections -----------------------------------------------------------------------------------------------------


async def test_commands_reach_the_connections_they_are_for() -> None:
    async with open_hall() as hall:
        node = hall.node
        one, two, other = Listener("c1", user="alice"), Listener("c2", user="alice"), Listener("c3", user="bob")
        for client in (one, two, other):
            node.registry.add(client)
        refresh = RefreshUser(Target("alice", "c2"))
        await node.control(refresh)
        end = DisconnectUser(Target("alice"), spare=frozenset(("c2",)))
        await node.control(end)
        assert (one.commands, two.commands, other.commands) == ([end], [refresh], [])


async def test_what_a_node_tells_of_itself() -> None:
    async with open_hall() as hall:
        await hall.subscriber("a")
        await hall.subscriber("a")
        (await hall.subscriber("b")).leave()
        hall.node.registry.add(Listener("c1", user="alice"))
        hall.node.registry.add(Listener("c2", user="alice"))
        await trio.sleep(61.5)
        (info,) = hall.node.cluster.nodes()
        assert (info.num_clients, info.num_users, info.num_subs, info.num_channels) == (2, 1, 2, 1)
        assert info.uptime == 61


async def test_a_slow_engine_without_gates_is_only_slow() -> None:
    async with (
        slow_engine(Turn())(random.Random(1)) as engine,
        open_node("n", engine.broker, engine.presence, engine.controller) as node,
    ):
        listener = Listener().prepare(await node.open_channel("room")).go_live()
        await node.publish("room", publication())
        await node.add_presence("room", "c", ClientInfo("u", "c"))
        assert (await node.presence_stats("room")).clients == 1
        assert listener.data == [1]


# ---- without waiting ------------------------------------------------------------------------------------------------


async def test_what_is_published_together_reaches_each_subscriber_in_one_write_per_channel() -> None:
    async with (
        open_memory_engine(random.Random(1)) as engine,
        open_node("node", engine.broker, engine.presence, engine.controller) as node,
    ):
        room, other = [Listener().prepare(await node.open_channel(name)).go_live() for name in ("room", "other")]
        with node.together():
            for number in range(3):
                assert node.publish_nowait("room", publication(b"%d" % number), PublishOptions()) is not None
            node.publish_nowait("other", publication(b"9"), PublishOptions())
            assert room.sent == other.sent == []
        assert (len(room.sent), len(other.sent)) == (1, 1)
        assert room.data == [0, 1, 2]
        node.publish_nowait("room", publication(b"3"), PublishOptions())
        assert len(room.sent) == 2  # alone, and at once


@asynccontextmanager
async def open_rooms(*names: str) -> AsyncIterator[tuple[Node, list[Listener]]]:
    """A node with an engine that never waits, and one live listener in each of these channels."""
    async with (
        open_memory_engine(random.Random(1)) as engine,
        open_node("node", engine.broker, engine.presence, engine.controller) as node,
    ):
        yield node, [Listener().prepare(await node.open_channel(name)).go_live() for name in names]


def in_turn(node: Node, channel: str, number: int) -> None:
    assert node.publish_in_turn(channel, publication(b"%d" % number), PublishOptions()) is not None


async def test_what_is_published_within_a_turn_of_the_reader_leaves_at_its_end_in_one_write_per_channel() -> None:
    async with open_rooms("room", "other") as (node, (room, other)):
        in_turn(node, "room", 0)
        assert len(room.sent) == 1  # nobody reads: at once
        node.turn.begin()
        for number in (1, 2, 3):
            in_turn(node, "room", number)
        in_turn(node, "other", 9)
        assert (len(room.sent), len(other.sent)) == (1, 0)
        node.turn.end()
        assert (len(room.sent), len(other.sent)) == (2, 1)
        assert (room.data, other.data) == ([0, 1, 2, 3], [9])


async def test_who_publishes_otherwise_within_a_turn_waits_for_nobody_and_overtakes_nobody() -> None:
    async with open_rooms("room") as (node, (room,)):
        node.turn.begin()
        in_turn(node, "room", 0)
        node.publish_nowait("room", publication(b"1"), PublishOptions())
        assert room.data == [0, 1]
        in_turn(node, "room", 2)
        with node.together():
            node.publish_nowait("room", publication(b"3"), PublishOptions())
        assert room.data == [0, 1]
        node.turn.end()
        assert room.data == [0, 1, 2, 3]


async def test_a_broadcast_within_a_batch_leaves_in_order_at_the_end_of_the_turn() -> None:
    async with open_rooms("room") as (node, (room,)):
        node.turn.begin()
        with node.together():
            in_turn(node, "room", 0)
            node.publish_nowait("room", publication(b"1"), PublishOptions())
            in_turn(node, "room", 2)
        assert room.sent == []
        node.turn.end()
        assert (len(room.sent), room.data) == (1, [0, 1, 2])


async def test_who_comes_and_goes_within_a_turn_gets_what_is_published_meanwhile_and_nothing_else() -> None:
    async with open_rooms("room") as (node, (early,)):
        channel = await node.open_channel("room")
        late = Listener().prepare(channel)
        node.turn.begin()
        in_turn(node, "room", 0)
        late.go_live()
        in_turn(node, "room", 1)
        early.leave()
        node.turn.end()
        assert (early.data, late.data) == ([], [1])
        node.publish_nowait("room", publication(b"2"), PublishOptions())
        assert (early.data, late.data) == ([], [1, 2])


async def test_a_subscriber_of_many_channels_gets_what_a_turn_published_in_one_write_each_channel_in_order() -> None:
    async with open_rooms("room", "other") as (node, (room, other)):
        also = Subscription(room, plain_key(room.wire), positioned=False)
        second = await node.open_channel("other")
        second.collect(also)
        second.go_live(also, None)
        node.turn.begin()
        in_turn(node, "other", 1)
        in_turn(node, "room", 2)
        node.turn.end()
        assert (room.data, other.data) == ([1, 2], [1])
        assert (len(room.sent), len(other.sent)) == (1, 1)
        node.turn.begin()
        in_turn(node, "room", 3)
        for number in (4, 5):  # more than one: what has been packed leaves before
            in_turn(node, "other", number)
        node.turn.end()
        assert (room.data, other.data) == ([1, 2, 3, 4, 5], [1, 4, 5])
        assert node.deliveries == 8


async def test_who_goes_while_a_turn_is_told_leaves_its_channel_as_it_should_be() -> None:
    async with open_rooms("room", "other") as (node, (room, other)):
        channel = await node.open_channel("other")
        left = Listener().prepare(channel).go_live()

        def leave(_: bytes) -> None:
            other.on_send = None
            other.leave()
            channel.push_leave(ClientInfo("u", "other"))

        other.on_send = leave
        node.turn.begin()
        in_turn(node, "room", 1)
        in_turn(node, "other", 2)
        node.turn.end()
        assert channel.busy  # with what came meanwhile
        await settled()
        assert not channel.busy
        node.publish_nowait("other", publication(b"3"), PublishOptions())
        assert (room.data, left.data) == ([1], [2, 3])


async def test_a_payload_that_json_cannot_hold_ends_who_reads_json_after_what_came_before() -> None:
    async with open_rooms("room", "other") as (node, (room, _)):
        also = Subscription(room, plain_key(room.wire), positioned=False)
        second = await node.open_channel("other")
        second.collect(also)
        second.go_live(also, None)
        node.turn.begin()
        in_turn(node, "room", 1)
        assert node.publish_in_turn("other", Publication(b"\xff"), PublishOptions()) is not None
        node.turn.end()
        assert room.data == [1]
        assert room.ended == [codes.INAPPROPRIATE_PROTOCOL]


@pytest.mark.parametrize(("publications", "complaint"), [(1, "a subscriber"), (2, "a channel")])
async def test_a_channel_that_cannot_be_told_keeps_no_other_from_being_told(
    error_log: ErrorLog, publications: int, complaint: str
) -> None:
    error_log.expect(f"telling {complaint} failed")
    async with open_rooms("room", "other") as (node, (room, other)):

        def fail(_: bytes) -> None:
            raise LookupError

        room.on_send = fail
        node.turn.begin()
        for number in range(publications):
            in_turn(node, "room", number)
        in_turn(node, "other", 1)
        node.turn.end()
        assert other.data == [1]


async def test_nothing_is_published_without_waiting_where_something_may_wait() -> None:
    async with open_hall() as hall:
        listener = await hall.subscriber()
        assert hall.node.publish_nowait("room", publication(), PublishOptions()) is None
        await settled()
        assert listener.pushes == []
