"""SockJS sessions over responses that last: xhr_streaming and eventsource."""

from __future__ import annotations

import pytest
import trio

from tests.support.peers import NO_PINGS
from tests.support.sockjs import ALLOWED, CONNECT, PREFIX, Polling, open_sockjs, quiet, stream

pytestmark = pytest.mark.virtual_time


async def test_streaming() -> None:
    async with open_sockjs() as house:
        client = Polling(house, "abc")
        opened = await stream(house, "abc", headers=f"Origin: {ALLOWED}\r\n")
        assert opened.head.startswith("HTTP/1.1 200 ")
        for line in (
            "Content-Type: application/javascript; charset=UTF-8",
            "Cache-Control: no-store, no-cache, no-transform, must-revalidate, max-age=0",
            f"Access-Control-Allow-Origin: {ALLOWED}",
            "Access-Control-Allow-Credentials: true",
            "X-Accel-Buffering: no",
        ):
            assert line in opened.head.split("\r\n")
        assert await opened.until(b"\n") == b"h" * 2048 + b"\n"
        assert await opened.until(b"\n") == b"o\n"
        await client.command(**CONNECT)
        assert (await opened.until(b"\n")).startswith(b'a["{\\"id\\":1,\\"connect\\"')
        await client.command(id=2, subscribe={"channel": "news"})
        await opened.until(b"\n")
        await house.api("publish", channel="news", data="%41")
        assert b"%41" in await opened.until(b"\n")
        await opened.leave()
        await quiet()
        assert house.server.node.registry.clients == {}, "who goes is noticed at once"


async def test_event_source() -> None:
    async with open_sockjs() as house:
        client = Polling(house, "abc")
        opened = await stream(house, "abc", "eventsource")
        assert "Content-Type: text/event-stream; charset=UTF-8" in opened.head
        assert await opened.until(b"\r\n") == b"\r\n"
        assert await opened.until(b"\r\n\r\n") == b"data: o\r\n\r\n"
        await client.command(**CONNECT)
        assert (await opened.until(b"\r\n\r\n")).startswith(b'data: a["{\\"id\\":1')
        await client.command(id=2, subscribe={"channel": "news"})
        await opened.until(b"\r\n\r\n")
        await house.api("publish", channel="news", data="50%\n")
        event = await opened.until(b"\r\n\r\n")
        assert b"50%25" in event
        assert b"\n" not in event[:-4]
        await opened.leave()


@pytest.mark.parametrize("kind", ["xhr_streaming", "eventsource"])
async def test_a_stream_ends_after_128_kib_and_the_session_goes_on(kind: str) -> None:
    async with open_sockjs() as house:
        client = Polling(house, "abc")
        opened = await stream(house, "abc", kind)
        await client.command(**CONNECT)
        await client.command(id=2, subscribe={"channel": "news"})
        for _ in range(3):
            await house.api("publish", channel="news", data="x" * 44_000)
        await house.api("publish", channel="news", data="last")
        body = await opened.rest()
        assert 128 * 1024 <= len(body) < 140_000
        assert b"last" not in body
        (push,) = await client.units()
        assert push["push"]["pub"]["data"] == "last"


async def test_streams_and_polls_of_one_session() -> None:
    async with open_sockjs() as house:
        client = Polling(house, "abc")
        opened = await stream(house, "abc")
        await opened.until(b"\no\n")
        assert await client.poll() == 'c[2010,"Another connection still open"]'
        second = await stream(house, "abc")
        await second.until(b"h\n")
        assert await second.rest() == b'c[2010,"Another connection still open"]\n'
        await client.command(**CONNECT)
        await opened.until(b"]\n")
        await opened.leave()
        await quiet()
        assert await client.poll() == "o", "a stream that goes away takes its session with it"


async def test_the_end_is_told_and_ends_the_stream() -> None:
    async with open_sockjs() as house:
        client = Polling(house, "abc")
        opened = await stream(house, "abc")
        await opened.until(b"\no\n")
        await client.command(id=1, connect={"token": "none"})
        assert await opened.rest() == b'c[3500,"invalid token"]\n'
        again = await stream(house, "abc")
        await again.until(b"h\n")
        assert await again.rest() == b'c[3500,"invalid token"]\n'


async def test_a_stream_is_told_of_the_shutdown() -> None:
    async with open_sockjs() as house:
        opened = await stream(house, "abc")
        await opened.until(b"\no\n")
        await Polling(house, "abc").command(**CONNECT)
        await opened.until(b"]\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.server.doors.drain)
            assert await opened.rest() == b'c[3001,"shutdown"]\n'
            await opened.leave()


async def test_heartbeats_of_a_stream() -> None:
    async with open_sockjs(client=NO_PINGS, sockjs={"heartbeat_delay": "10s"}) as house:
        opened = await stream(house, "abc")
        await opened.until(b"\no\n")
        await Polling(house, "abc").command(**CONNECT)
        await opened.until(b"]\n")
        for number in (1, 2, 3):
            assert await opened.until(b"\n") == b"h\n"
            assert trio.current_time() == pytest.approx(10 * number, abs=0.2)
        await opened.leave()


async def test_http_1_0_gets_no_chunks() -> None:
    async with open_sockjs() as house:
        connection = await house.open_stream()
        await connection.send_all(
            f"POST {PREFIX}/0/abc/xhr_streaming HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode()
        )
        await Polling(house, "abc").command(id=1, connect={"token": "none"})
        body = b""
        while data := await connection.receive_some():
            body += data
        head, _, body = body.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert b"content-length" not in head.lower()
        assert b"Connection: close" in head
        assert body == b"h" * 2048 + b'\no\nc[3500,"invalid token"]\n'
        await connection.aclose()


async def test_who_does_not_read_is_cut_off() -> None:
    async with open_sockjs({"history_size": 0}, client={"queue_max_size": 20_000}) as house:
        client = Polling(house, "abc")
        ours, theirs = trio.testing.lockstep_stream_pair()
        house.server.doors.take_in_stream(theirs, house.server.sites[0])
        await ours.send_all(f"POST {PREFIX}/0/abc/xhr_streaming HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        await quiet()
        await client.command(**CONNECT)
        await client.command(id=2, subscribe={"channel": "news"})
        assert len(house.server.node.registry.clients) == 1
        await trio.sleep(1.5)
        assert house.server.node.registry.clients == {}
        assert await client.poll() == 'c[3009,"write error"]'
        await ours.aclose()


async def test_a_stranger_gets_no_stream() -> None:
    async with open_sockjs() as house:
        for kind in ("xhr_streaming", "eventsource"):
            opened = await stream(house, "abc", kind, "Origin: https://elsewhere.example\r\n")
            assert opened.head.startswith("HTTP/1.1 403 ")
            await opened.leave()
