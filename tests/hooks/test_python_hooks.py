"""Functions as hooks: where they run, what becomes of those that misbehave, and that only their client notices."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import trio
import trio.lowlevel

from broker.hooks import (
    CacheEmptyEvent,
    CacheEmptyResult,
    ConnectEvent,
    ConnectResult,
    Hooks,
    PublishEvent,
    PublishResult,
    RefreshEvent,
    RefreshResult,
    RpcEvent,
    RpcResult,
    SubRefreshEvent,
    SubRefreshResult,
    SubscribeEvent,
    SubscribeResult,
)
from tests.support.clock import seconds
from tests.support.peers import WALL, open_house, options, secured, token

pytestmark = pytest.mark.virtual_time(idle=0.01)

INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}


async def test_a_function_answers_and_publishes() -> None:
    app = Hooks()

    @app.on.rpc("say")
    async def say(event: RpcEvent) -> RpcResult:
        await app.server.publish("news", {"said": event.json(), "by": event.user})
        return RpcResult(data={"ok": True})

    async with open_house(secured({"allow_subscribe_for_client": True}), hooks=app) as house:
        client = await house.connected(token=token("42"))
        await client.ask(subscribe={"channel": "news"})
        assert (await client.ask(rpc={"method": "say", "data": "hi"}))["rpc"] == {"data": {"ok": True}}
        assert (await client.push())["pub"]["data"] == {"said": "hi", "by": "42"}
        assert (await client.ask(rpc={"method": "other"}))["error"]["code"] == 108


async def test_patterns_the_first_that_matches() -> None:
    app = Hooks()

    @app.on.subscribe("chat:vip-*")
    async def vip(event: SubscribeEvent) -> SubscribeResult:
        return SubscribeResult(data="vip")

    @app.on.subscribe("chat:*")
    async def chat(event: SubscribeEvent) -> SubscribeResult:
        return SubscribeResult(data="chat")

    config = {**secured(), "channel": {"namespaces": [{"name": "chat"}, {"name": "other"}]}}
    async with open_house(config, hooks=app) as house:
        client = await house.connected(token=token("42"))
        assert (await client.ask(subscribe={"channel": "chat:vip-1"}))["subscribe"]["data"] == "vip"
        assert (await client.ask(subscribe={"channel": "chat:1"}))["subscribe"]["data"] == "chat"
        assert (await client.ask(subscribe={"channel": "other:1"}))["error"]["code"] == 103


async def test_plain_functions_run_in_threads() -> None:
    app = Hooks()
    ran_in: list[threading.Thread] = []

    @app.on.rpc("*")
    def plain(event: RpcEvent) -> RpcResult:
        ran_in.append(threading.current_thread())
        return RpcResult(data=1)

    async with open_house(secured(), hooks=app) as house:
        client = await house.connected(token=token("42"))
        assert (await client.ask(rpc={"method": "x"}))["rpc"] == {"data": 1}
    assert ran_in[0] is not threading.main_thread()


async def raises(event: RpcEvent) -> RpcResult:
    raise ValueError("secret: of the application")


async def raises_in_a_group(event: RpcEvent) -> RpcResult:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises, event)
    raise AssertionError


async def never_returns(event: RpcEvent) -> RpcResult:
    await trio.sleep_forever()
    raise AssertionError


async def returns_the_wrong_type(event: RpcEvent) -> Any:
    return {"data": 1}


async def ends_the_process(event: RpcEvent) -> RpcResult:
    raise SystemExit(3)


def raises_in_a_thread(event: RpcEvent) -> RpcResult:
    raise ValueError("secret: of the application")


@pytest.mark.parametrize(
    "function",
    [raises, raises_in_a_group, never_returns, returns_the_wrong_type, ends_the_process, raises_in_a_thread],
    ids=lambda function: function.__name__,
)
async def test_a_bad_function_is_its_clients_error_100(function: Any, error_log: Any) -> None:
    error_log.expect("a hook failed")
    app = Hooks()
    app.on.rpc("bad", timeout=2)(function)
    app.on.rpc("good")(returns_one)
    async with open_house(secured(), hooks=app) as house:
        bad = await house.connected(token=token("1"))
        good = await house.connected(token=token("2"))
        await bad.command(rpc={"method": "bad"})
        assert (await good.ask(rpc={"method": "good"}))["rpc"] == {"data": 1}
        assert (await bad.next())["error"] == INTERNAL
        assert (await bad.ask(rpc={"method": "good"}))["rpc"] == {"data": 1}


async def returns_one(event: RpcEvent) -> RpcResult:
    return RpcResult(data=1)


async def test_the_deadline_is_the_functions_own(error_log: Any) -> None:
    error_log.expect("no answer within 3 s")
    app = Hooks()
    app.on.rpc("*", timeout=3)(never_returns)
    async with open_house(secured(), hooks=app) as house:
        client = await house.connected(token=token("1"))
        with seconds(3):
            assert (await client.ask(rpc={"method": "x"}))["error"] == INTERNAL


async def test_who_leaves_gives_the_question_up() -> None:
    app = Hooks()
    events: list[str] = []

    @app.on.subscribe("*", timeout=600)
    async def slow(event: SubscribeEvent) -> SubscribeResult:
        events.append("asked")
        try:
            await trio.sleep(60)
        except trio.Cancelled:
            events.append("given up")
            raise
        return SubscribeResult()

    async with open_house(secured({"presence": True}), hooks=app) as house:
        client = await house.connected(token=token("42"))
        await client.command(subscribe={"channel": "news"})
        await trio.sleep(1)
        await client.leave()
        await trio.sleep(1)
        assert events == ["asked", "given up"]


async def test_a_disconnected_client_gets_no_late_answer() -> None:
    app = Hooks()

    @app.on.publish("*", timeout=600)
    async def slow(event: PublishEvent) -> None:
        await app.server.disconnect("42")

    async with open_house(secured({"history_size": 5, "history_ttl": "60s"}), hooks=app) as house:
        client = await house.connected(token=token("42"))
        await client.command(publish={"channel": "news", "data": 1})
        assert await client.wait_closed() == (3503, "force disconnect")
        assert client.units == []
        assert (await house.api("history", channel="news", limit=5))["result"]["publications"] == []


async def test_commands_behind_a_question_wait_their_turn() -> None:
    app = Hooks()

    @app.on.rpc("slow", timeout=600)
    async def slow(event: RpcEvent) -> RpcResult:
        await trio.sleep(2)
        return RpcResult(data="slow")

    app.on.rpc("fast")(returns_one)
    async with open_house(secured(), hooks=app) as house:
        client = await house.connected(token=token("42"))
        await client.frame({"rpc": {"method": "slow"}}, {"rpc": {"method": "fast"}})
        assert [(await client.next())["rpc"]["data"] for _ in range(2)] == ["slow", 1]


async def test_calls_beyond_the_limit_wait() -> None:
    app = Hooks()
    running: list[int] = [0, 0]

    @app.on.rpc("*", timeout=600, concurrency=2)
    async def counted(event: RpcEvent) -> None:
        running[0] += 1
        running[1] = max(running)
        await trio.sleep(1)
        running[0] -= 1

    async with open_house(secured(), hooks=app) as house:
        clients = [await house.connected(token=token("42")) for _ in range(6)]
        with seconds(3):
            for client in clients:
                await client.command(rpc={"method": "x"})
            for client in clients:
                assert (await client.next())["rpc"] == {}
    assert running == [0, 2]


async def test_connect_refresh_and_sub_refresh() -> None:
    app = Hooks(http_headers=["X-Real"], emulated_headers=["X-Token"])
    now = int(WALL)
    asked: list[str] = []

    @app.on.connect()
    async def connect(event: ConnectEvent) -> ConnectResult:
        assert dict(event.headers) == {"x-real": "r"}
        assert dict(event.emulated_headers) == {"x-token": "t"}
        return ConnectResult(user="42", expire_at=now + 30, meta={"n": 1})

    @app.on.refresh()
    async def refresh(event: RefreshEvent) -> RefreshResult:
        asked.append(f"refresh {event.user} {event.meta.decode()}")
        return RefreshResult(expire_at=now + 300)

    @app.on.subscribe("*")
    async def subscribe(event: SubscribeEvent) -> SubscribeResult:
        return SubscribeResult(expire_at=now + 30)

    @app.on.sub_refresh("*")
    async def sub_refresh(event: SubRefreshEvent) -> SubRefreshResult:
        asked.append(f"sub_refresh {event.channel}")
        return SubRefreshResult(expired=True)

    async with open_house(secured(), hooks=app) as house:
        client = await house.connected(with_headers="X-Real: r\r\n", headers={"x-token": "t"})
        await client.ask(subscribe={"channel": "news"})
        assert (await client.push())["unsubscribe"]["code"] == 2501
        assert asked == ['refresh 42 {"n":1}', "sub_refresh news"]


async def test_an_empty_cache_is_filled() -> None:
    app = Hooks()

    @app.on.cache_empty("*")
    async def fill(event: CacheEmptyEvent) -> CacheEmptyResult:
        await app.server.publish(event.channel, {"filled": True})
        return CacheEmptyResult(populated=True)

    cache = {
        "history_size": 1,
        "history_ttl": "60s",
        "force_recovery": True,
        "force_recovery_mode": "cache",
        "auto_cache_recover": True,
    }
    async with open_house(options(cache), hooks=app) as house:
        client = await house.connected()
        given = (await client.ask(subscribe={"channel": "news"}))["subscribe"]
        assert [pub["data"] for pub in given["publications"]] == [{"filled": True}]


def hold_the_loop(seconds: float) -> None:
    time.sleep(seconds)


async def test_a_heavy_function_is_named() -> None:
    app = Hooks()

    @app.on.rpc("*")
    async def heavy(event: RpcEvent) -> None:
        hold_the_loop(0.03)
        await trio.lowlevel.checkpoint()

    async with open_house({**secured(), "prometheus": {"enabled": True}}, hooks=app) as house:
        client = await house.connected(token=token("42"))
        await client.ask(rpc={"method": "x"})
        text = (await house.http("GET", "/metrics")).body.decode()
    (line,) = (each for each in text.splitlines() if each.startswith("centrifugo_hook_loop_longest_seconds{"))
    assert "heavy" in line
    assert float(line.split()[-1]) >= 0.03


async def test_there_is_no_server_before_it_runs() -> None:
    with pytest.raises(RuntimeError, match="does not run yet"):
        _ = Hooks().server


async def test_cookies_that_every_page_can_bring_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    for origin, warned in (("https://app.example", False), ("*", True)):
        async with open_house(secured(client={"allowed_origins": [origin]}), hooks=Hooks(http_headers=["Cookie"])):
            pass
        assert ("cookies are sent on (Hooks(http_headers=…))" in caplog.text) is warned


@pytest.mark.parametrize("value", [1_700_000_060.5, "1700000060", None, 2**63, -(2**63) - 1], ids=repr)
@pytest.mark.parametrize("kind", ["connect", "subscribe"])
async def test_a_time_that_is_none(kind: str, value: Any, error_log: Any) -> None:
    """`time.time() + 60` is a float: the traceback leads to it, and the client gets what a bug gives it."""
    error_log.expect("it raised ValueError")
    app = Hooks()

    @app.on.connect()
    async def connect(event: ConnectEvent) -> ConnectResult:
        return ConnectResult(user="42", expire_at=value if kind == "connect" else 0)

    @app.on.subscribe("*")
    async def subscribe(event: SubscribeEvent) -> SubscribeResult:
        return SubscribeResult(expire_at=value)

    async with open_house(secured(), hooks=app) as house:
        client = await house.client()
        reply = await client.ask(connect={})
        if kind == "subscribe":
            reply = await client.ask(subscribe={"channel": "news"})
        assert reply["error"]["code"] == 100


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, "1", None], ids=repr)
def test_a_version_that_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match="version is an int"):
        PublishResult(version=value)
