"""One truth: a backend over HTTP and a function in the process that answer the same give clients the same."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, final

import attrs
import pytest
import trio

from broker.hooks import (
    CacheEmptyResult,
    ConnectResult,
    HookDisconnect,
    HookError,
    Hooks,
    Override,
    PublishResult,
    RefreshResult,
    RpcResult,
    SubRefreshResult,
    SubscribeOptions,
    SubscribeResult,
)
from broker.hooks.http_wire import request_body
from tests.support.backend import Backend
from tests.support.peers import HISTORY, WALL, House, RawClient, open_house, secured, token

pytestmark = pytest.mark.virtual_time(idle=0.01)

NOW = int(WALL)
Talk = Callable[[House], Awaitable[list[Any]]]


async def answered(client: RawClient, **command: Any) -> None:
    """Send a command, and read until it was answered, or the connection was closed."""
    id = await client.command(**command)
    while client.closed is None and all(unit.get("id") != id for unit in client.units):
        await client._read()
    await client.arrived()


async def subscribes(house: House) -> list[Any]:
    client = await house.connected(token=token("42", info={"name": "A"}))
    await answered(client, subscribe={"channel": "news", "data": {"a": 1}})
    await house.api("publish", channel="news", data={"n": 1})
    await client.arrived()
    return [*client.units, client.closed]


async def publishes(house: House) -> list[Any]:
    client = await house.connected(token=token("42"))
    await client.ask(subscribe={"channel": "news", "token": token("42", channel="news")})
    await answered(client, publish={"channel": "news", "data": {"text": "hi"}})
    history = await house.api("history", channel="news", limit=10)
    return [*client.units, client.closed, len(history["result"]["publications"])]


async def calls(house: House) -> list[Any]:
    client = await house.connected(token=token("42"))
    await answered(client, rpc={"method": "sum", "data": [1, 2]})
    return [*client.units, client.closed]


async def connects(house: House) -> list[Any]:
    client = await house.client()
    await answered(client, connect={"data": {"a": 1}, "name": "js"})
    return [*client.units, client.closed]


async def recovers(house: House) -> list[Any]:
    client = await house.connected(token=token("42"))
    await answered(client, subscribe={"channel": "news", "token": token("42", channel="news")})
    await client.arrived()
    return [*client.units, client.closed]


def soon() -> int:
    return int(WALL + trio.current_time()) + 1


async def stays(house: House) -> list[Any]:
    """A connection, or a subscription, reaches its end; what the others see of its client afterwards."""
    client = await house.connected(token=token("42", exp=soon()))
    await client.ask(subscribe={"channel": "news", "token": token("42", channel="news")})
    return await _seen_after(2, house, client)


async def stays_subscribed(house: House) -> list[Any]:
    client = await house.connected(token=token("42"))
    await client.ask(subscribe={"channel": "news", "token": token("42", channel="news", exp=soon())})
    return await _seen_after(4, house, client)


async def _seen_after(seconds: float, house: House, client: RawClient) -> list[Any]:
    await trio.sleep(seconds)
    await client.arrived()
    present = (await house.api("presence", channel="news"))["result"]["presence"]
    return [*client.units, client.closed, present]


@final
@attrs.frozen
class Case:
    """What one backend says, in both languages; `error` is what the log may hold, `how` is an answer that is no JSON
    with 200."""

    kind: str
    talk: Talk
    http: Any
    python: Any
    error: str = ""
    how: Mapping[str, Any] = attrs.field(factory=dict)


ERROR = {"error": {"code": 1000, "message": "no", "temporary": True}}
BYE = {"disconnect": {"code": 4500, "reason": "bye"}}


def refusals(kind: str, talk: Talk) -> list[Case]:
    return [
        Case(kind, talk, ERROR, HookError(1000, "no", temporary=True)),
        Case(kind, talk, BYE, HookDisconnect(4500, "bye")),
        Case(kind, talk, {}, None),
        Case(kind, talk, [], "no result", error="a hook failed"),
        Case(kind, talk, {"disconnect": {"code": 3000, "reason": "r"}}, HookDisconnect(3000, "r")),
        Case(kind, talk, {"disconnect": {"code": 4999}, "error": {"code": 1}, "result": {}}, HookDisconnect(4999, "")),
        Case(kind, talk, None, HookError(1418, "teapot", temporary=True), how={"status": 418}),
        Case(kind, talk, None, HookDisconnect(4419, "gone"), how={"status": 419}),
        Case(kind, talk, None, "no result", error="a hook failed", how={"status": 503}),
    ]


def b64(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


CASES = [
    *refusals("subscribe", subscribes),
    *refusals("publish", publishes),
    *refusals("rpc", calls),
    *refusals("connect", connects),
    Case(
        "subscribe",
        subscribes,
        {
            "result": {
                "expire_at": NOW + 60,
                "info": {"role": "x"},
                "data": {"hello": 1},
                "override": {"presence": {"value": True}, "force_recovery": {"value": True}},
            }
        },
        SubscribeResult(
            expire_at=NOW + 60,
            info={"role": "x"},
            data={"hello": 1},
            override=Override(presence=True, force_recovery=True),
        ),
    ),
    Case("subscribe", subscribes, {"result": {"expire_at": NOW - 60}}, SubscribeResult(expire_at=NOW - 60)),
    Case(
        "publish",
        publishes,
        {"result": {"data": {"text": "better"}, "tags": {"a": "b"}, "skip_history": True}},
        PublishResult(data={"text": "better"}, tags={"a": "b"}, skip_history=True),
    ),
    Case("publish", publishes, {"result": {"data": None}}, PublishResult(data=b"null")),
    Case("rpc", calls, {"result": {"data": {"sum": 3}}}, RpcResult(data={"sum": 3})),
    Case(
        "connect",
        connects,
        {
            "result": {
                "user": "42",
                "expire_at": NOW + 60,
                "info": {"n": 1},
                "data": [1],
                "channels": ["news"],
                "subs": {"chat": {"data": "x", "override": {"force_positioning": {"value": True}}}},
            }
        },
        ConnectResult(
            user="42",
            expire_at=NOW + 60,
            info={"n": 1},
            data=[1],
            channels=["news"],
            subs={"chat": SubscribeOptions(data="x", override=Override(force_positioning=True))},
        ),
    ),
    *refusals("refresh", stays),
    Case("refresh", stays, {"result": {"expired": True}}, RefreshResult(expired=True)),
    Case(
        "refresh",
        stays,
        {"result": {"expire_at": NOW + 60, "info": {"n": 1}, "meta": {"m": 2}}},
        RefreshResult(expire_at=NOW + 60, info={"n": 1}, meta={"m": 2}),
    ),
    Case(
        "refresh",
        stays,
        {"result": {"expire_at": NOW + 60, "b64info": b64(1)}},
        RefreshResult(expire_at=NOW + 60, info=1),
    ),
    Case("refresh", stays, {"result": {"expire_at": NOW - 1}}, RefreshResult(expire_at=NOW - 1)),
    *refusals("sub_refresh", stays_subscribed),
    Case("sub_refresh", stays_subscribed, {"result": {"expired": True}}, SubRefreshResult(expired=True)),
    Case(
        "sub_refresh",
        stays_subscribed,
        {"result": {"expire_at": NOW + 60, "info": {"n": 1}}},
        SubRefreshResult(expire_at=NOW + 60, info={"n": 1}),
    ),
    Case(
        "sub_refresh",
        stays_subscribed,
        {"result": {"expire_at": NOW + 60, "b64info": b64(1)}},
        SubRefreshResult(expire_at=NOW + 60, info=1),
    ),
    Case("sub_refresh", stays_subscribed, {"result": {"expire_at": NOW - 1}}, SubRefreshResult(expire_at=NOW - 1)),
    *refusals("cache_empty", recovers),
    Case("cache_empty", recovers, {"result": {"populated": True}}, CacheEmptyResult(populated=True)),
    Case("cache_empty", recovers, {"result": {"populated": False}}, CacheEmptyResult(populated=False)),
    Case("subscribe", subscribes, {"result": {"b64info": b64(1), "b64data": b64(2)}}, SubscribeResult(info=1, data=2)),
    Case("publish", publishes, {"result": {"b64data": b64([1])}}, PublishResult(data=[1])),
    Case("publish", publishes, {"result": {"data": 1, "b64data": b64(2)}}, PublishResult(data=1)),
    Case(
        "publish",
        publishes,
        {"result": {"idempotency_key": "k", "version": 3, "version_epoch": "v", "delta": True}},
        PublishResult(idempotency_key="k", version=3, version_epoch="v", delta=True),
    ),
    Case("rpc", calls, {"result": {"data": 1, "b64data": b64({"a": 1})}}, RpcResult(data={"a": 1})),
    Case(
        "connect",
        connects,
        {"result": {"user": "42", "b64info": b64(1), "b64data": b64(2), "subs": {"news": {"b64data": b64(3)}}}},
        ConnectResult(user="42", info=1, data=2, subs={"news": SubscribeOptions(data=3)}),
    ),
    Case("connect", connects, {"result": {"channels": ["nowhere:x"]}}, ConnectResult(channels=["nowhere:x"])),
    Case("connect", connects, {"result": {"expire_at": 5}}, ConnectResult(expire_at=5)),
]


CACHE = {"force_recovery_mode": "cache", "auto_cache_recover": True}
TRANSFORMS = [
    {"status_code": 418, "to_error": {"code": 1418, "message": "teapot", "temporary": True}},
    {"status_code": 419, "to_disconnect": {"code": 4419, "reason": "gone"}},
]


BRISK = {"expired_close_delay": "500ms", "expired_sub_close_delay": "500ms", "presence_update_interval": "1s"}
"""Options of `client`: what has its time now and then has it soon."""


def namespace(kind: str) -> dict[str, Any]:
    return {**HISTORY, "presence": True, **(CACHE if kind == "cache_empty" else {})}


def proxied(backend: Backend, kind: str) -> dict[str, Any]:
    """A server that asks the backend about one event."""
    http = {"status_to_code_transforms": TRANSFORMS}
    more = {} if kind in ("connect", "cache_empty") else {"include_connection_meta": True}
    proxy = {"endpoint": backend.url("/parity"), "timeout": "600s", "http": http, **more}
    channel: dict[str, Any] = {"without_namespace": namespace(kind)}
    sections: dict[str, Any] = {"channel": channel}
    if kind in ("connect", "refresh"):
        return {**secured(client={**BRISK, "proxy": {kind: {"enabled": True, **proxy}}}), **sections}
    if kind == "rpc":
        sections["rpc"] = {"without_namespace": {"proxy_enabled": True}, "proxy": proxy}
    else:
        channel["without_namespace"][f"{kind}_proxy_enabled"] = True
        channel["proxy"] = {kind: proxy}
    return {**secured(client=BRISK), **sections}


def plain(kind: str) -> dict[str, Any]:
    return {**secured(client=BRISK), "channel": {"without_namespace": namespace(kind)}}


def hooks(case: Case) -> Hooks:
    """The same as a function."""
    app = Hooks()
    on = getattr(app.on, case.kind)

    @(on(timeout=600) if case.kind in ("connect", "refresh") else on("*", timeout=600))
    async def function(event: Any) -> Any:
        if isinstance(case.python, Exception):
            raise case.python
        return case.python

    return app


def told(units: list[Any]) -> list[Any]:
    """Without what differs from run to run."""
    text = repr(units)
    text = re.sub(r"'[0-9a-f]{8}-[0-9a-f-]{27}'", "'id'", text)
    text = re.sub(r"'ttl': \d+", "'ttl': 1", text)  # the second one runs a little later
    return [re.sub(r"'epoch': '\w+'", "'epoch': 'e'", text)]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}-{at}" for at, case in enumerate(CASES)])
async def test_clients_see_the_same(case: Case, backend: Backend, error_log: Any) -> None:
    if case.error:
        error_log.expect(case.error)
    await backend.answer("/parity", case.http, **case.how)
    async with open_house(proxied(backend, case.kind)) as house:
        over_http = told(await case.talk(house))
    assert await backend.requests("/parity")
    async with open_house(plain(case.kind), hooks=hooks(case)) as house:
        in_process = told(await case.talk(house))
    assert in_process == over_http


FIELDS: Mapping[str, Mapping[str, Any]] = {
    "cache_empty": {"channel": "news"},
    "connect": {"data": b'{"a": 1}', "name": "js", "user": ""},
    "subscribe": {"data": b'{"a": 1}', "channel": "news", "user": "42"},
    "publish": {"data": b'{"text": "hi"}', "channel": "news", "user": "42"},
    "rpc": {"data": b"[1, 2]", "method": "sum", "user": "42"},
    "refresh": {"user": "42"},
    "sub_refresh": {"channel": "news", "user": "42"},
}


@pytest.mark.parametrize("kind", FIELDS)
async def test_functions_are_told_what_backends_are(kind: str, backend: Backend) -> None:
    talk = next(case.talk for case in CASES if case.kind == kind)
    events: list[Any] = []
    app = Hooks()
    on = getattr(app.on, kind)

    @(on() if kind in ("connect", "refresh") else on("*"))
    async def function(event: Any) -> None:
        events.append(event)

    async with open_house(plain(kind), hooks=app) as house:
        await talk(house)
    event = events[0]
    assert {name: getattr(event, name) for name in FIELDS[kind]} == FIELDS[kind]
    await backend.answer("/parity", {})
    async with open_house(proxied(backend, kind)) as house:
        await talk(house)
    asked = (await backend.requests("/parity"))[0].json()
    in_process = json.loads(request_body(event, binary=False, with_meta=True))
    if kind != "cache_empty":
        assert (event.transport, event.protocol) == ("websocket", "json")
        assert asked.pop("client")
        assert in_process.pop("client")
    assert in_process == asked


# ---- what has happened ----------------------------------------------------------------------------------------------


async def ends(house: House) -> None:
    """A subscription ends by its client, another with its connection."""
    client = await house.connected(token=token("42", meta={"tenant": 7}))
    for channel in ("news", "chat"):
        await client.ask(subscribe={"channel": channel, "token": token("42", channel=channel)})
    await trio.sleep(1)
    await client.ask(unsubscribe={"channel": "news"})
    await house.api("disconnect", user="42", disconnect={"code": 4501, "reason": "go away"})
    await client.wait_closed()
    await trio.sleep(10)


def told_over_http(backend: Backend) -> dict[str, Any]:
    """A server that tells the backend everything, and nothing else."""

    def proxy(kind: str) -> dict[str, Any]:
        return {"endpoint": backend.url(f"/parity/{kind}"), "timeout": "600s", "include_connection_meta": True}

    return {
        **secured(client={"proxy": {"disconnect": {"enabled": True, **proxy("disconnect")}}}),
        "channel": {
            "without_namespace": {"unsubscribe_proxy_enabled": True, "state_proxy_enabled": True},
            "proxy": {kind: proxy(kind) for kind in ("unsubscribe", "state")},
        },
    }


def as_json(event: Any) -> Any:
    """An event of a function, as it would be in a request."""
    fields = attrs.asdict(event)
    if "meta" in fields:
        fields["meta"] = json.loads(fields["meta"])
    return {name: value for name, value in fields.items() if name not in ("headers", "emulated_headers", "address")}


def comparable(told: Any) -> Any:
    """Without what differs from run to run; `encoding` is a matter of the carrier."""
    if isinstance(told, list | tuple):
        return [comparable(each) for each in told]
    if not isinstance(told, dict):
        return told
    own = {"client", "node", "time_ms", "generation", "duration_ms"}
    assert all(told[name] for name in own & told.keys()), told
    return {name: name if name in own else comparable(value) for name, value in told.items() if name != "encoding"}


async def test_backends_and_functions_are_told_the_same(backend: Backend) -> None:
    kinds = ("disconnect", "unsubscribe", "state")
    app = Hooks()
    in_process: dict[str, list[Any]] = {kind: [] for kind in kinds}
    for kind in kinds:
        on = getattr(app.on, kind)

        @(on() if kind == "disconnect" else on("*"))
        async def function(event: Any, kind: str = kind) -> None:
            in_process[kind].append(as_json(event))

    async with open_house(secured(), hooks=app) as house:
        await ends(house)
    for kind in kinds:
        await backend.answer(f"/parity/{kind}", {"result": {}})
    async with open_house(told_over_http(backend)) as house:
        await ends(house)
    over_http = {kind: [asked.json() for asked in await backend.requests(f"/parity/{kind}")] for kind in kinds}
    assert comparable(over_http["disconnect"]) == comparable(in_process["disconnect"])
    assert comparable(over_http["unsubscribe"]) == comparable(in_process["unsubscribe"])
    for told in (over_http["state"], in_process["state"]):
        assert [(state["channel"], state["type"]) for each in told for state in each["events"]] == [
            ("news", "occupied"),
            ("chat", "occupied"),
            ("news", "vacated"),
            ("chat", "vacated"),
        ]
    assert comparable(over_http["state"][0]) == comparable(in_process["state"][0])
