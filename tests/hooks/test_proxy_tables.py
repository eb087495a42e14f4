"""The tables of Centrifugo's proxies, line by line: fields of requests and results, and what is odd about them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from tests.hooks.test_http_proxies import head, options, with_connect
from tests.sessions.test_delta import DELTA
from tests.support.backend import Backend
from tests.support.peers import WALL, House, RawClient, open_house, secured, token
from tests.support.streams import ON, open_stream, request

pytestmark = pytest.mark.virtual_time(idle=0.01)

NOW = int(WALL)
INTERNAL = {"code": 100, "message": "internal server error", "temporary": True}
KINDS = ("connect", "refresh", "subscribe", "publish", "sub_refresh", "rpc")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def everything(backend: Backend, more: Mapping[str, Any], **client: Any) -> dict[str, Any]:
    """A server that asks the backend about everything."""
    section = with_connect(backend, **more)
    section["proxy"]["refresh"] = {"enabled": True, "endpoint": backend.url("/refresh"), "timeout": "600s", **more}
    brisk = {"expired_close_delay": "500ms", "expired_sub_close_delay": "500ms", "presence_update_interval": "1s"}
    return options(backend, more=more, client={**section, **brisk, **client})


# ---- what is asked ------------------------------------------------------------------------------------------------

DATA = {"connect": b'{"a":1}', "subscribe": b'{"b":1}', "publish": b'{"c":1}', "rpc": b"[1]"}
ASKED: Mapping[str, tuple[str, ...]] = {
    "connect": ("data", "name", "version", "channels"),
    "refresh": ("user", "meta"),
    "subscribe": ("user", "channel", "meta", "data"),
    "publish": ("user", "channel", "data", "meta"),
    "sub_refresh": ("user", "channel", "meta"),
    "rpc": ("user", "method", "data", "meta"),
}
"""Fields beyond those of every request, in the order of their numbers."""


@pytest.mark.parametrize("binary", [False, True], ids=["json", "base64"])
@pytest.mark.parametrize("meta", [False, True], ids=["without-meta", "with-meta"])
async def test_every_field_of_every_request(backend: Backend, binary: bool, meta: bool) -> None:
    more = {"binary_encoding": binary, "include_connection_meta": meta}
    result = {"user": "42", "expire_at": NOW + 2, "meta": {"m": 1}}
    await backend.answer("/connect", {"result": result})
    await backend.answer("/subscribe", {"result": {"expire_at": NOW + 1}})
    for kind in ("publish", "rpc", "refresh", "sub_refresh"):
        await backend.answer(f"/{kind}", {"result": {"expire_at": NOW + 1000} if "refresh" in kind else {}})
    async with open_house({**everything(backend, more), "prometheus": {"enabled": True}}) as house:
        client = await house.connected(data={"a": 1}, name="js", version="1.2", subs={"x": {}})
        await client.ask(subscribe={"channel": "news", "data": {"b": 1}})
        await client.ask(publish={"channel": "news", "data": {"c": 1}})
        await client.ask(rpc={"method": "sum", "data": [1]})
        await trio.sleep(5)
        values = {"user": "42", "channel": "news", "method": "sum", "meta": {"m": 1}}
        values |= {"name": "js", "version": "1.2", "channels": ["x"]}
        for kind in KINDS:
            (asked,) = await backend.requests(f"/{kind}")
            expected = {"client": client.hello["client"], "transport": "websocket", "protocol": "json"}
            expected["encoding"] = "binary" if binary else "json"
            for name in ASKED[kind]:
                if name == "data":
                    data = DATA[kind]
                    expected |= {"b64data": b64(data)} if binary else {"data": json.loads(data)}
                elif name != "meta" or meta:
                    expected[name] = values[name]
            body = asked.json()
            if binary and "b64data" in body:  # the client's bytes, and our client writes spaces
                data = json.loads(base64.b64decode(body["b64data"]))
                body["b64data"] = b64(json.dumps(data, separators=(",", ":")).encode())
            assert body == expected
            assert list(body) == list(expected)
        metrics = (await house.http("GET", "/metrics")).body.decode()
        for kind in KINDS:
            labels = f'{{name="default",protocol="http",type="{kind}"}}'
            assert f"centrifugo_proxy_duration_seconds_count{labels} 1.0" in metrics
            assert f"centrifugo_proxy_inflight_requests{labels} 0.0" in metrics


async def test_nobody_is_a_user_without_a_name(backend: Backend) -> None:
    """`user` is always there, `meta` only where there is one; a payload that is null is one, and none is none."""
    for kind in ("subscribe", "publish", "rpc"):
        await backend.answer(f"/{kind}", {})
    config = options(
        backend,
        more={"include_connection_meta": True},
        client={"allow_anonymous_connect_without_token": True},
    )
    async with open_house(config) as house:
        client = await house.connected()
        for kind, command in (
            ("subscribe", {"channel": "news"}),
            ("publish", {"channel": "news", "data": None}),
            ("rpc", {"method": "x", "data": None}),
            ("rpc", {"method": "x"}),
        ):
            await client.ask(**{kind: command})
            (asked,) = await backend.requests(f"/{kind}")
            assert asked.json() == head(client, user="", **command)


@pytest.mark.parametrize("transport", ["http_stream", "sse", "uni_http_stream", "uni_sse"])
@pytest.mark.parametrize("binary", [False, True], ids=["json", "protobuf"])
async def test_transports_have_their_names(backend: Backend, transport: str, binary: bool) -> None:
    if binary and transport != "http_stream":
        return
    await backend.answer("/connect", {"result": {"user": "42"}})
    async with open_house({**options(backend, client=with_connect(backend)), **ON}) as house:
        stream = await open_stream(house, transport, binary=binary)
        (asked,) = await backend.requests("/connect")
        assert asked.json() == {
            "client": stream.hello["client"],
            "transport": transport,
            "protocol": "protobuf" if binary else "json",
            "encoding": "json",
        }
        await stream.leave()


# ---- what is answered ---------------------------------------------------------------------------------------------

OF_OTHERS: Mapping[str, Mapping[str, Any]] = {
    "connect": {
        "user": "42",
        "caps": [{"channels": ["*"], "allow": ["pub"], "match": "wildcard"}],
        "labels": {"a": "b"},
        "subs": {"chat": {"expire_at": 5, "server_tags_filter": {"op": "eq"}}},
    },
    "subscribe": {"allow": ["pub"], "server_tags_filter": {"op": "eq"}},
    "publish": {"labels": {}},
    "rpc": {"labels": {}},
    "refresh": {"expire_at": NOW + 1000, "caps": [{"channels": ["*"]}]},
    "sub_refresh": {"expire_at": NOW + 1000, "allow": ["pub"]},
}


async def test_fields_that_we_do_not_have_are_passed_over(backend: Backend) -> None:
    for kind, result in OF_OTHERS.items():
        await backend.answer(f"/{kind}", {"result": result})
    await backend.answer("/connect", {"result": {**OF_OTHERS["connect"], "expire_at": NOW + 2}})
    await backend.answer("/subscribe", {"result": {**OF_OTHERS["subscribe"], "expire_at": NOW + 1}})
    async with open_house(everything(backend, {})) as house:
        client = await house.connected()
        assert set(client.hello["subs"]) == {"chat"}
        assert "subscribe" in await client.ask(subscribe={"channel": "news"})
        assert "publish" in await client.ask(publish={"channel": "news", "data": 1})
        assert "rpc" in await client.ask(rpc={"method": "x"})
        await trio.sleep(10)
        await client.arrived()
        assert client.closed is None
        assert not [unit for unit in client.units if "unsubscribe" in unit.get("push", {})]
        assert len(await backend.requests("/refresh")) == len(await backend.requests("/sub_refresh")) == 1


COMMANDS: Mapping[str, Mapping[str, Any]] = {
    "connect": {},
    "subscribe": {"channel": "news"},
    "publish": {"channel": "news", "data": 1},
    "rpc": {"method": "x"},
}


async def asked_by(house: House, kind: str) -> RawClient:
    """A client that may send the command."""
    return await house.client() if kind == "connect" else await house.connected(token=token("42"))


_NO_TIMES = [{"expire_at": number} for number in (2**63, 10**30, -(2**63) - 1, 1.5, "5")]
OF_ANOTHER_TYPE: Mapping[str, list[Any]] = {
    "connect": [
        *_NO_TIMES,
        {"user": 42},
        {"channels": "news"},
        {"subs": {"news": {"expire_at": 2**63}}},
        {"subs": {"news": {"override": {"presence": True}}}},
    ],
    "subscribe": [*_NO_TIMES, {"override": {"presence": {"value": 1}}}, {"info": 1, "b64info": "%"}],
    "publish": [
        *({"version": number} for number in (-1, 2**64, 10**30, 0.5, "1")),
        {"tags": {"a": 1}},
        {"tags": ["a"]},
        {"skip_history": 1},
        {"b64data": "%"},
    ],
    "rpc": [{"b64data": "a"}, {"b64data": 1}, [1]],
}


@pytest.mark.parametrize("kind", OF_ANOTHER_TYPE)
async def test_results_of_another_type_are_no_answer(backend: Backend, kind: str, error_log: Any) -> None:
    error_log.expect("a hook failed")
    async with open_house(options(backend, client=with_connect(backend))) as house:
        client = await asked_by(house, kind)
        for result in OF_ANOTHER_TYPE[kind]:
            await backend.answer(f"/{kind}", {"result": result})
            assert (await client.ask(**{kind: COMMANDS[kind]}))["error"] == INTERNAL, result
            if kind == "connect":
                await client.leave()
                client = await house.client()


@pytest.mark.parametrize("number", [2**63 - 1, 10**12])
async def test_a_time_that_never_comes(backend: Backend, number: int) -> None:
    """The greatest that Centrifugo takes: nothing breaks, in either protocol."""
    await backend.answer("/connect", {"result": {"user": "42", "expire_at": number}})
    await backend.answer("/subscribe", {"result": {"expire_at": number}})
    config = options(backend, client=with_connect(backend), channel={"sub_refresh_proxy_enabled": False})
    async with open_house(config) as house:
        for protobuf in (False, True):
            client = await house.connected(protobuf=protobuf)
            assert client.hello["expires"] is True
            assert client.hello["ttl"] > 0
            given = (await client.ask(subscribe={"channel": "news"}))["subscribe"]
            assert given["expires"] is True
            assert given["ttl"] > 0
            await client.nothing(1)


@pytest.mark.parametrize("kind", ["connect", "subscribe", "rpc"])
async def test_null_is_a_payload(backend: Backend, kind: str) -> None:
    await backend.answer(f"/{kind}", {"result": {"data": None}})
    async with open_house(options(backend, client=with_connect(backend))) as house:
        client = await asked_by(house, kind)
        given = (await client.ask(**{kind: COMMANDS[kind]}))[kind]
        assert "data" in given
        assert given["data"] is None


@pytest.mark.parametrize("where", ["connect", "connect b64info", "subscribe", "publish", "rpc"])
async def test_bytes_for_who_reads_json(backend: Backend, where: str, error_log: Any) -> None:
    """They end the connection of that client as one with the wrong protocol: nothing malformed is sent."""
    kind, _, key = where.partition(" ")
    await backend.answer("/connect", {"result": {"user": "42"}})
    await backend.answer("/subscribe", {})
    await backend.answer(f"/{kind}", {"result": {key or "b64data": b64(b'\x00\xff"')}})
    config = options(backend, client=with_connect(backend), channel={"join_leave": True, "force_push_join_leave": True})
    async with open_house(config) as house:
        client = await asked_by(house, kind)
        await client.command(**{kind: COMMANDS[kind]})
        if kind in ("publish", "connect"):
            await client.command(subscribe={"channel": "news"})
            if kind == "publish":
                await client.arrived()
                await client.command(publish={"channel": "news", "data": 1})
        assert await client.wait_closed() == (3506, "inappropriate protocol")


@pytest.mark.parametrize("transport", ["uni_sse", "uni_http_stream"])
async def test_one_way_clients_are_disconnected_by_errors(backend: Backend, transport: str) -> None:
    transforms = [{"code": 1000, "to": {"code": 4555, "reason": "come again"}}]
    section = {
        **with_connect(backend),
        "connect_code_to_unidirectional_disconnect": {"enabled": True, "transforms": transforms},
    }
    async with open_house({**options(backend, client=section), **ON}) as house:
        for answer, seen in (
            ({"error": {"code": 1000, "message": "no"}}, {"code": 4555, "reason": "come again"}),
            ({"disconnect": {"code": 4500, "reason": "bye"}}, {"code": 4500, "reason": "bye"}),
        ):
            await backend.answer("/connect", answer)
            stream = await open_stream(house, transport)
            assert await stream.next() == {"disconnect": seen}


# ---- publish ------------------------------------------------------------------------------------------------------


async def test_what_the_backend_puts_in_is_not_checked(backend: Backend) -> None:
    await backend.answer("/publish", {"result": {"data": [1]}})
    await backend.answer("/subscribe", {})
    async with open_house(options(backend, channel={"publication_data_format": "json_object"})) as house:
        client = await house.connected(token=token("42"))
        await client.ask(subscribe={"channel": "news"})
        assert "publish" in await client.ask(publish={"channel": "news", "data": {}})
        assert (await client.push())["pub"]["data"] == [1]


@pytest.mark.parametrize(("result", "deltas"), [({}, False), ({"delta": True}, True)], ids=["namespace", "result"])
async def test_deltas_are_for_the_backend_to_ask_for(backend: Backend, result: Any, deltas: bool) -> None:
    """`delta_publish` of the namespace does not count here."""
    await backend.answer("/publish", {"result": result})
    await backend.answer("/subscribe", {})
    async with open_house(options(backend, channel=DELTA)) as house:
        client = await house.connected(token=token("42"))
        assert (await client.ask(subscribe={"channel": "news", "delta": "fossil"}))["subscribe"]["delta"] is True
        text = "the same long text, but for one number: "
        for number in range(2):
            await client.ask(publish={"channel": "news", "data": {"text": f"{text}{number}"}})
        pubs = [(await client.push())["pub"] for _ in range(2)]
        assert [pub.get("delta", False) for pub in pubs] == [False, deltas]


# ---- refresh and sub_refresh --------------------------------------------------------------------------------------

SAID = [
    ({"status": 404}, True),
    ({"body": b"{}"}, True),
    ({"body": b'{"error": {"code": 1000, "message": "no"}}'}, True),
    ({"body": b'{"disconnect": {"code": 4500, "reason": "bye"}}'}, True),
    ({"body": b'{"result": {"expired": true}}'}, True),
    ({"body": b'{"result": {"expire_at": 5}}'}, True),
    ({"body": b'{"result": {"expire_at": 9223372036854775808}}'}, False),
    ({"status": 500}, False),
    ({"body": b"<html>"}, False),
]
SAID_IDS = ["transformed", "nothing", "error", "disconnect", "expired", "past", "no-time", "500", "html"]


@pytest.mark.parametrize(("how", "over"), SAID, ids=SAID_IDS)
@pytest.mark.parametrize("kind", ["refresh", "sub_refresh"])
async def test_whether_it_lives_on(
    backend: Backend, kind: str, how: Mapping[str, Any], over: bool, error_log: Any
) -> None:
    """Errors and disconnects of the answer are ignored, and no result is an end; no answer is a minute more."""
    error_log.expect("a hook failed")
    later = {"expire_at": NOW + 1000}
    await backend.answer("/connect", {"result": {"user": "42", "expire_at": NOW + 2}})
    await backend.answer("/subscribe", {"result": {"expire_at": NOW + 2}})
    await backend.answer("/sub_refresh" if kind == "refresh" else "/refresh", {"result": later})
    await backend.answer(f"/{kind}", **how)
    transforms = [{"status_code": 404, "to_error": {"code": 404, "message": "not found"}}]
    async with open_house(everything(backend, {"http": {"status_to_code_transforms": transforms}})) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "news"})
        await trio.sleep(6)
        await client.arrived()
        ended = [unit["push"]["unsubscribe"] for unit in client.units if "unsubscribe" in unit.get("push", {})]
        expired = {"code": 2501, "reason": "subscription expired"}
        assert ended == ([expired] if over and kind == "sub_refresh" else [])
        assert client.closed == ((3005, "connection expired") if over and kind == "refresh" else None)
        assert len(await backend.requests(f"/{kind}")) == 1


async def test_a_subscription_without_another_end_stays(backend: Backend) -> None:
    await backend.answer("/connect", {"result": {"user": "42"}})
    await backend.answer("/subscribe", {"result": {"expire_at": NOW + 2}})
    await backend.answer("/sub_refresh", {"result": {}})
    async with open_house(everything(backend, {})) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "news"})
        await client.nothing(30)
        assert len(await backend.requests("/sub_refresh")) == 1


async def test_what_a_refresh_changes_is_known_from_then_on(backend: Backend) -> None:
    await backend.answer("/connect", {"result": {"user": "42", "expire_at": NOW + 2, "info": 1, "meta": {"m": 1}}})
    await backend.answer("/refresh", {"result": {"expire_at": NOW + 1000, "info": 2, "meta": {"m": 2}}})
    await backend.answer("/rpc", {})
    await backend.answer("/publish", {})
    await backend.answer("/subscribe", {})
    async with open_house(everything(backend, {"include_connection_meta": True})) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "news"})
        await trio.sleep(10)
        await client.ask(rpc={"method": "x"})
        assert (await backend.requests("/rpc"))[0].json()["meta"] == {"m": 2}
        await client.ask(publish={"channel": "news", "data": 1})
        assert (await client.push())["pub"]["info"]["conn_info"] == 2


# ---- options ------------------------------------------------------------------------------------------------------


async def test_the_first_transform_of_a_status_counts(backend: Backend) -> None:
    transforms = [
        {"status_code": 404, "to_disconnect": {"code": 4404, "reason": "first"}},
        {"status_code": 404, "to_error": {"code": 404, "message": "second"}},
        {"status_code": 200, "to_error": {"code": 200, "message": "never"}},
    ]
    async with open_house(options(backend, more={"http": {"status_to_code_transforms": transforms}})) as house:
        client = await house.connected(token=token("42"))
        await backend.answer("/rpc", {"result": {"data": 1}})
        assert (await client.ask(rpc={"method": "x"}))["rpc"] == {"data": 1}
        await backend.answer("/rpc", status=404)
        await client.command(rpc={"method": "x"})
        assert await client.wait_closed() == (4404, "first")


@pytest.mark.parametrize("kind", ["publish", "sub_refresh", "cache_empty"])
async def test_namespaces_name_their_proxies(backend: Backend, kind: str) -> None:
    await backend.answer("/named", {"result": {"expire_at": NOW + 1000} if kind == "sub_refresh" else {}})
    await backend.answer("/default", {"result": {}})
    namespace = {
        "name": "vip",
        "history_size": 1,
        "history_ttl": "60s",
        "force_recovery": True,
        "force_recovery_mode": "cache",
        "auto_cache_recover": True,
        f"{kind}_proxy_enabled": True,
        f"{kind}_proxy_name": "vips",
    }
    file = {
        **secured(client={"expired_sub_close_delay": "500ms", "presence_update_interval": "1s"}),
        "prometheus": {"enabled": True},
        "channel": {"namespaces": [namespace], "proxy": {kind: {"endpoint": backend.url("/default")}}},
        "proxies": [{"name": "vips", "endpoint": backend.url("/named"), "timeout": "600s"}],
    }
    async with open_house(file) as house:
        client = await house.connected(token=token("42"))
        expiry = {"exp": NOW + 2} if kind == "sub_refresh" else {}
        await client.ask(subscribe={"channel": "vip:x", "token": token("42", channel="vip:x", **expiry)})
        await client.ask(publish={"channel": "vip:x", "data": 1})
        await trio.sleep(10)
        assert len(await backend.requests("/named")) == 1
        assert await backend.requests("/default") == []
        metrics = (await house.http("GET", "/metrics")).body.decode()
        labels = f'{{name="vips",protocol="http",type="{kind}"}}'
        assert f"centrifugo_proxy_duration_seconds_count{labels} 1.0" in metrics


UPGRADE = (
    f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n"
)


# ---- who may not ----------------------------------------------------------------------------------------------------


async def test_redirects_lead_nowhere(backend: Backend, error_log: Any) -> None:
    error_log.expect("a hook failed")
    async with open_house(options(backend)) as house:
        client = await house.connected(token=token("42"))
        for status in (300, 301, 302, 303, 305, 307, 308):
            await backend.answer("/elsewhere", {"result": {"data": "secret"}})
            there = {"Location": backend.url("/elsewhere")}
            await backend.answer("/rpc", {"result": {"data": "no"}}, status=status, headers=there)
            assert (await client.ask(rpc={"method": "x"}))["error"] == INTERNAL
            assert len(await backend.requests("/rpc")) == 1
            assert await backend.requests("/elsewhere") == []


@pytest.mark.parametrize(("more", "seen"), [(0, {"rpc": {"data": 1}}), (1, {"error": INTERNAL})])
async def test_an_answer_has_at_most_a_mebibyte(backend: Backend, more: int, seen: Any, error_log: Any) -> None:
    error_log.expect("a hook failed")
    answer = b'{"result": {"data": 1}}'
    await backend.answer("/rpc", body=answer + b" " * ((1 << 20) - len(answer) + more))
    async with open_house(options(backend)) as house:
        client = await house.connected(token=token("42"))
        assert await client.ask(rpc={"method": "x"}) == {"id": 2, **seen}


@pytest.mark.parametrize("path", ["websocket", "http_stream", "sse", "uni_websocket", "uni_http_stream", "uni_sse"])
async def test_a_foreign_page_reaches_no_backend(backend: Backend, path: str) -> None:
    """With cookies that a backend trusts, the list of origins is what keeps other sites out."""
    await backend.answer("/connect", {"result": {"user": "42"}})
    section = with_connect(backend, http_headers=["Cookie"]) | {"allowed_origins": ["https://app.example"]}
    cookie = "Cookie: session=42\r\n"
    socket = "websocket" in path
    body = b"" if socket else b"{}" if path.startswith("uni_") else b'{"id":1,"connect":{}}'
    async with open_house({**options(backend, client=section), **ON}) as house:
        for origin in ("https://evil.example", "null", "https://app.example.evil.example", "http://app.example"):
            headers = f"Origin: {origin}\r\n{cookie}{UPGRADE * socket}"
            stream = await house.open_stream()
            await stream.send_all(request(path, body, method="GET" if socket else "POST", headers=headers))
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 403 ")  # type: ignore[attr-defined]
            await stream.aclose()
        assert await backend.requests("/connect") == []
        headers = f"Origin: https://APP.example\r\n{cookie}"
        if path == "websocket":
            await house.connected(with_headers=headers)
        elif not socket:
            await (await open_stream(house, path, headers=headers)).leave()
        if path != "uni_websocket":
            (asked,) = await backend.requests("/connect")
            assert asked.headers["cookie"] == "session=42"
