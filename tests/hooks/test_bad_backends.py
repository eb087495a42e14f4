"""Backends that are slow, dead, or do not keep to HTTP: each ends in error 100 for the client that asked, and for
nobody else; the next question is answered again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.support.backend import Backend
from tests.support.peers import open_house, secured, token

pytestmark = pytest.mark.virtual_time(idle=0.01)

INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}
OK = {"result": {"data": "ok"}}
OK_BYTES = json.dumps(OK).encode()
LEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def config(backend: Backend, path: str = "/bad", timeout: str = "600s", **more: Any) -> dict[str, Any]:
    proxy = {"endpoint": backend.url(path), "timeout": timeout, **more}
    good = {"name": "good", "endpoint": backend.url("/good"), "timeout": "600s"}
    rpc = {
        "without_namespace": {"proxy_enabled": True},
        "namespaces": [{"name": "good", "proxy_enabled": True, "proxy_name": "good"}],
        "proxy": proxy,
    }
    return {**secured(), "rpc": rpc, "proxies": [good]}


@pytest.mark.parametrize(
    "how",
    [
        {"status": 500},
        {"status": 301, "headers": {"Location": "/good"}},
        {"status": 204},
        {"body": b"<html><body>502 Bad Gateway</body></html>", "headers": {"Content-Type": "text/html"}},
        {"body": b""},
        {"body": b"null"},
        {"body": b"[" * 100_000},
        {"body": b'{"result": {"data": 1}} trailing'},
        {"body": b'{"result": []}'},
        {"body": b'{"result": {"b64data": "%%"}}'},
        {"body": b'{"disconnect": {"code": 7}}'},
        {"body": b" " * (10 << 20)},
        {"raw": LEAD + b"Content-Length: 1000\r\n\r\n" + OK_BYTES},
        {"raw": LEAD + b"Content-Length: 3\r\n\r\n" + OK_BYTES},
        {"raw": LEAD + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n" + OK_BYTES},
        {"raw": LEAD + b"X: " + b"x" * 20_000 + b"\r\n\r\n"},
        {"raw": b"SSH-2.0-OpenSSH_9.2\r\n"},
        {"raw": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"},
        {"raw": LEAD[:20]},
        {"raw": b""},
    ],
    ids=[
        "status-500",
        "redirect",
        "no-content",
        "html",
        "empty",
        "null",
        "deep",
        "trailing",
        "wrong-type",
        "base64",
        "impossible-code",
        "ten-megabytes",
        "longer-than-sent",
        "shorter-than-sent",
        "cut-chunk",
        "huge-head",
        "not-http",
        "upgrade",
        "cut-head",
        "closes",
    ],
)
async def test_an_answer_that_cannot_be_used(backend: Backend, how: dict[str, Any], error_log: Any) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/good", OK)
    await backend.answer("/bad", **how)
    async with open_house(config(backend)) as house:
        client = await house.connected(token=token("1"))
        assert (await client.ask(rpc={"method": "x"}))["error"] == INTERNAL
        assert (await client.ask(rpc={"method": "good:x"}))["rpc"] == {"data": "ok"}
        await backend.answer("/bad", OK)
        assert (await client.ask(rpc={"method": "x"}))["rpc"] == {"data": "ok"}


async def test_a_slow_backend_holds_up_only_who_asked(backend: Backend, error_log: Any) -> None:
    error_log.expect("no answer within 5 s")
    await backend.answer("/good", OK)
    await backend.answer("/bad", silent=True)
    async with open_house(config(backend, timeout="5s")) as house:
        slow = await house.connected(token=token("1"))
        quick = await house.connected(token=token("2"))
        await slow.command(rpc={"method": "x"})
        assert (await quick.ask(rpc={"method": "good:x"}))["rpc"] == {"data": "ok"}
        before = trio.current_time()
        assert (await slow.next())["error"] == INTERNAL
        assert trio.current_time() - before <= 5.1


async def test_nobody_listens(backend: Backend, error_log: Any) -> None:
    error_log.expect("a hook failed")
    options = config(backend)
    options["rpc"]["proxy"]["endpoint"] = "http://127.0.0.1:1/"
    async with open_house(options) as house:
        client = await house.connected(token=token("1"))
        assert (await client.ask(rpc={"method": "x"}))["error"] == INTERNAL


async def test_connections_are_used_again_and_a_stale_one_is_no_error(backend: Backend) -> None:
    await backend.answer("/bad", OK)
    async with open_house(config(backend)) as house:
        client = await house.connected(token=token("1"))
        for _ in range(3):
            await client.ask(rpc={"method": "x"})
        connections = {asked.connection for asked in await backend.requests("/bad")}
        assert len(connections) == 1
        await backend.answer("/bad", OK, close=4)  # this connection's fourth answer is its last
        for _ in range(3):
            assert (await client.ask(rpc={"method": "x"}))["rpc"] == {"data": "ok"}
        asked = await backend.requests("/bad")
        assert len(asked) == 3  # nothing was asked twice
        assert [each.connection in connections for each in asked] == [True, False, False]


async def test_no_more_connections_than_allowed(backend: Backend) -> None:
    await backend.answer("/bad", OK, delay=0.02)
    async with open_house(config(backend, http={"max_connections": 2})) as house:
        clients = [await house.connected(token=token("1")) for _ in range(8)]
        for client in clients:
            await client.command(rpc={"method": "x"})
        for client in clients:
            assert (await client.next())["rpc"] == {"data": "ok"}
        assert len({asked.connection for asked in await backend.requests("/bad")}) == 2
