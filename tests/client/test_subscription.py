"""Subscriptions against a scripted server: events, breaks, recovery, ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from broker.client import (
    ClientInfo,
    Disconnected,
    Join,
    Lagged,
    Leave,
    Publication,
    StreamPosition,
    Subscribed,
    Subscription,
    Unsubscribed,
)
from tests.client.scripted import SOON, Peer, ScriptedServer

STREAM = {"recoverable": True, "positioned": True, "epoch": "e"}


def recovering(offset: int, **more: Any) -> dict[str, Any]:
    return STREAM | {"offset": offset, "was_recovering": True} | more


async def take(subscription: Subscription, count: int) -> list[bytes]:
    """The data of the next publications."""
    return [(await anext(subscription)).data for _ in range(count)]


async def test_publications_are_iterated(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        request = await peer.answer("subscribe")
        assert request == {"id": 2, "channel": "news"}
        await peer.push("news", pub={"data": {"n": 1}, "tags": {"a": "b"}})
        await peer.push("other", pub={"data": 0})
        await peer.push("news", pub={"data": "two", "info": {"user": "u", "client": "c"}})
        await peer.push("news", unsubscribe={"code": 2000, "reason": "server unsubscribe"})
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        assert await anext(news) == Publication(b'{"n": 1}', tags={"a": "b"})
        assert await anext(news) == Publication(b'"two"', ClientInfo("u", "c"))
        with pytest.raises(Unsubscribed) as caught:
            await anext(news)
        assert (caught.value.code, caught.value.reason) == (2000, "server unsubscribe")
        with pytest.raises(Unsubscribed):
            await news.next_event()


async def test_what_is_asked_for(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        assert await peer.answer("subscribe") == {
            "id": 2,
            "channel": "news",
            "token": "t",
            "data": {"x": 1},
            "positioned": True,
            "recoverable": True,
            "join_leave": True,
            "recover": True,
            "offset": 7,
            "epoch": "e",
        }
        await peer.gone()

    async with (
        server.connect() as client,
        client.subscribe(
            "news",
            token="t",
            data={"x": 1},
            positioned=True,
            recoverable=True,
            join_leave=True,
            since=StreamPosition(7, "e"),
        ),
    ):
        pass


async def test_joins_and_leaves(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe", {"data": {"from": "hook"}})
        await peer.push("news", join={"info": {"user": "u", "client": "c"}})
        await peer.push("news", leave={"info": {"user": "u", "client": "c"}})
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        assert await news.next_event() == Subscribed(data=b'{"from": "hook"}')
        assert await news.next_event() == Join(ClientInfo("u", "c"))
        assert await news.next_event() == Leave(ClientInfo("u", "c"))
        assert news.position is None


async def test_a_publication_right_behind_the_reply_is_not_missed(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        request = await peer.expect("subscribe")
        await peer.say(
            {"id": request["id"], "subscribe": STREAM | {"offset": 1}},
            {"push": {"channel": "news", "pub": {"data": 2, "offset": 2}}},
        )
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        assert await take(news, 1) == [b"2"]
        assert news.position == StreamPosition(2, "e")


async def test_a_refusal(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe", error={"code": 103, "message": "permission denied"})
        await peer.answer("subscribe")
        await peer.gone()

    async with server.connect() as client:
        with pytest.raises(Unsubscribed, match="103: permission denied"):
            async with client.subscribe("news"):
                pytest.fail("not subscribed")
        async with client.subscribe("news"):  # the name is free again
            pass


async def test_one_subscription_per_channel(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        with pytest.raises(ValueError, match="subscribed already"):
            async with client.subscribe("news"):
                pytest.fail("subscribed twice")
        assert isinstance(await news.next_event(), Subscribed)


async def test_leaving_unsubscribes(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        left = await peer.expect("unsubscribe")
        assert left["channel"] == "news"
        again = await peer.expect("subscribe")
        await peer.push("news", pub={"data": "stale"})
        await peer.say({"id": left["id"], "unsubscribe": {}}, {"id": again["id"], "subscribe": {}})
        await peer.push("news", pub={"data": "fresh"})
        await peer.gone()

    async with server.connect() as client:
        async with client.subscribe("news") as old:
            pass
        with pytest.raises(Unsubscribed, match="unsubscribe called"):
            await anext(old)
        async with client.subscribe("news") as news:
            assert await take(news, 1) == [b'"fresh"']


async def test_leaving_under_cancellation_unsubscribes_too(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        await peer.expect("unsubscribe")
        assert await peer.gone() == 1000

    with trio.move_on_after(1):
        async with server.connect() as client, client.subscribe("news") as news:
            async for _ in news:
                pytest.fail("nothing is published")
    assert trio.current_time() == 1


async def test_what_was_missed_is_recovered_first(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe", STREAM | {"offset": 5})
        await peer.push("news", pub={"data": 6, "offset": 6})
        await peer.close(3012, "no pong")

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        result = recovering(6, recovered=True, publications=[{"data": 7, "offset": 7}, {"data": 8, "offset": 8}])
        request = await peer.answer("subscribe", result)
        assert (request["recover"], request["offset"], request["epoch"]) == (True, 6, "e")
        await peer.push("news", pub={"data": 9, "offset": 9})
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        first = [await news.next_event() for _ in range(2)]
        second = [await news.next_event() for _ in range(4)]
        assert first == [Subscribed(position=StreamPosition(5, "e")), Publication(b"6", offset=6)]
        assert second[0] == Subscribed(True, True, StreamPosition(6, "e"))
        assert [event.offset for event in second[1:] if isinstance(event, Publication)] == [7, 8, 9]
        assert news.position == StreamPosition(9, "e")


async def test_a_gap_is_told(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe", STREAM | {"offset": 5})
        await peer.close(3001)

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe", recovering(900))
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        await news.next_event()
        assert await news.next_event() == Subscribed(True, False, StreamPosition(900, "e"))
        assert news.position == StreamPosition(900, "e")


async def test_the_epoch_of_an_empty_channel_comes_with_its_first_publication(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe", STREAM | {"epoch": ""})
        await peer.push("news", pub={"data": 1, "offset": 1, "epoch": "fresh"})
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        await anext(news)
        assert news.position == StreamPosition(1, "fresh")


async def test_insufficient_state_is_answered_by_subscribing_again(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe", STREAM | {"offset": 5})
        await peer.push("news", unsubscribe={"code": 2500, "reason": "insufficient state"})
        request = await peer.answer("subscribe", recovering(5, recovered=True))
        assert (request["recover"], request["offset"]) == (True, 5)
        await peer.push("news", pub={"data": 6, "offset": 6})
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        assert await take(news, 1) == [b"6"]


async def test_invalidated_state_is_forgotten(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def get_token(channel: str) -> str:
        return f"{channel} {next(numbers)}"

    numbers = iter(range(9))

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe", STREAM | {"offset": 5})
        await peer.push("news", unsubscribe={"code": 2502, "reason": "state invalidated"})
        request = await peer.answer("subscribe", recovering(5))
        assert request["token"] == "news 1"
        assert (request["recover"], request["epoch"]) == (True, "_")
        assert "offset" not in request
        await peer.gone()

    async with server.connect() as client, client.subscribe("news", get_token=get_token) as news:
        assert [type(await news.next_event()) for _ in range(2)] == [Subscribed, Subscribed]
        assert news.position == StreamPosition(5, "e")


async def test_invalidated_state_of_the_whole_connection(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def get_token() -> str:
        return str(next(numbers))

    numbers = iter(range(9))

    @server.script
    async def _(peer: Peer) -> None:
        assert (await peer.accept())["token"] == "0"
        await peer.answer("subscribe", STREAM | {"offset": 5})
        await peer.close(3014, "state invalidated")

    @server.script
    async def _(peer: Peer) -> None:
        assert (await peer.accept())["token"] == "1"
        assert (await peer.answer("subscribe", recovering(5)))["epoch"] == "_"
        await peer.gone()

    async with server.connect(get_token=get_token) as client, client.subscribe("news") as news:
        assert [type(await news.next_event()) for _ in range(2)] == [Subscribed, Subscribed]


async def test_tokens_are_fetched_and_renewed(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def get_token(channel: str) -> str:
        return f"{channel} at {trio.current_time():.0f}"

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept(ping=0)
        request = await peer.answer("subscribe", error={"code": 109, "message": "token expired"})
        assert request["token"] == "news at 0"
        request = await peer.answer("subscribe", {"expires": True, "ttl": 10})
        assert request["token"] == "news at 1"
        request = await peer.answer("sub_refresh", {"expires": True, "ttl": 20})
        assert (request["channel"], request["token"]) == ("news", "news at 11")
        await peer.answer("sub_refresh", error={"code": 103, "message": "permission denied"})
        await peer.expect("unsubscribe")
        await peer.gone()

    async with server.connect() as client:
        async with client.subscribe("news", get_token=get_token, backoff=SOON) as news:
            await news.next_event()
            with pytest.raises(Unsubscribed, match="103"):
                await news.next_event()
        assert 31 <= trio.current_time() <= 33


async def test_a_temporary_error_after_the_first_time_is_retried(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    busy = {"code": 100, "message": "internal server error", "temporary": True}

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        await peer.push("news", unsubscribe={"code": 2500, "reason": "insufficient state"})
        await peer.answer("subscribe", error=busy)
        await peer.answer("subscribe", error=busy)
        await peer.answer("subscribe")
        await peer.push("news", pub={"data": 1})
        await peer.gone()

    async with server.connect() as client, client.subscribe("news", backoff=SOON) as news:
        assert await take(news, 1) == [b"1"]
        assert 2 <= trio.current_time() <= 4


async def test_a_break_before_the_first_reply(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.expect("subscribe")
        await peer.close(3001)

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        await peer.gone()

    async with server.connect() as client, client.subscribe("news") as news:
        assert isinstance(await news.next_event(), Subscribed)


async def test_a_subscribe_that_is_not_answered_costs_the_connection(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.expect("subscribe")
        await peer.gone()
        assert trio.current_time() == 5

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        await peer.gone()

    async with server.connect() as client, client.subscribe("news"):
        assert 6 <= trio.current_time() <= 7


async def test_who_does_not_take_events_is_told_so(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        for number in range(4):
            await peer.push("news", pub={"data": number})
        assert (await peer.expect("unsubscribe"))["channel"] == "news"
        await peer.answer("publish")
        await peer.gone()

    async with server.connect() as client, client.subscribe("news", buffer=3) as news:
        await wait_all_tasks_blocked()
        await client.publish("elsewhere", 1)  # nobody else feels it
        assert isinstance(await news.next_event(), Subscribed)
        assert await take(news, 2) == [b"0", b"1"]
        with pytest.raises(Lagged):
            await anext(news)


async def test_the_end_of_the_client_is_the_end_of_the_subscription(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        await peer.push("news", pub={"data": 1})
        await peer.close(3503, "force disconnect")

    async with server.connect() as client, client.subscribe("news") as news:
        await client.wait_disconnected()
        assert await take(news, 1) == [b"1"]  # what came in before is still there
        with pytest.raises(Disconnected, match="3503"):
            await anext(news)
