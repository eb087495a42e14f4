"""A channel: who is told what, in which order, and what happens to those who cannot be told."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trio

from broker.hub import Channel, DeltaMode
from broker.hub import channel as channel_module
from broker.hub.backlog import Backlog
from broker.protocol import ClientInfo, FilterNode, Publication, StreamPosition, codes, compile_filter, fossil
from tests.support.listeners import Listener

pytestmark = pytest.mark.virtual_time

EPOCH = "abcd"


def at(offset: int, epoch: str = EPOCH) -> StreamPosition:
    return StreamPosition(offset, epoch)


class Room:
    """A channel whose pump runs in `nursery`, and an engine in a few lines."""

    def __init__(self, nursery: trio.Nursery, backlog: Backlog | None = None) -> None:
        self.pumps = 0
        self.backlog = backlog or Backlog()
        self._nursery = nursery
        self.channel = Channel("room", self._spawn, self.backlog)
        self.top = 0
        self.last: Publication | None = None

    def _spawn(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.pumps += 1
        self._nursery.start_soon(task)

    def listener(self, position: StreamPosition | None = None, **how: Any) -> Listener:
        """One that is live; positioned where a position is given."""
        return Listener().prepare(self.channel, positioned=position is not None, **how).go_live(position)

    def crowd(self, count: int = 20) -> list[Listener]:
        """So many that the pump has to serve them."""
        return [self.listener() for _ in range(count)]

    def publish(
        self, data: object = None, *, offset: int | None = None, epoch: str = EPOCH, delta: bool = False
    ) -> int:
        """The next publication; with `offset`, that one."""
        self.top = self.top + 1 if offset is None else offset
        text = json.dumps(self.top if data is None else data).encode()
        pub = Publication(text, offset=self.top, is_json=True)
        base, self.last = self.last if delta else None, pub
        self.channel.push_publication(pub, epoch, base)

    def publish_plain(self, data: object) -> None:
        """A publication that is not kept."""
        self.channel.push_publication(Publication(json.dumps(data).encode(), is_json=True), "", None)

    def join(self, client: str) -> None:
        self.channel.push_join(ClientInfo("user", client))

    def leave(self, client: str) -> None:
        self.channel.push_leave(ClientInfo("user", client))


@pytest.fixture
async def room(nursery: trio.Nursery) -> Room:
    return Room(nursery)


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


# ---- few and many ----------------------------------------------------------------------------------------------------


async def test_few_are_told_at_once_by_who_publishes(room: Room) -> None:
    few = room.crowd(16)
    room.publish()
    assert [each.offsets for each in few] == [[1]] * 16
    assert room.pumps == 0


async def test_many_are_told_by_a_pump_that_lives_while_there_is_something_to_tell(room: Room) -> None:
    many = room.crowd(17)
    room.publish()
    assert room.channel.busy
    assert many[0].offsets == []
    await settled()
    assert not room.channel.busy
    assert [each.offsets for each in many] == [[1]] * 17
    room.publish()
    await settled()
    assert room.pumps == 2
    assert many[3].offsets == [1, 2]


async def test_a_pump_joins_what_has_piled_up_into_one_write(room: Room) -> None:
    many = room.crowd()
    for _ in range(10):
        room.publish()
    await settled()
    assert many[0].offsets == list(range(1, 11))
    assert len(many[0].sent) == 1
    assert room.pumps == 1


async def test_rounds_are_bounded_by_count_and_by_bytes(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    many = room.crowd()
    for _ in range(600):
        room.publish()
    await settled()
    assert [len(each.offsets) for each in many] == [600] * 20
    assert len(many[0].sent) == 3
    monkeypatch.setattr(channel_module, "_ROUND_BYTES", 1000)
    many[0].sent.clear()
    for _ in range(4):
        room.publish("x" * 600)
    await settled()
    assert len(many[0].sent) == 2


async def test_what_is_published_during_a_fan_out_waits_for_its_end(room: Room) -> None:
    first, second = room.listener(), room.listener()
    first.on_send = lambda data: room.publish() if room.top == 1 else None
    room.publish()
    assert (first.offsets, second.offsets) == ([1], [1])
    await settled()
    assert (first.offsets, second.offsets) == ([1, 2], [1, 2])


async def test_an_error_in_a_fan_out_does_not_hold_up_what_waits(room: Room) -> None:
    first, second = room.listener(), room.listener()

    def publish_and_fail(data: bytes) -> None:
        first.on_send = None
        room.publish()
        raise LookupError

    first.on_send = publish_and_fail
    with pytest.raises(LookupError):
        room.publish()
    await settled()
    room.publish()
    assert second.offsets == [2, 3]


async def test_a_long_fan_out_lets_others_run(room: Room) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while room.channel.busy:
            turns += 1
            await trio.lowlevel.checkpoint()

    many = room.crowd(2000)
    async with trio.open_nursery() as nursery:
        room.publish()
        nursery.start_soon(other)
    assert turns >= 8
    assert all(each.offsets == [1] for each in many)


# ---- coming and going ------------------------------------------------------------------------------------------------


async def test_who_comes_while_the_pump_runs_hears_what_is_published_from_then_on(room: Room) -> None:
    room.crowd()
    room.publish()
    late = room.listener()
    room.publish()
    await settled()
    assert late.offsets == [2]


async def test_who_leaves_during_a_fan_out_is_told_nothing_more(room: Room) -> None:
    many = room.crowd(1000)
    victims = many[400:600]

    def leave(data: bytes) -> None:
        many[300].on_send = None
        for each in victims:
            each.leave()

    many[300].on_send = leave
    room.publish()
    await settled()
    room.publish()
    await settled()
    assert all(each.offsets == [] for each in victims)
    assert room.channel.subscriptions == 800


async def test_who_leaves_between_two_chunks_is_told_nothing_more(room: Room) -> None:
    many = room.crowd(600)
    room.publish()
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            while not many[0].sent:
                await trio.lowlevel.checkpoint()
            assert not many[-1].sent
            many[-1].leave()

        nursery.start_soon(leave)
    await settled()
    assert many[-1].sent == []
    assert many[-2].offsets == [1]


async def test_what_is_left_of_a_channel_that_everybody_left(room: Room) -> None:
    for each in [*room.crowd(30), room.listener(at(0))]:
        each.leave()
    channel = room.channel
    assert (channel.subscriptions, channel.groups, channel.joining, channel.collecting) == (0, {}, {}, {})


async def test_a_subscription_being_prepared_can_be_removed(room: Room) -> None:
    listener = Listener().prepare(room.channel, positioned=True)
    room.publish()
    listener.leave()
    room.publish()
    assert room.channel.subscriptions == 0
    assert listener.sent == []


# ---- positions -------------------------------------------------------------------------------------------------------


async def test_what_is_published_while_a_subscription_is_prepared_is_noted_and_not_told(room: Room) -> None:
    listener = Listener().prepare(room.channel, positioned=True)
    room.publish()
    room.publish()
    assert listener.sub is not None
    assert [pub.offset for pub, _ in room.channel.collected(listener.sub)] == [1, 2]
    listener.go_live(at(2))
    room.publish()
    assert listener.offsets == [3]


@pytest.mark.parametrize("crowded", [False, True])
async def test_a_subscription_that_goes_live_while_the_pump_runs_gets_each_offset_once(
    room: Room, crowded: bool
) -> None:
    if crowded:
        room.crowd()
    preparing = [Listener().prepare(room.channel, positioned=True) for _ in range(12)]
    for listener in preparing:
        room.publish()
        listener.go_live(at(room.top))
        room.publish()
        if room.top % 4 == 0:
            await trio.lowlevel.checkpoint()
    await settled()
    for n, listener in enumerate(preparing):
        assert listener.offsets == list(range(2 * n + 2, 25))


async def test_a_gap_is_told_to_those_with_a_position_and_to_nobody_else(room: Room) -> None:
    plain, positioned = room.listener(), room.listener(at(0))
    room.publish()
    room.publish(offset=3)
    assert plain.offsets == [1, 3]
    assert positioned.offsets == [1]
    assert positioned.lost_in == ["room"]
    assert room.channel.subscriptions == 1


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize(("offset", "epoch"), [(7, EPOCH), (5, EPOCH), (4, EPOCH), (1, "wxyz"), (6, "wxyz")])
async def test_anything_but_the_next_offset_of_the_same_epoch_is_a_gap(
    room: Room, crowded: bool, offset: int, epoch: str
) -> None:
    if crowded:
        room.crowd()
    listener = room.listener(at(4))
    room.publish(offset=5)
    room.publish(offset=offset, epoch=epoch)
    await settled()
    assert listener.offsets == [5]
    assert listener.lost_in == ["room"]


async def test_a_gap_in_the_middle_of_a_round_comes_after_what_was_before_it(room: Room) -> None:
    room.crowd()
    positioned = room.listener(at(0))
    order: list[str] = []
    positioned.on_send = lambda data: order.append("told")
    lost = positioned.lost
    positioned.lost = lambda channel: (order.append("lost"), lost(channel))[1]  # type: ignore[method-assign]
    for offset in (1, 2, 4, 5):
        room.publish(offset=offset)
    await settled()
    assert positioned.offsets == [1, 2]
    assert order == ["told", "lost"]


async def test_who_joins_exactly_behind_a_gap_has_missed_nothing(room: Room) -> None:
    """The engine lost 6 and 7 on its way here; a newcomer read them in history."""
    old = room.listener(at(4))
    room.publish(offset=5)
    new = room.listener(at(7))
    room.publish(offset=8)
    assert old.lost_in == ["room"]
    assert old.offsets == [5]
    assert new.lost_in == []
    assert new.offsets == [8]


async def test_who_joins_in_a_new_epoch_is_not_lost_with_the_old_one(room: Room) -> None:
    old = room.listener(at(4))
    room.publish(offset=5)
    new = room.listener(at(0, "wxyz"))
    room.publish(offset=1, epoch="wxyz")
    assert old.lost_in == ["room"]
    assert new.offsets == [1]


async def test_who_read_an_epoch_that_is_over_is_told(room: Room) -> None:
    listener = Listener().prepare(room.channel, positioned=True)
    room.listener(at(4)).leave()
    listener.go_live(at(4))
    room.publish(offset=1, epoch="wxyz")
    assert listener.lost_in == ["room"]
    assert listener.sent == []


@pytest.mark.parametrize("crowded", [False, True])
async def test_an_engine_may_have_read_further_than_it_has_delivered(room: Room, crowded: bool) -> None:
    """Each gets what is above its own position, in whatever order they came."""
    if crowded:
        room.crowd()
    here = room.listener(at(4))
    room.publish(offset=5)
    await settled()
    ahead, further, before = room.listener(at(7)), room.listener(at(8)), room.listener(at(6))
    for offset in (6, 7, 8, 9):
        room.publish(offset=offset)
    await settled()
    assert here.offsets == [5, 6, 7, 8, 9]
    assert before.offsets == [7, 8, 9]
    assert ahead.offsets == [8, 9]
    assert further.offsets == [9]
    assert [each.lost_in for each in (here, before, ahead, further)] == [[]] * 4


async def test_the_first_one_may_be_ahead_too(room: Room) -> None:
    first, plain = room.listener(at(7)), room.listener()
    for offset in (6, 7, 8):
        room.publish(offset=offset)
    assert first.offsets == [8]
    assert plain.offsets == [6, 7, 8]


async def test_the_position_of_a_subscription(room: Room) -> None:
    joining, plain = room.listener(at(7)), room.listener()
    assert joining.sub is not None
    assert plain.sub is not None
    assert room.channel.position(joining.sub) == at(7)
    assert room.channel.position(plain.sub) is None
    room.publish(offset=8)
    assert room.channel.position(joining.sub) == at(8)
    assert room.channel.position(plain.sub) is None
    preparing = Listener().prepare(room.channel, positioned=True)
    assert preparing.sub is not None
    assert room.channel.position(preparing.sub) is None


async def test_what_has_no_offset_reaches_everybody_and_moves_nobody(room: Room) -> None:
    joining, live = room.listener(at(3)), room.listener(at(3))
    room.publish_plain("a")
    room.publish(offset=4)
    room.publish_plain("b")
    room.publish(offset=5)
    for listener in (joining, live):
        assert listener.data == ["a", 4, "b", 5]


# ---- who comes and goes ----------------------------------------------------------------------------------------------


async def test_joins_and_leaves_go_to_those_who_want_them(room: Room) -> None:
    curious, not_curious = room.listener(join_leave=True), room.listener()
    room.join("c1")
    room.leave("c1")
    info = {"info": {"user": "user", "client": "c1"}}
    assert curious.pushes == [{"channel": "room", "join": info}, {"channel": "room", "leave": info}]
    assert not_curious.pushes == []


async def test_joins_reach_positioned_subscriptions_for_as_long_as_nobody_publishes(room: Room) -> None:
    before = room.listener(at(3), join_leave=True)
    room.join("c1")
    after = room.listener(at(3), join_leave=True)
    room.join("c2")
    room.publish(offset=4)
    room.leave("c1")
    kinds = [sorted(push)[1] if "channel" in push else "" for push in before.pushes]
    assert kinds == ["join", "join", "pub", "leave"]
    assert [sorted(push)[1] for push in after.pushes] == ["join", "pub", "leave"]


async def test_joins_of_a_round_go_only_to_those_who_were_there(room: Room) -> None:
    room.crowd()
    room.join("c1")
    listener = room.listener(at(0), join_leave=True)
    room.join("c2")
    await settled()
    assert [push["join"]["info"]["client"] for push in listener.pushes] == ["c2"]


# ---- filters, patches ------------------------------------------------------------------------------------------------


async def test_a_filter_leaves_out_what_it_does_not_let_through(room: Room) -> None:
    filter = compile_filter(FilterNode(key="k", cmp="eq", val="yes"))
    listener = room.listener(at(0), filter=filter)
    for offset, value in enumerate(("yes", "no", "yes"), 1):
        pub = Publication(b"0", offset=offset, tags={"k": value}, is_json=True)
        room.channel.push_publication(pub, EPOCH, None)
    assert listener.offsets == [1, 3]
    assert listener.lost_in == []


def apply_pushes(listener: Listener) -> list[str]:
    """What an SDK makes of full payloads and patches."""
    values: list[str] = []
    for push in listener.pushes:
        data = push["pub"]["data"]
        if push["pub"].get("delta"):
            values.append(fossil.apply(values[-1].encode(), data.encode()).decode())
        else:
            values.append(data)
    return values


def text(n: int) -> str:
    return "a rather long text that does not change much, " * 4 + str(n)


@pytest.mark.parametrize("crowded", [False, True])
async def test_patches_begin_after_the_first_full_publication(room: Room, crowded: bool) -> None:
    if crowded:
        room.crowd()
    listener = room.listener(at(0), delta=DeltaMode.FIRST)
    for n in range(4):
        room.publish(text(n), delta=True)
        await settled()
    assert apply_pushes(listener) == [json.dumps(text(n)) for n in range(4)]
    assert [bool(push["pub"].get("delta")) for push in listener.pushes] == [False, True, True, True]


@pytest.mark.parametrize("crowded", [False, True])
async def test_one_with_a_base_and_one_without_get_each_publication_once(room: Room, crowded: bool) -> None:
    """The one without moves to patches while the other's group stands behind its own."""
    if crowded:
        room.crowd()
    room.publish(text(0))
    await settled()
    without = room.listener(at(1), delta=DeltaMode.FIRST)
    recovered = room.listener(at(1), delta=DeltaMode.PATCHES)
    room.publish(text(1), delta=True)
    room.publish(text(2), delta=True)
    await settled()
    assert without.offsets == [2, 3]
    assert recovered.offsets == [2, 3]


async def test_nothing_is_a_patch_to_what_subscribers_did_not_get_last(room: Room) -> None:
    listener = room.listener(at(0), delta=DeltaMode.FIRST)
    room.publish(text(0), delta=True)
    room.publish(text(1), delta=True)
    room.publish_plain(text(99))  # now this is what a client would apply a patch to
    room.publish(text(2), delta=True)
    room.publish(text(3), delta=True)
    assert apply_pushes(listener) == [json.dumps(text(n)) for n in (0, 1, 99, 2, 3)]
    assert [bool(push["pub"].get("delta")) for push in listener.pushes] == [False, True, False, False, True]


# ---- payloads that cannot be told ------------------------------------------------------------------------------------


async def test_who_cannot_be_told_is_disconnected(room: Room) -> None:
    listener = room.listener()
    room.channel.push_publication(Publication(b"\x00\x01", offset=1), EPOCH, None)
    assert listener.ended == [codes.INAPPROPRIATE_PROTOCOL]
    room.publish(offset=2)
    assert listener.sent == []


# ---- publishers wait -------------------------------------------------------------------------------------------------


async def test_a_full_pump_makes_publishers_wait_and_wakes_them(room: Room) -> None:
    many = room.crowd()
    for _ in range(1023):
        room.publish()
    assert not room.channel.full
    room.publish()
    assert room.channel.full
    awake: list[int] = []

    async def publish(n: int) -> None:
        while room.channel.full:
            await room.channel.wait_room()
        awake.append(n)
        room.publish()

    async with trio.open_nursery() as nursery:
        for n in range(300):
            nursery.start_soon(publish, n)
    await settled()
    assert sorted(awake) == list(range(300))
    assert [each.offsets for each in many] == [list(range(1, 1325))] * 20
    assert not room.channel.full


async def test_a_pump_is_full_by_bytes_as_well(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_module, "_FULL_BYTES", 1000)
    room.crowd()
    room.publish("x" * 900)
    assert not room.channel.full
    room.publish("x" * 200)
    assert room.channel.full
    await settled()
    assert not room.channel.full


async def test_what_a_split_round_puts_back_still_counts_as_waiting(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "_FULL_BYTES", 1000)
    room.crowd()
    positioned = room.listener(at(0))
    for offset in (1, 2, 4, 6, 7):
        room.publish("x" * 180, offset=offset)
    await settled()
    assert positioned.offsets == [1, 2]
    assert not room.channel.busy
    for _ in range(5):
        room.publish("x" * 180)
    assert not room.channel.full
    room.publish("x" * 180)
    assert room.channel.full
    await settled()


# ---- all channels together -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"most_events": 10}, {"most_bytes": 1000}])
async def test_what_waits_is_bounded_over_all_channels(nursery: trio.Nursery, limits: dict[str, int]) -> None:
    """Each channel is far from its own bound. Who publishes to one in which nothing waits never has to wait."""
    backlog = Backlog(**limits)
    rooms = [Room(nursery, backlog) for _ in range(3)]
    crowds = [room.crowd() for room in rooms]
    for room in rooms[:2]:
        for _ in range(5):
            assert not room.channel.full
            room.publish("x" * 98)
    assert (backlog.events, backlog.size) == (10, 1000)
    assert [room.channel.full for room in rooms] == [True, True, False]
    rooms[2].publish()
    assert rooms[2].channel.full
    for room in rooms:
        while room.channel.full:
            await room.channel.wait_room()
    await trio.testing.wait_all_tasks_blocked()
    assert (backlog.events, backlog.size) == (0, 0)
    assert [len(crowd[0].offsets) for crowd in crowds] == [5, 5, 1]
    assert not any(room.channel.full for room in rooms)


async def test_what_waits_is_counted_down_to_nothing_however_it_is_told(nursery: trio.Nursery) -> None:
    """Few and many subscribers, held and told together, gaps that put events back, joins beside publications."""
    for count in (1, 3, 20):
        room = Room(nursery)
        for _ in range(count):
            room.listener(at(0))
        held = room.channel.hold()
        assert held is (count <= 16)
        for _ in range(3):
            room.publish()
        room.channel.push_join(ClientInfo("u", "c"))
        room.channel.let_go()
        room.publish(offset=9)
        room.publish()
        if room.channel.hold():
            room.publish()
            room.channel.let_go()
        await trio.testing.wait_all_tasks_blocked()
        assert (room.backlog.events, room.backlog.size) == (0, 0)
