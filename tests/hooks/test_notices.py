"""What backends are told of clients that have gone: once each, in order, without anybody waiting for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio

from broker.hooks import DisconnectEvent, HookError, Hooks, SubscribeEvent, UnsubscribeEvent, post
from broker.rules import make_rules
from tests.sessions.test_positions import POSITIONED, deliver
from tests.support.clock import seconds
from tests.support.peers import (
    NO_PINGS,
    WALL,
    House,
    RawClient,
    WallClock,
    configured,
    open_house,
    open_leaving_house,
    secured,
    token,
)

pytestmark = pytest.mark.virtual_time

OPEN = {"allow_subscribe_for_client": True}


def told(app: Hooks | None = None) -> tuple[Hooks, list[Any]]:
    """Hooks that write down everything they are told."""
    app = app or Hooks()
    events: list[Any] = []

    @app.on.disconnect()
    async def disconnect(event: DisconnectEvent) -> None:
        events.append(event)

    @app.on.unsubscribe("*")
    async def unsubscribe(event: UnsubscribeEvent) -> None:
        events.append(event)

    return app, events


def in_short(events: list[Any]) -> list[tuple[Any, ...]]:
    return [
        (event.channel, event.code, event.reason) if isinstance(event, UnsubscribeEvent) else (event.code, event.reason)
        for event in events
    ]


async def test_what_the_events_say() -> None:
    app, events = told(Hooks(http_headers=["X-Device"]))
    async with open_house(secured(OPEN, client=NO_PINGS), hooks=app) as house:
        client = await house.connected(token=token("42", meta={"tenant": 7}), with_headers="X-Device: phone\r\n")
        await client.ask(subscribe={"channel": "news"})
        await trio.sleep(90)
        began = trio.current_time()
        await client.leave()
        await trio.testing.wait_all_tasks_blocked()
        unsubscribed, disconnected = events
        for event in events:
            assert (event.client, event.user) == (client.hello["client"], "42")
            assert json.loads(event.meta) == {"tenant": 7}
            assert (event.transport, event.protocol, event.headers) == ("websocket", "json", {"x-device": "phone"})
            assert abs(event.time_ms - (WALL + began) * 1000) < 100
        assert isinstance(unsubscribed, UnsubscribeEvent)
        assert isinstance(disconnected, DisconnectEvent)
        assert in_short(events) == [("news", 1, "client disconnected"), (3000, "connection closed")]
        assert abs(disconnected.duration_ms - 90_000) < 100


async def by_the_client(house: House, client: RawClient) -> None:
    await client.ask(unsubscribe={"channel": "chat"})


async def by_the_server(house: House, client: RawClient) -> None:
    await house.api("unsubscribe", channel="chat", user="42")


async def by_a_gap(house: House, client: RawClient) -> None:
    deliver(house, 7, "other")


async def by_time(house: House, client: RawClient) -> None:
    await trio.sleep(120)


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        (by_the_client, 0, "client unsubscribed"),
        (by_the_server, 2000, "server unsubscribe"),
        (by_a_gap, 2500, "insufficient state"),
        (by_time, 2501, "subscription expired"),
    ],
)
async def test_every_end_of_a_subscription_is_told_once(end: Callable[..., Any], code: int, reason: str) -> None:
    app, events = told()
    async with open_house(secured(POSITIONED, client=NO_PINGS), hooks=app) as house:
        client = await house.connected(token=token("42"))
        expiry = {"exp": int(WALL) + 5} if end is by_time else {}
        await client.ask(subscribe={"channel": "chat", "token": token("42", channel="chat", **expiry)})
        await house.api("publish", channel="chat", data=1)
        await end(house, client)
        await client.arrived()
        assert in_short(events) == [("chat", code, reason)]
        await client.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert in_short(events)[1:] == [(3000, "connection closed")]


async def api_disconnects(house: House, client: RawClient) -> None:
    await house.api("disconnect", user="42", disconnect={"code": 4501, "reason": "go away"})


async def breaks_the_protocol(house: House, client: RawClient) -> None:
    await client.send_frame(b"{")


async def says_nothing(house: House, client: RawClient) -> None:
    with trio.move_on_after(60):
        await trio.sleep_forever()


@pytest.mark.parametrize(("end", "code"), [(api_disconnects, 4501), (breaks_the_protocol, 3501), (says_nothing, 3012)])
async def test_every_end_of_a_connection_is_told_once(end: Callable[..., Any], code: int) -> None:
    app, events = told()
    async with open_house(secured(OPEN), hooks=app) as house:
        client = await house.connected(token=token("42"))
        await client.ask(subscribe={"channel": "news"})
        await end(house, client)
        await trio.sleep(10)
    assert [event.code for event in events] == [1, code]


async def test_who_never_came_has_not_gone() -> None:
    """Refused connects, refused subscribes, and subscribes that their client did not wait for."""
    app, events = told()

    @app.on.subscribe("refused")
    async def refuse(event: SubscribeEvent) -> None:
        raise HookError(403, "no")

    @app.on.subscribe("slow", timeout=600)
    async def wait(event: SubscribeEvent) -> None:
        await trio.sleep(60)

    async with open_house(secured(), hooks=app) as house:
        nobody = await house.client()
        await nobody.leave()
        refused = await house.client()
        await refused.command(connect={"token": "nonsense"})
        await refused.wait_closed()
        expired = await house.client()
        assert "error" in await expired.ask(connect={"token": token("42", exp=int(WALL) - 60)})
        await expired.leave()
        await trio.sleep(10)
        assert events == []
        client = await house.connected(token=token("42"))
        assert (await client.ask(subscribe={"channel": "refused"}))["error"]["code"] == 403
        await client.command(subscribe={"channel": "slow"})
        await trio.sleep(1)
        await client.leave()
        await trio.sleep(70)
        assert in_short(events) == [(3000, "connection closed")]


async def test_a_clients_events_come_in_order_and_others_do_not_wait() -> None:
    app = Hooks()
    events: list[str] = []

    @app.on.unsubscribe("slow", timeout=600)
    async def slowly(event: UnsubscribeEvent) -> None:
        await trio.sleep(100)
        events.append(f"{event.user} {event.channel}")

    @app.on.unsubscribe("*")
    async def unsubscribe(event: UnsubscribeEvent) -> None:
        events.append(f"{event.user} {event.channel}")

    @app.on.disconnect()
    async def disconnect(event: DisconnectEvent) -> None:
        events.append(f"{event.user} gone")

    async with open_house(secured(OPEN), hooks=app) as house:
        first, second = [await house.connected(token=token(user)) for user in "12"]
        for channel in ("a", "slow", "b"):
            await first.ask(subscribe={"channel": channel})
        await second.ask(subscribe={"channel": "a"})
        await first.ask(unsubscribe={"channel": "slow"})
        await first.ask(subscribe={"channel": "slow"})
        for client in (first, second):
            await client.leave()
        await trio.sleep(50)
        assert events == ["2 a", "2 gone"]
        await trio.sleep(200)
        assert events[2:] == ["1 slow", "1 a", "1 b", "1 slow", "1 gone"]


async def test_nobody_who_ends_waits_for_it(error_log: Any) -> None:
    error_log.expect("no answer within 600 s")
    app = Hooks()

    @app.on.disconnect(timeout=600)
    async def never(event: DisconnectEvent) -> None:
        await trio.sleep_forever()

    async with open_house(secured(OPEN), hooks=app) as house:
        client = await house.connected(token=token("42"))
        with seconds(0):
            await house.api("disconnect", user="42")
            assert (await client.wait_closed())[0] == 3503
            await trio.testing.wait_all_tasks_blocked()
        assert house.server.doors.connections == set()
        assert house.server.context.notices.waiting() == {"disconnect": 1, "state": 0}
        await trio.sleep(601)
        assert house.server.context.notices.waiting() == {"disconnect": 0, "state": 0}


async def test_what_waits_is_bounded_and_what_is_dropped_counted(
    error_log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    error_log.expect("too many events wait for a hook")
    error_log.expect("no answer within 60 s")
    monkeypatch.setattr(post, "_MOST", 8 * 1100)
    app = Hooks()
    told: list[str] = []

    @app.on.disconnect(timeout=60, concurrency=2)
    async def never(event: DisconnectEvent) -> None:
        told.append(event.client)
        await trio.sleep_forever()

    options = secured(OPEN, prometheus={"enabled": True})
    async with open_house(options, hooks=app) as house:
        for _ in range(20):
            client = await house.connected(token=token("42"))
            await client.leave()
        await trio.sleep(1)
        assert house.server.context.notices.waiting()["disconnect"] == 8
        metrics = (await house.http("GET", "/metrics")).body.decode()
        assert 'centrifugo_hook_events_waiting{type="disconnect"} 8.0' in metrics
        assert 'centrifugo_hook_events_dropped_total{reason="full",type="disconnect"} 12.0' in metrics
        await trio.sleep(300)
        assert len(set(told)) == len(told) == 8
        assert house.server.context.notices.waiting()["disconnect"] == 0


async def test_the_server_ends_when_all_is_told() -> None:
    app = Hooks()
    told: list[tuple[int, int]] = []

    @app.on.disconnect(concurrency=4)
    async def disconnect(event: DisconnectEvent) -> None:
        await trio.sleep(0.5)
        told.append((event.code, event.duration_ms))

    async with open_leaving_house(secured(OPEN), app) as house:
        for _ in range(20):
            await house.connected(token=token("42"))
    assert [code for code, _ in told] == [3001] * 20


async def test_the_end_of_the_server_has_its_deadline() -> None:
    app = Hooks()

    @app.on.disconnect(timeout=600)
    async def never(event: DisconnectEvent) -> None:
        await trio.sleep_forever()

    async with open_leaving_house(secured(OPEN, shutdown={"timeout": "8s"}), app) as house:
        client = await house.connected(token=token("42"))
        await client.leave()
        counters = house.server.node.counters
        await trio.sleep(1)
        ending = trio.current_time()
    assert 2 <= trio.current_time() - ending <= 2.1  # a quarter of the server's own
    assert counters.events_dropped["disconnect", "shutdown"] == 1


async def test_a_reload_changes_who_is_told() -> None:
    old, told_old = told()
    new, told_new = told()
    async with open_house(secured(OPEN), hooks=old) as house:
        clients = [await house.connected(token=token("42")) for _ in range(3)]
        for client in clients:
            await client.ask(subscribe={"channel": "news"})
        await clients[0].leave()
        await trio.sleep(1)
        counters = house.server.node.counters
        house.server.reload(make_rules(configured(secured(OPEN)), counters, house.server.stage, WallClock(), new))
        await clients[1].leave()
        await trio.sleep(1)
        house.server.reload(make_rules(configured(secured(OPEN)), counters, house.server.stage, WallClock()))
        await clients[2].leave()
        await trio.sleep(1)
    assert len(told_old) == len(told_new) == 2
