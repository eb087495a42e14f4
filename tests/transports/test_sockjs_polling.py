"""SockJS sessions over requests that end with each frame: xhr and xhr_send."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from broker.auth import make_token
from tests.conftest import ErrorLog
from tests.support.peers import NO_PINGS
from tests.support.sockjs import ALLOWED, CONNECT, PREFIX, Polling, open_sockjs, quiet

pytestmark = pytest.mark.virtual_time

FOREIGN = "https://elsewhere.example"


async def test_a_session() -> None:
    async with open_sockjs() as house:
        client = Polling(house)
        assert await client.poll() == "o"
        sent = await client.send(json.dumps(CONNECT))
        assert (sent.status, sent.body) == (204, b"")
        assert sent.headers["content-type"] == "text/plain; charset=UTF-8"
        (reply,) = await client.units()
        assert reply["connect"]["ping"] == 25
        await client.command(id=2, subscribe={"channel": "news"})
        assert (await client.units())[0]["id"] == 2
        await house.api("publish", channel="news", data={"text": "a\u2028\U0001f680"})
        (push,) = await client.units()
        assert push["push"]["pub"]["data"] == {"text": "a\u2028\U0001f680"}
        clients = list(house.server.node.registry.clients.values())
        assert [client.peer.transport for client in clients] == ["sockjs"]


async def test_what_comes_while_nobody_polls_comes_in_one_frame() -> None:
    async with open_sockjs() as house:
        client = Polling(house)
        await client.connect()
        await client.command(id=2, subscribe={"channel": "news"})
        for number in range(3):
            await house.api("publish", channel="news", data=number)
        subscribed, *pushes = await client.units()
        assert subscribed["id"] == 2
        assert [push["push"]["pub"]["data"] for push in pushes] == [0, 1, 2]


async def test_a_poll_waits_and_the_server_part_of_the_path_does_not_matter() -> None:
    async with open_sockjs() as house, trio.open_nursery() as nursery:
        client = Polling(house, "s 1", "abc_-.".replace(".", ""))
        client.url = client.url.replace(" ", "%20")
        await client.connect()
        other = Polling(house, "s%201", "999")
        got: list[Any] = []

        async def poll() -> None:
            got.extend(await other.units())

        nursery.start_soon(poll)
        await quiet()
        assert got == []
        await client.command(id=2, publish={"channel": "news", "data": 1})
        await quiet()
        assert [unit["id"] for unit in got] == [2]


async def test_polls_share_a_connection() -> None:
    async with open_sockjs() as house:
        connection = await house.open_stream()
        request = f"POST {PREFIX}/0/abc/xhr HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode()
        await connection.send_all(request)
        assert b"\r\n\r\no\n" in await connection.receive_some()
        await connection.send_all(request)
        await quiet()
        await Polling(house, "abc").command(**CONNECT)
        assert b'\r\n\r\na["' in await connection.receive_some()
        await connection.aclose()


async def test_a_session_ends_after_five_seconds_without_a_poll() -> None:
    async with open_sockjs() as house:
        client = Polling(house)
        await client.connect()
        await trio.sleep(4.9)
        assert len(house.server.node.registry.clients) == 1
        await trio.sleep(0.2)
        assert len(house.server.node.registry.clients) == 0
        assert (await client.send("{}")).status == 404
        assert await client.poll() == "o", "a new one under the same id"


async def test_a_second_poll_is_not_wanted() -> None:
    async with open_sockjs() as house, trio.open_nursery() as nursery:
        client = Polling(house)
        await client.connect()
        nursery.start_soon(client.poll)
        await quiet()
        assert await client.poll() == 'c[2010,"Another connection still open"]'
        await client.command(id=2, publish={"channel": "news", "data": 1})  # ends the first one


async def test_a_poll_that_goes_away_ends_the_session() -> None:
    async with open_sockjs() as house:
        client = Polling(house)
        await client.connect()
        connection = await house.open_stream()
        await connection.send_all(f"POST {client.url}/xhr HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
        await quiet()
        await connection.aclose()
        await quiet()
        assert len(house.server.node.registry.clients) == 0
        assert await client.poll() == "o"


async def test_the_end_is_told_for_five_seconds_to_whoever_asks() -> None:
    async with open_sockjs() as house:
        client = Polling(house)
        assert await client.poll() == "o"
        await client.command(id=1, connect={"token": "none"})
        for _ in range(2):
            assert await client.poll() == 'c[3500,"invalid token"]'
        assert (await client.send(json.dumps(CONNECT))).status == 404
        await trio.sleep(5.1)
        assert await client.poll() == "o"


async def test_replies_of_the_same_frame_come_before_the_end() -> None:
    async with open_sockjs() as house:
        client = Polling(house)
        assert await client.poll() == "o"
        await client.send(json.dumps(CONNECT), "no command")
        assert "connect" in (await client.units())[0]
        assert await client.poll() == 'c[3501,"bad request"]'


async def test_a_poll_that_waits_is_told_of_the_shutdown() -> None:
    async with open_sockjs() as house, trio.open_nursery() as nursery:
        client = Polling(house)
        await client.connect()
        got: list[str] = []

        async def poll() -> None:
            got.append(await client.poll())

        nursery.start_soon(poll)
        await quiet()
        await house.server.doors.drain()
        await quiet()
        assert got == ['c[3001,"shutdown"]']


async def test_a_client_that_answers_no_ping_is_told() -> None:
    async with open_sockjs(sockjs={"heartbeat_delay": "-1s"}) as house:
        client = Polling(house)
        await client.connect()
        assert await client.poll() == 'a["{}"]'
        await client.command()
        assert await client.poll() == 'a["{}"]'
        assert await client.poll() == 'c[3012,"no pong"]'


async def test_heartbeats() -> None:
    async with open_sockjs(client=NO_PINGS) as house:
        client = Polling(house)
        await client.connect()
        began = trio.current_time()
        assert await client.poll() == "h"
        assert trio.current_time() == pytest.approx(began + 25, abs=0.1)


async def test_a_client_that_does_not_connect_is_stale() -> None:
    async with open_sockjs(client={"stale_close_delay": "3s"}) as house:
        client = Polling(house)
        assert await client.poll() == "o"
        assert await client.poll() == 'c[3502,"stale"]'


async def test_a_connect_that_fails_is_answered_and_the_session_left_alone() -> None:
    async with open_sockjs(client={"insecure": False, "token": {"hmac_secret_key": "k"}}) as house:
        client = Polling(house)
        assert await client.poll() == "o"
        expired = make_token({"sub": "a", "exp": 1}, "k")
        await client.command(id=1, connect={"token": expired})
        assert (await client.units())[0]["error"]["code"] == 109
        assert (await client.send(json.dumps(CONNECT))).status == 204
        assert await client.poll() == 'c[3000,"connection closed"]'


@pytest.mark.parametrize(
    ("body", "text"),
    [(b'["x', b"Broken JSON encoding."), (b"[1]", b"Broken JSON encoding."), (b"", b"Payload expected.")],
)
async def test_what_cannot_be_read_is_refused_and_the_session_lives_on(body: bytes, text: bytes) -> None:
    async with open_sockjs() as house:
        client = Polling(house)
        await client.connect()
        answer = await client.send_raw(body)
        assert (answer.status, answer.body) == (400, text)
        await client.command(id=2, publish={"channel": "news", "data": 1})
        assert [unit["id"] for unit in await client.units()] == [2]


async def test_frames_that_say_nothing_are_fine_whatever_their_type() -> None:
    async with open_sockjs() as house:
        client = Polling(house)
        await client.connect()
        for body in (b"[]", b'[""]'):
            assert (await client.send_raw(body, {"Content-Type": "application/xml; charset=utf-8"})).status == 204
        await client.command(id=2, publish={"channel": "news", "data": 1})
        assert [unit["id"] for unit in await client.units()] == [2]


async def test_sending_to_nobody() -> None:
    async with open_sockjs() as house:
        assert (await Polling(house, "nobody").send("{}")).status == 404


async def test_a_body_that_is_too_long() -> None:
    async with open_sockjs(sockjs={"max_request_body_size": 100}) as house:
        client = Polling(house)
        await client.connect()
        assert (await client.send("x" * 100)).status == 413


async def test_pages_that_are_not_allowed_get_no_session() -> None:
    async with open_sockjs() as house:
        for kind in ("xhr", "xhr_send", "xhr_streaming"):
            answer = await house.http("POST", f"{PREFIX}/0/abc/{kind}", b'["{}"]', {"Origin": FOREIGN})
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
        client = Polling(house)
        answer = await house.http("POST", f"{client.url}/xhr", headers={"Origin": ALLOWED})
        assert (answer.status, answer.body) == (200, b"o\n")
        assert answer.headers["access-control-allow-origin"] == ALLOWED
        assert answer.headers["content-type"] == "application/javascript; charset=UTF-8"
        assert answer.headers["cache-control"].startswith("no-store")


async def test_limits_on_connections_count() -> None:
    async with open_sockjs(client={"connection_limit": 1}) as house:
        await Polling(house, "one").connect()
        answer = await house.http("POST", f"{PREFIX}/0/two/xhr")
        assert answer.status == 503
        assert (await Polling(house, "one").send("{}")).status == 204


async def test_sessions_that_nobody_polls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.transports.sockjs.endpoint._MOST_WAITING", 3)
    async with open_sockjs() as house:
        for number in range(3):
            assert await Polling(house, f"s{number}").poll() == "o"
        assert (await house.http("POST", f"{PREFIX}/0/more/xhr")).status == 503
        await trio.sleep(5.1)
        assert await Polling(house, "more").poll() == "o"


async def test_who_does_not_poll_may_let_only_so_much_wait() -> None:
    async with open_sockjs(client={"queue_max_size": 2000}) as house:
        client = Polling(house)
        await client.connect()
        await client.command(id=2, subscribe={"channel": "news"})
        await client.units()
        for _ in range(3):
            await house.api("publish", channel="news", data="x" * 900)
        assert len(house.server.node.registry.clients) == 0
        assert await client.poll() == 'c[3008,"slow"]'


async def test_a_bug_ends_one_session(monkeypatch: pytest.MonkeyPatch, error_log: ErrorLog) -> None:
    error_log.expect("a connection crashed")

    async def broken(*args: object) -> None:
        raise ZeroDivisionError

    async with open_sockjs() as house:
        client, other = Polling(house, "one"), Polling(house, "two")
        await client.connect()
        await other.connect()
        with monkeypatch.context() as patched:
            patched.setattr("broker.sessions.publish.publish", broken)
            await client.command(id=2, publish={"channel": "news", "data": 1})
        assert await client.poll() == 'c[3004,"internal server error"]'
        assert house.server.node.counters.connection_crashes == 1
        await other.command(id=2, publish={"channel": "news", "data": 1})
        assert [unit["id"] for unit in await other.units()] == [2]


async def test_a_session_costs_no_connection_once_it_is_over() -> None:
    async with open_sockjs() as house:
        for number in range(20):
            await Polling(house, f"s{number}").connect()
        await quiet()
        assert len(house.server.doors.connections) == 20
        await trio.sleep(5.1)
        assert len(house.server.doors.connections) == 0
