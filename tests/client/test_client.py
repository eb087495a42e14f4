"""The client against a scripted server: connecting, commands, breaks, ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from broker.client import (
    ClientInfo,
    ConnectionLost,
    Disconnected,
    History,
    Message,
    PresenceStats,
    Publication,
    ReplyError,
    StreamPosition,
    Subscribed,
    Unsubscribed,
    connect,
)
from tests.client.scripted import Peer, ScriptedServer


async def test_connect_introduces_itself(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        request = await peer.accept()
        assert request["token"] == "t"
        assert request["data"] == {"room": 1}
        assert request["name"] == "test"
        assert await peer.gone() == 1000

    async with server.connect(token="t", data={"room": 1}, name="test") as client:
        assert client.connected
        assert client.client_id == "c1"


async def test_the_codec_is_asked_for_by_subprotocol(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        assert peer.ws.subprotocol is None  # the scripted server chooses none, and that is fine

    async with server.connect():
        pass


async def test_a_refusal_by_error_is_final(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.answer("connect", error={"code": 103, "message": "permission denied"})
        await peer.gone()

    with pytest.raises(Disconnected, match="103: permission denied"):
        async with server.connect():
            pytest.fail("not connected")


async def test_a_refusal_by_close_is_final(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.expect("connect")
        await peer.close(3500, "invalid token")

    with pytest.raises(Disconnected) as caught:
        async with server.connect():
            pytest.fail("not connected")
    assert (caught.value.code, caught.value.reason) == (3500, "invalid token")


async def test_an_unreachable_server_is_told_at_once(server: ScriptedServer, autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        async with server.connect():
            pytest.fail("not connected")
    assert server.dials == 1


async def test_a_server_that_does_not_upgrade_is_given_up(autojump_clock: MockClock) -> None:
    async def dial() -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        peers.append(theirs)
        return ours

    peers: list[trio.abc.Stream] = []
    with pytest.raises(ConnectionLost, match="no answer to the upgrade"):
        async with connect("ws://test/", dial=dial, patience=3):
            pytest.fail("not connected")
    assert trio.current_time() == 3


async def test_a_server_that_answers_http_is_given_up(autojump_clock: MockClock) -> None:
    async def dial() -> trio.abc.Stream:
        ours, theirs = memory_stream_pair()
        await theirs.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        peers.append(theirs)
        return ours

    peers: list[trio.abc.Stream] = []
    with pytest.raises(ConnectionLost, match="refused"):
        async with connect("ws://test/", dial=dial):
            pytest.fail("not connected")


async def test_no_reply_to_connect(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.expect("connect")
        await peer.gone()

    with pytest.raises(ConnectionLost, match="no reply to connect"):
        async with server.connect():
            pytest.fail("not connected")


async def test_commands_give_what_the_server_answers(server: ScriptedServer, autojump_clock: MockClock) -> None:
    info = {"user": "u", "client": "c", "conn_info": {"name": "Ada"}}

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        published = await peer.answer("publish")
        assert published == {"id": 2, "channel": "news", "data": {"x": [1, 2]}}
        assert await peer.answer("presence", {"presence": {"c": info}}) == {"id": 3, "channel": "news"}
        await peer.answer("presence_stats", {"num_clients": 3, "num_users": 2})
        history = await peer.answer(
            "history",
            {"publications": [{"data": 1, "offset": 4, "info": info, "tags": {"a": "b"}}], "offset": 4, "epoch": "e"},
        )
        assert history == {
            "id": 5, "channel": "news", "limit": 10, "since": {"offset": 3, "epoch": "e"}, "reverse": True,
        }  # fmt: skip
        assert await peer.answer("rpc", {"data": {"pong": 1}}) == {"id": 6, "method": "ping", "data": {}}
        assert await peer.answer("refresh", {"expires": True, "ttl": 60}) == {"id": 7, "token": "next"}

    ada = ClientInfo("u", "c", b'{"name": "Ada"}', b"")
    async with server.connect() as client:
        await client.publish("news", {"x": [1, 2]})
        assert await client.presence("news") == {"c": ada}
        assert await client.presence_stats("news") == PresenceStats(3, 2)
        assert await client.history("news", limit=10, since=StreamPosition(3, "e"), reverse=True) == History(
            [Publication(b"1", ada, 4, {"a": "b"})], StreamPosition(4, "e")
        )
        assert await client.rpc("ping", {}) == b'{"pong": 1}'
        assert await client.refresh("next") == 60


async def test_bytes_are_sent_as_they_are(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        message = await peer.ws.get_message()
        assert '"data":{"n": 1.0}' in message
        await peer.say({"id": json.loads(message)["id"], "publish": {}})

    async with server.connect() as client:
        await client.publish("news", b'{"n": 1.0}')


async def test_an_error_reply_is_raised(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("rpc", error={"code": 100, "message": "internal server error", "temporary": True})
        await peer.answer("publish")

    async with server.connect() as client:
        with pytest.raises(ReplyError) as caught:
            await client.rpc("x")
        assert (caught.value.code, caught.value.temporary) == (100, True)
        await client.publish("news", 1)


async def test_a_reply_that_does_not_come_in_time(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        late = await peer.expect("rpc")
        await peer.answer("publish")
        await peer.say({"id": late["id"], "rpc": {}})
        await peer.gone()

    async with server.connect(patience=2) as client:
        with pytest.raises(trio.TooSlowError):
            await client.rpc("x")
        assert trio.current_time() == 2
        await client.publish("news", 1)


async def test_pings_are_answered(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        for _ in range(3):
            await trio.sleep(25)
            await peer.say({})
            assert await peer.command() == {}

    async with server.connect():
        await server.done[0].wait()


async def test_pings_are_not_answered_where_no_pong_is_expected(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept(pong=False)
        await peer.say({})
        await peer.answer("publish")

    async with server.connect() as client:
        await client.publish("news", 1)


async def test_a_server_that_stops_pinging_is_left(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept(ping=5)
        await trio.sleep(5)
        await peer.say({})
        await peer.gone()
        assert trio.current_time() == 5 + 5 + 10

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept(client="c2")
        done.set()
        await peer.answer("publish")

    done = trio.Event()
    async with server.connect() as client:
        await done.wait()
        await client.publish("news", 1)
        assert client.client_id == "c2"


async def test_a_server_that_does_not_ping_is_kept(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept(ping=0)
        await trio.sleep(3600)
        await peer.answer("publish")

    async with server.connect() as client:
        await trio.sleep(3600)
        await client.publish("news", 1)


@pytest.mark.parametrize("code", [1001, 3000, 3001, 3012, 3499, 4000, 4499, 5000])
async def test_it_comes_back_after(code: int, server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.close(code, "come back" if code < 5000 else "")

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept(client="c2")
        await peer.answer("publish")

    async with server.connect() as client:
        await server.done[0].wait()
        await client.publish("news", 1)  # waits for the new connection
        assert client.client_id == "c2"
        assert 1 <= trio.current_time() <= 2


@pytest.mark.parametrize("code", [3500, 3503, 3999, 4500, 4999, 1009])
async def test_it_does_not_come_back_after(code: int, server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        await peer.close(code, "stay away")

    async with server.connect() as client, client.subscribe("news") as news:
        ends = [client.wait_disconnected, client.wait_connected, news.next_event]
        assert isinstance(await news.next_event(), Subscribed)
        ended = await ends[0]()
        assert (ended.code, ended.reason) == (code, "stay away")
        for wait in (*ends[1:], lambda: client.publish("news", 1)):
            with pytest.raises(Disconnected) as caught:
                await wait()
            assert caught.value.code == code
        with pytest.raises(Disconnected):
            async with client.subscribe("other"):
                pytest.fail("not subscribed")
    assert server.dials == 1


async def test_it_keeps_trying(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.close(3001)

    @server.script
    async def _(peer: Peer) -> None:
        await peer.answer("connect", error={"code": 100, "message": "internal server error", "temporary": True})
        await peer.gone()

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()

    async with server.connect() as client:
        await server.done[2].wait()
        await client.wait_connected()
    assert server.dials == 3


async def test_a_command_whose_connection_breaks(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.expect("publish")
        await peer.close(3001, "shutdown")

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()

    async with server.connect() as client:
        with pytest.raises(ConnectionLost, match="3001: shutdown"):
            await client.publish("news", 1)
        await server.done[1].wait()


async def test_frames_that_are_none_of_the_protocol_end_it(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.ws.send_message("<html>")
        await peer.gone()

    async with server.connect() as client:
        assert (await client.wait_disconnected()).code == 2


async def test_a_token_is_fetched_when_there_is_none_and_when_it_has_expired(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    tokens = iter(["first", "second"])

    async def get_token() -> str:
        return next(tokens)

    @server.script
    async def _(peer: Peer) -> None:
        request = await peer.answer("connect", error={"code": 109, "message": "token expired"})
        assert request["token"] == "first"
        await peer.gone()

    @server.script
    async def _(peer: Peer) -> None:
        assert (await peer.accept())["token"] == "second"

    async with server.connect(get_token=get_token):
        await server.done[1].wait()


async def test_an_expired_token_without_another_is_final(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.answer("connect", error={"code": 109, "message": "token expired"})
        await peer.gone()

    with pytest.raises(Disconnected, match="109"):
        async with server.connect(token="old"):
            pytest.fail("not connected")


async def test_the_token_is_renewed_when_it_expires(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def get_token() -> str:
        return f"token at {trio.current_time():.0f}"

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept(expires=True, ttl=20, ping=0)
        request = await peer.answer("refresh", {"expires": True, "ttl": 30})
        assert request["token"] == "token at 20"
        request = await peer.answer("refresh", error={"code": 100, "message": "later", "temporary": True})
        assert request["token"] == "token at 50"
        await peer.answer("refresh", {})
        await peer.gone()

    async with server.connect(token="t", get_token=get_token):
        await trio.sleep(1000)


async def test_what_the_body_raises_comes_out_as_it_is(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.answer("subscribe")
        await peer.gone()

    with pytest.raises(LookupError, match="mine"):
        async with server.connect() as client, client.subscribe("news"):
            raise LookupError("mine")


async def test_a_group_that_the_body_raises_stays_a_group(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        await peer.gone()

    with pytest.RaisesGroup(LookupError):
        async with server.connect():
            raise ExceptionGroup("mine", [LookupError()])


async def test_a_crash_of_get_token_is_not_swallowed(server: ScriptedServer, autojump_clock: MockClock) -> None:
    async def get_token() -> str:
        raise LookupError("no token today")

    @server.script
    async def _(peer: Peer) -> None:
        await peer.gone()

    with pytest.raises(LookupError, match="no token today"):
        async with server.connect(get_token=get_token):
            pytest.fail("not connected")


async def test_a_cancelled_command_leaves_no_half_frame(server: ScriptedServer, autojump_clock: MockClock) -> None:
    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept()
        with trio.fail_after(5):
            first = await peer.expect("publish")
            assert first["channel"] == "cancelled"
            await peer.answer("publish")

    async with server.connect() as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.publish("cancelled", "x" * 100_000)
        assert scope.cancelled_caught
        await client.publish("news", 1)


async def test_server_side_subscriptions_are_told_and_recovered(
    server: ScriptedServer, autojump_clock: MockClock
) -> None:
    heard: list[tuple[str, Any]] = []

    @server.script
    async def _(peer: Peer) -> None:
        await peer.accept(
            subs={
                "#42": {"recoverable": True, "positioned": True, "offset": 3, "epoch": "e"},
                "plain": {},
            }
        )
        await peer.push("#42", pub={"data": 1, "offset": 4})
        await peer.push("#42", join={"info": {"user": "42", "client": "x"}})
        await peer.push("nobody asked", pub={"data": 2})
        await peer.say({"push": {"message": {"data": {"hello": 1}}}})
        await peer.push("late", subscribe={"data": {"why": 1}})
        await peer.push("late", unsubscribe={"code": 2000, "reason": "server unsubscribe"})
        await peer.close(3001)

    @server.script
    async def _(peer: Peer) -> None:
        request = await peer.accept(
            subs={
                "#42": {
                    "recoverable": True,
                    "positioned": True,
                    "offset": 4,
                    "epoch": "e",
                    "was_recovering": True,
                    "recovered": True,
                    "publications": [{"data": 5, "offset": 5}],
                }
            }
        )
        assert request["subs"] == {"#42": {"recover": True, "offset": 4, "epoch": "e"}}

    async with server.connect(on_server_event=lambda channel, event: heard.append((channel, event))):
        await server.done[1].wait()
        await trio.testing.wait_all_tasks_blocked()
    assert [(channel, type(event).__name__) for channel, event in heard] == [
        ("#42", "Subscribed"),
        ("plain", "Subscribed"),
        ("#42", "Publication"),
        ("#42", "Join"),
        ("", "Message"),
        ("late", "Subscribed"),
        ("late", "Unsubscribed"),
        ("plain", "Unsubscribed"),
        ("#42", "Subscribed"),
        ("#42", "Publication"),
    ]
    assert heard[0][1] == Subscribed(position=StreamPosition(3, "e"))
    assert heard[4][1] == Message(b'{"hello": 1}')
    assert isinstance(heard[6][1], Unsubscribed)
    assert heard[9][1].offset == 5
