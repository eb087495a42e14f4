"""Hypercorn behind its guard: one request for an application, and nothing that it does or suffers reaches others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from broker.transports import ASGIApp, host
from tests.conftest import ErrorLog
from tests.support.clock import seconds
from tests.support.peers import INSECURE, House, open_house

pytestmark = pytest.mark.virtual_time

GET = b"GET /page?q=1 HTTP/1.1\r\nHost: test\r\n\r\n"


@asynccontextmanager
async def open_site(app: ASGIApp) -> AsyncIterator[House]:
    async with open_house({**INSECURE, "health": {"enabled": True}}) as house:
        house.server.sites[0].app = host(app)
        yield house


async def all_of(stream: Any) -> bytes:
    came = b""
    while data := await stream.receive_some():
        came += data
    return came


async def exchange(house: House, request: bytes) -> tuple[int, bytes]:
    """One request, until the server ends the connection: status and body."""
    stream = await house.open_stream()
    await stream.send_all(request)
    with trio.fail_after(70):
        head, _, body = (await all_of(stream)).partition(b"\r\n\r\n")
    await stream.aclose()
    return int(head.split(b" ")[1]) if head else 0, body


async def others_are_served(house: House) -> None:
    assert await exchange(house, b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n") == (200, b"{}")


async def answer(send: Any, status: int = 200, *parts: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def body_of(receive: Any) -> bytes:
    body = b""
    while (event := await receive())["type"] == "http.request":
        body += event["body"]
        if not event["more_body"]:
            break
    return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, 200, await body_of(receive))


# ---- a request -------------------------------------------------------------------------------------------------------


async def test_an_application_sees_the_request_as_it_was_parsed() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await answer(send, 201, b"made")

    async with open_site(app) as house:
        request = (
            b"PUT /a%20b?x=%31 HTTP/1.1\r\nHost: test\r\nX-Two:  1\r\nx-two: 2\r\n"
            b"X_Forwarded_For: 1.2.3.4\r\nContent-Length: 0\r\n\r\n"
        )
        status, body = await exchange(house, request)
        assert status == 201
        assert b"made" in body
        (scope,) = seen
        assert (scope["type"], scope["method"], scope["scheme"], scope["http_version"]) == (
            "http",
            "PUT",
            "http",
            "1.1",
        )
        assert (scope["path"], scope["query_string"]) == ("/a b", b"x=%31")
        assert [*scope["headers"]] == [(b"host", b"test"), (b"x-two", b"1, 2")]


@pytest.mark.parametrize("cut", [0, 1, 40, 60, 90])
async def test_a_body_reaches_the_application_whole(cut: int) -> None:
    async with open_site(echo) as house:
        request = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 30\r\n\r\n" + b"0123456789" * 3
        stream = await house.open_stream()
        await stream.send_all(request[:cut])
        await trio.testing.wait_all_tasks_blocked()
        await stream.send_all(request[cut:])
        assert b"0123456789" * 3 in await all_of(stream)
        await stream.aclose()


async def test_a_chunked_body_too() -> None:
    async with open_site(echo) as house:
        head = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        _, body = await exchange(house, head + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")
        assert b"abcdefg" in body


async def test_there_is_no_second_request() -> None:
    """It would escape the strict parser."""
    paths: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await answer(send)

    async with open_site(app) as house:
        stream = await house.open_stream()
        await stream.send_all(b"GET /first HTTP/1.1\r\nHost: t\r\n\r\nGET /second HTTP/1.1\r\nHost: t\r\n\r\n")
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n")
        came = await all_of(stream)
        assert came.count(b"HTTP/1.1 ") == 1
        assert paths == ["/first"]
        await stream.aclose()


@pytest.mark.parametrize("kind", ["h2c", "websocket", "other"])
async def test_nothing_is_upgraded(kind: str) -> None:
    async with open_site(echo) as house:
        request = (
            f"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: {kind}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            f"HTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await exchange(house, request.encode() + b"\x81\x80"))[0] == 200


async def test_a_body_has_a_limit() -> None:
    async with open_site(echo) as house:
        head = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"
        status, body = await exchange(house, head % (1 << 20) + bytes(1 << 20))
        assert status == 200
        assert len(body) > 1 << 20
        assert (await exchange(house, head % (1 + (1 << 20))))[0] == 413


async def test_a_client_that_waits_to_be_told_to_go_on_is_told_once() -> None:
    async with open_site(echo) as house:
        stream = await house.open_stream()
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"abc")
        assert (await all_of(stream)).startswith(b"HTTP/1.1 200")
        await stream.aclose()


# ---- applications that misbehave -------------------------------------------------------------------------------------


async def test_an_application_that_raises_is_answered_for_and_logged(error_log: ErrorLog) -> None:
    error_log.expect("an application failed(.|\n)*a bug")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("a bug")

    async with open_site(app) as house:
        assert (await exchange(house, GET))[0] == 500
        await others_are_served(house)


async def test_an_application_that_raises_in_the_middle_ends_its_connection(error_log: ErrorLog) -> None:
    error_log.expect("an application failed(.|\n)*a bug")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"12345", "more_body": True})
        raise LookupError("a bug")

    async with open_site(app) as house:
        assert await exchange(house, GET) == (200, b"12345")
        await others_are_served(house)


async def test_an_application_that_breaks_the_rules_ends_its_connection(error_log: ErrorLog) -> None:
    error_log.expect("an application failed|a connection crashed")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"bad name", b"\r\n")]})
        await send({"type": "http.response.body", "body": b""})

    async with open_site(app) as house:
        await exchange(house, GET)
        await others_are_served(house)


async def test_an_application_that_never_answers_has_a_minute() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.sleep_forever()

    async with open_site(app) as house:
        with seconds(60):
            assert await exchange(house, GET) == (0, b"")
        await others_are_served(house)


async def test_an_application_without_an_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    async with open_site(app) as house:
        assert (await exchange(house, GET))[0] in (0, 500)
        await others_are_served(house)


# ---- clients that misbehave ------------------------------------------------------------------------------------------


async def stream_for_ever(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 10_000, "more_body": True})
        await trio.sleep(0.1)


async def test_a_client_that_stops_reading_is_cut_off_after_ten_seconds() -> None:
    async with open_site(stream_for_ever) as house:
        stream = await house.open_stream(lockstep=True)
        await stream.send_all(GET)
        await stream.receive_some()
        with seconds(10, within=1):
            while house.server.doors.connections:
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.1)
        await others_are_served(house)


async def test_a_client_that_reads_slowly_gets_what_is_large() -> None:
    """Each part has ten seconds, not the whole."""
    large = bytes(1_000_000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, 200, large)

    async with open_site(app) as house:
        stream = await house.open_stream(lockstep=True)
        await stream.send_all(GET)
        came = 0
        while data := await stream.receive_some(40_000):
            came += len(data)
            await trio.sleep(1)
        assert came > 1_000_000


async def test_a_client_that_goes_ends_its_application() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("ended")

    async with open_site(app) as house:
        stream = await house.open_stream()
        await stream.send_all(GET)
        await trio.testing.wait_all_tasks_blocked()
        await stream.aclose()
        await trio.sleep(1)
        assert seen == ["ended"]
        assert house.server.doors.connections == set()


# ---- leaving ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [True, False])
async def test_leaving_does_not_wait_for_an_application_or_its_client(reads: bool) -> None:
    async with open_site(stream_for_ever) as house:
        stream = await house.open_stream(lockstep=True)
        await stream.send_all(GET)
        await stream.receive_some()
        async with trio.open_nursery() as nursery:
            if reads:
                nursery.start_soon(all_of, stream)
            with seconds(0, within=2):
                await house.server.doors.drain()
            await stream.aclose()
