"""Every proxy over HTTP against a real backend process: what it is asked, and what clients see of its answers."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from tests.support.backend import Backend
from tests.support.peers import HISTORY, WALL, RawClient, open_house, secured, token

pytestmark = pytest.mark.virtual_time(idle=0.01)

NOW = int(WALL)


def options(
    backend: Backend,
    *,
    more: Mapping[str, Any] | None = None,
    channel: Mapping[str, Any] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """Every event goes to `/<event>` of the backend. `more` are options of every proxy. Timeouts are virtual time:
    long, since real answers take a while."""

    def proxy(event: str) -> dict[str, Any]:
        return {"endpoint": backend.url(f"/{event}"), "timeout": "600s", **(more or {})}

    channels = {
        "without_namespace": {
            "subscribe_proxy_enabled": True,
            "publish_proxy_enabled": True,
            "sub_refresh_proxy_enabled": True,
            **(channel or {}),
        },
        "proxy": {event: proxy(event) for event in ("subscribe", "publish", "sub_refresh")},
    }
    return {
        **secured(client=sections.pop("client", {})),
        "channel": channels,
        "rpc": {"without_namespace": {"proxy_enabled": True}, "proxy": proxy("rpc")},
        **sections,
    }


def with_connect(backend: Backend, **more: Any) -> dict[str, Any]:
    """The `client` section with the connect proxy."""
    return {"proxy": {"connect": {"enabled": True, "endpoint": backend.url("/connect"), "timeout": "600s", **more}}}


def head(client: RawClient, **more: Any) -> dict[str, Any]:
    """What every request begins with."""
    return {"client": client.hello["client"], "transport": "websocket", "protocol": "json", "encoding": "json", **more}


# ---- subscribe ----------------------------------------------------------------------------------------------------


async def test_subscribe_is_asked_and_allowed(backend: Backend) -> None:
    await backend.answer("/subscribe", {"result": {}})
    async with open_house(options(backend)) as house:
        client = await house.connected(token=token("42"))
        reply = await client.ask(subscribe={"channel": "news", "data": {"a": 1}})
        assert reply == {"id": 2, "subscribe": {}}
        (asked,) = await backend.requests("/subscribe")
        assert asked.json() == head(client, user="42", channel="news", data={"a": 1})
        assert list(asked.json()) == ["client", "transport", "protocol", "encoding", "user", "channel", "data"]
        assert asked.headers["content-type"] == "application/json"
        assert (await house.api("presence_stats", channel="news")).get("error", {}).get("code") == 108
        await house.api("publish", channel="news", data={"n": 1})
        assert (await client.push())["pub"]["data"] == {"n": 1}


async def test_subscribe_result_overrides_the_namespace(backend: Backend) -> None:
    result = {
        "expire_at": NOW + 60,
        "b64info": base64.b64encode(b'{"role":"x"}').decode(),
        "info": {"not": "this"},
        "data": {"hello": 1},
        "override": {
            "presence": {"value": True},
            "join_leave": {"value": True},
            "force_push_join_leave": {"value": True},
            "force_recovery": {"value": False},
            "force_positioning": {"value": True},
        },
    }
    await backend.answer("/subscribe", {"result": result})
    async with open_house(options(backend, channel={**HISTORY, "sub_refresh_proxy_enabled": False})) as house:
        client = await house.connected(token=token("42"))
        reply = await client.ask(subscribe={"channel": "news", "recoverable": True})
        given = reply["subscribe"]
        assert given.pop("epoch")
        assert given == {"expires": True, "ttl": 60, "positioned": True, "data": {"hello": 1}}
        joined = await client.push()
        assert joined["join"]["info"] == {"user": "42", "client": client.hello["client"], "chan_info": {"role": "x"}}


async def test_flags_of_the_client_do_not_count(backend: Backend) -> None:
    await backend.answer("/subscribe", {"result": {}})
    allowed = {"history_size": 5, "history_ttl": "60s", "allow_recovery": True, "allow_positioning": True}
    async with open_house(options(backend, channel=allowed)) as house:
        client = await house.connected(token=token("42"))
        reply = await client.ask(subscribe={"channel": "news", "recoverable": True, "positioned": True})
        assert reply == {"id": 2, "subscribe": {}}


async def test_tokens_and_listed_users_are_not_asked_about(backend: Backend) -> None:
    await backend.answer("/subscribe", {"error": {"code": 1000, "message": "never"}})
    async with open_house(options(backend, channel={"allow_user_limited_channels": True})) as house:
        client = await house.connected(token=token("42"))
        by_token = await client.ask(subscribe={"channel": "news", "token": token("42", channel="news")})
        assert "subscribe" in by_token
        assert "subscribe" in await client.ask(subscribe={"channel": "dm#7,42"})
        assert (await client.ask(subscribe={"channel": "dm#7"}))["error"]["code"] == 103
        assert (await client.ask(subscribe={"channel": "$private"}))["error"]["code"] == 103
        assert await backend.requests("/subscribe") == []


# ---- publish ------------------------------------------------------------------------------------------------------


async def test_publish_is_asked_and_goes_out_as_it_is(backend: Backend) -> None:
    await backend.answer("/subscribe", {"result": {}})
    await backend.answer("/publish", {})
    async with open_house(options(backend, channel={**HISTORY})) as house:
        client = await house.connected(token=token("42", info={"name": "A"}))
        await client.ask(subscribe={"channel": "news"})
        assert (await client.ask(publish={"channel": "news", "data": {"text": "hi"}}))["publish"] == {}
        pub = (await client.push())["pub"]
        assert pub["data"] == {"text": "hi"}
        assert pub["offset"] == 1
        assert pub["info"]["conn_info"] == {"name": "A"}
        (asked,) = await backend.requests("/publish")
        assert asked.json() == head(client, user="42", channel="news", data={"text": "hi"})


@pytest.mark.parametrize(
    ("result", "data"),
    [
        ({"data": {"text": "better"}}, {"text": "better"}),
        ({"data": None}, None),
        ({"b64data": base64.b64encode(b"[1]").decode()}, [1]),
        ({"data": [1], "b64data": base64.b64encode(b"[2]").decode()}, [1]),
    ],
    ids=["data", "null", "base64", "data-wins"],
)
async def test_publish_result_replaces_the_data(backend: Backend, result: dict[str, Any], data: Any) -> None:
    await backend.answer("/subscribe", {"result": {}})
    await backend.answer("/publish", {"result": {**result, "tags": {"a": "b"}, "skip_history": True}})
    async with open_house(options(backend, channel={"history_size": 5, "history_ttl": "60s"})) as house:
        client = await house.connected(token=token("42"))
        await client.ask(subscribe={"channel": "news"})
        await client.ask(publish={"channel": "news", "data": {"text": "hi"}})
        pub = (await client.push())["pub"]
        assert pub["data"] == data
        assert pub["tags"] == {"a": "b"}
        assert "offset" not in pub
        history = await house.api("history", channel="news", limit=10)
        assert history["result"]["publications"] == []


async def test_idempotency_and_versions_of_a_publish_result(backend: Backend) -> None:
    await backend.answer("/publish", {"result": {"idempotency_key": "k"}})
    async with open_house(options(backend, channel={"history_size": 5, "history_ttl": "60s"})) as house:
        client = await house.connected(token=token("42"))
        for _ in range(2):
            assert "publish" in await client.ask(publish={"channel": "news", "data": 1})
        await backend.answer("/publish", {"result": {"version": 7, "version_epoch": "e"}})
        for _ in range(2):
            assert "publish" in await client.ask(publish={"channel": "news", "data": 2})
        history = await house.api("history", channel="news", limit=10)
        assert [pub["data"] for pub in history["result"]["publications"]] == [1, 2]


async def test_what_no_rule_allows_is_checked_before_the_backend_is_asked(backend: Backend) -> None:
    await backend.answer("/publish", {})
    async with open_house(options(backend, channel={"publication_data_format": "json_object"})) as house:
        client = await house.connected(token=token("42"))
        assert (await client.ask(publish={"channel": "news", "data": [1]}))["error"]["code"] == 107
        assert (await client.ask(publish={"channel": "nowhere:x", "data": {}}))["error"]["code"] == 102
        assert await backend.requests("/publish") == []


# ---- rpc ----------------------------------------------------------------------------------------------------------


async def test_rpc(backend: Backend) -> None:
    await backend.answer("/rpc", {"result": {"data": {"sum": 3}}})
    async with open_house(options(backend)) as house:
        client = await house.connected(token=token("42"))
        assert (await client.ask(rpc={"method": "sum", "data": [1, 2]}))["rpc"] == {"data": {"sum": 3}}
        (asked,) = await backend.requests("/rpc")
        assert asked.json() == head(client, user="42", method="sum", data=[1, 2])
        await backend.answer("/rpc", {})
        assert (await client.ask(rpc={"method": "sum"}))["rpc"] == {}
        assert "data" not in (await backend.requests("/rpc"))[0].json()


async def test_rpc_namespaces_and_the_built_in_ping(backend: Backend) -> None:
    await backend.answer("/rpc", {"result": {"data": "default"}})
    await backend.answer("/math", {"result": {"data": "math"}})
    rpc = {
        "without_namespace": {"proxy_enabled": False},
        "namespaces": [
            {"name": "math", "proxy_enabled": True, "proxy_name": "calculator"},
            {"name": "quiet"},
            {"name": "other", "proxy_enabled": True},
        ],
        "ping": {"enabled": True, "method": "ping"},
        "proxy": {"endpoint": backend.url("/rpc"), "timeout": "600s"},
    }
    proxies = [{"name": "calculator", "endpoint": backend.url("/math"), "timeout": "600s"}]
    async with open_house({**options(backend, rpc=rpc), "proxies": proxies}) as house:
        client = await house.connected(token=token("42"))
        answers = [
            await client.ask(rpc={"method": method})
            for method in ("math:sum", "other:x", "quiet:x", "nowhere:x", "plain", "ping")
        ]
        assert [each.get("rpc", each.get("error", {}).get("code")) for each in answers] == [
            {"data": "math"},
            {"data": "default"},
            108,
            104,
            108,
            {},
        ]


# ---- connect ------------------------------------------------------------------------------------------------------


async def test_connect(backend: Backend) -> None:
    result = {
        "user": "42",
        "info": {"name": "A"},
        "data": {"welcome": True},
        "channels": ["news"],
        "subs": {"chat": {"info": {"role": "x"}, "data": [1], "override": {"force_recovery": {"value": True}}}},
        "meta": {"role": "admin"},
    }
    await backend.answer("/connect", {"result": result})
    await backend.answer("/rpc", {})
    config = options(
        backend,
        more={"include_connection_meta": True},
        channel=HISTORY | {"force_recovery": False},
        client=with_connect(backend),
    )
    async with open_house(config) as house:
        client = await house.connected(data={"device": 1}, name="js", version="1.2", subs={"mine": {}, "news": {}})
        assert client.hello["data"] == {"welcome": True}
        assert "expires" not in client.hello
        subs = client.hello["subs"]
        assert set(subs) == {"news", "chat"}  # not its own wishes: its backend says what it gets
        assert subs["chat"]["data"] == [1]
        assert subs["chat"]["recoverable"] is True
        assert "recoverable" not in subs["news"]
        (asked,) = await backend.requests("/connect")
        body = asked.json()
        assert body == {
            "client": client.hello["client"],
            "transport": "websocket",
            "protocol": "json",
            "encoding": "json",
            "data": {"device": 1},
            "name": "js",
            "version": "1.2",
            "channels": ["mine", "news"],
        }
        await client.ask(rpc={"method": "x"})
        assert (await backend.requests("/rpc"))[0].json()["meta"] == {"role": "admin"}
        assert (await house.api("info"))["result"]["nodes"][0]["num_users"] == 1


async def test_a_token_beats_the_connect_proxy(backend: Backend) -> None:
    await backend.answer("/connect", {"error": {"code": 1000, "message": "never"}})
    async with open_house(options(backend, client=with_connect(backend))) as house:
        await house.connected(token=token("42"))
        assert await backend.requests("/connect") == []


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ({}, (3501, "bad request")),
        ({"result": None}, (3501, "bad request")),
        ({"disconnect": {"code": 4500, "reason": "bye"}, "error": {"code": 1000, "message": "no"}}, (4500, "bye")),
        ({"error": {"code": 1000, "message": "no"}, "result": {}}, {"code": 1000, "message": "no"}),
        ({"result": {"user": "1", "channels": ["nowhere:x"]}}, {"code": 102, "message": "unknown channel"}),
        ({"result": {"user": "1", "expire_at": NOW - 10}}, {"code": 110, "message": "expired"}),
        (
            {"result": {"user": "1", "b64info": "?"}},
            {"code": 100, "message": "internal server error", "temporary": True},
        ),
    ],
    ids=["empty", "null", "disconnect", "error", "unknown-channel", "expired", "bad-base64"],
)
async def test_connect_refused(backend: Backend, answer: Any, seen: Any, error_log: Any) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/connect", answer)
    async with open_house(options(backend, client=with_connect(backend))) as house:
        client = await house.client()
        if isinstance(seen, tuple):
            await client.command(connect={})
            assert await client.wait_closed() == seen
        else:
            assert (await client.ask(connect={}))["error"] == seen


async def test_without_credentials_the_other_ways_in_remain(backend: Backend) -> None:
    await backend.answer("/connect", {})
    client_section = {**with_connect(backend), "allow_anonymous_connect_without_token": True}
    async with open_house(options(backend, client=client_section)) as house:
        await house.connected()
        assert len(await backend.requests("/connect")) == 1


# ---- refresh ------------------------------------------------------------------------------------------------------


def refreshing(backend: Backend) -> dict[str, Any]:
    section = with_connect(backend)
    section["proxy"]["refresh"] = {
        "enabled": True,
        "endpoint": backend.url("/refresh"),
        "timeout": "600s",
        "include_connection_meta": True,
    }
    return section


async def test_the_server_refreshes_and_the_client_sees_nothing(backend: Backend) -> None:
    await backend.answer("/connect", {"result": {"user": "42", "expire_at": NOW + 30, "meta": {"n": 1}}})
    await backend.answer("/refresh", {"result": {"expire_at": NOW + 90, "info": {"new": 1}, "meta": {"n": 2}}})
    async with open_house(options(backend, client=refreshing(backend))) as house:
        client = await house.connected()
        assert "expires" not in client.hello
        assert "ttl" not in client.hello
        await client.nothing(45)
        (asked,) = await backend.requests("/refresh")
        assert asked.json() == head(client, user="42", meta={"n": 1})
        await client.nothing(44)
        assert await backend.requests("/refresh") == []
        await backend.answer("/refresh", {"result": {"expired": True}})
        assert await client.wait_closed() == (3005, "connection expired")
        assert 90 <= trio.current_time() < 100


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"error": {"code": 1000, "message": "ignored"}},
        {"disconnect": {"code": 4500, "reason": "ignored"}},
        {"result": {}},
        {"result": {"expire_at": NOW - 1}},
    ],
    ids=["empty", "error", "disconnect", "no-time", "past"],
)
async def test_refresh_without_more_time_ends_the_connection(backend: Backend, answer: Any) -> None:
    await backend.answer("/connect", {"result": {"user": "42", "expire_at": NOW + 30}})
    await backend.answer("/refresh", answer)
    async with open_house(options(backend, client=refreshing(backend))) as house:
        client = await house.connected()
        assert await client.wait_closed() == (3005, "connection expired")
        assert 30 <= trio.current_time() < 40


async def test_a_backend_that_fails_gives_a_minute(backend: Backend, error_log: Any) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/connect", {"result": {"user": "42", "expire_at": NOW + 30}})
    await backend.answer("/refresh", status=500)
    async with open_house(options(backend, client=refreshing(backend))) as house:
        client = await house.connected()
        await client.nothing(60)
        assert len(await backend.requests("/refresh")) == 1
        await backend.answer("/refresh", {"result": {"expired": True}})
        await client.wait_closed()
        assert 90 <= trio.current_time() < 100


async def test_clients_do_not_refresh_where_the_server_does(backend: Backend) -> None:
    async with open_house(options(backend, client=refreshing(backend))) as house:
        client = await house.connected(token=token("42", exp=NOW + 300))
        assert "expires" not in client.hello
        await client.command(refresh={"token": token("42", exp=NOW + 600)})
        assert await client.wait_closed() == (3501, "bad request")


# ---- sub refresh --------------------------------------------------------------------------------------------------


async def test_the_server_refreshes_subscriptions(backend: Backend, error_log: Any) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/subscribe", {"result": {"expire_at": NOW + 30}})
    await backend.answer("/sub_refresh", {"result": {"expire_at": NOW + 120, "info": {"new": 1}}})
    config = options(backend, channel={"presence": True}, client={"expired_sub_close_delay": "1s"})
    async with open_house(config) as house:
        client = await house.connected(token=token("42"))
        assert (await client.ask(subscribe={"channel": "news"}))["subscribe"] == {}  # no ttl: the client does nothing
        await client.nothing(70)
        (asked,) = await backend.requests("/sub_refresh")
        assert asked.json() == head(client, user="42", channel="news")
        present = await house.api("presence", channel="news")
        assert present["result"]["presence"][client.hello["client"]]["chan_info"] == {"new": 1}
        await backend.answer("/sub_refresh", status=500)
        await client.nothing(100)
        assert await backend.requests("/sub_refresh")
        await backend.answer("/sub_refresh", {"result": {"expired": True}})
        push = await client.push()
        assert push == {"channel": "news", "unsubscribe": {"code": 2501, "reason": "subscription expired"}}


# ---- an empty cache -----------------------------------------------------------------------------------------------

CACHE = {
    "history_size": 1,
    "history_ttl": "60s",
    "force_recovery": True,
    "force_recovery_mode": "cache",
    "auto_cache_recover": True,
    "allow_subscribe_for_client": True,
    "subscribe_proxy_enabled": False,
    "cache_empty_proxy_enabled": True,
}


def caching(backend: Backend) -> dict[str, Any]:
    config = options(backend, channel=CACHE)
    config["channel"]["proxy"]["cache_empty"] = {"endpoint": backend.url("/cache_empty"), "timeout": "600s"}
    return config


async def test_the_backend_fills_an_empty_cache(backend: Backend) -> None:
    await backend.answer("/cache_empty", {"result": {"populated": True}}, delay=0.1)
    async with open_house(caching(backend)) as house:
        client = await house.connected(token=token("42"))
        await client.command(subscribe={"channel": "news"})
        await house.api("publish", channel="news", data={"filled": True})  # while the question is under way
        given = (await client.next())["subscribe"]
        assert [pub["data"] for pub in given["publications"]] == [{"filled": True}]
        (asked,) = await backend.requests("/cache_empty")
        assert asked.json() == {"channel": "news"}
        later = await house.connected(token=token("43"))
        assert "publications" in (await later.ask(subscribe={"channel": "news"}))["subscribe"]
        assert await backend.requests("/cache_empty") == []


@pytest.mark.parametrize(
    "how",
    [
        {"body": b'{"result": {"populated": false}}'},
        {"body": b'{"error": {"code": 1000, "message": "ignored"}}'},
        {"body": b'{"disconnect": {"code": 4500, "reason": "ignored"}}'},
        {"body": b"{}"},
        {"status": 500},
    ],
    ids=["no", "error", "disconnect", "nothing", "fails"],
)
async def test_a_cache_that_stays_empty(backend: Backend, how: dict[str, Any], error_log: Any) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/cache_empty", **how)
    async with open_house(caching(backend)) as house:
        client = await house.connected(token=token("42"))
        given = (await client.ask(subscribe={"channel": "news"}))["subscribe"]
        assert "publications" not in given
        assert len(await backend.requests("/cache_empty")) == 1


# ---- how it travels -----------------------------------------------------------------------------------------------


async def test_binary_encoding(backend: Backend) -> None:
    await backend.answer("/rpc", {"result": {"b64data": base64.b64encode(b"\x00\xff").decode()}})
    async with open_house(options(backend, more={"binary_encoding": True})) as house:
        client = await house.connected(protobuf=True, token=token("42"))
        reply = await client.ask(rpc={"method": "x", "data": b"\xfe\x00"})
        assert reply["rpc"]["data"] == b"\x00\xff"
        (asked,) = await backend.requests("/rpc")
        assert asked.json() == {
            "client": client.hello["client"],
            "transport": "websocket",
            "protocol": "protobuf",
            "encoding": "binary",
            "user": "42",
            "method": "x",
            "b64data": base64.b64encode(b"\xfe\x00").decode(),
        }


async def test_payloads_that_are_no_json_need_binary_encoding(backend: Backend, error_log: Any) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/rpc", {})
    async with open_house(options(backend)) as house:
        client = await house.connected(protobuf=True, token=token("42"))
        assert (await client.ask(rpc={"method": "x", "data": b"\xfe\x00"}))["error"]["code"] == 100
        assert await backend.requests("/rpc") == []


async def test_headers_the_later_over_the_earlier(backend: Backend) -> None:
    await backend.answer("/connect", {"result": {"user": "1"}})
    await backend.answer("/rpc", {})
    how = {
        "http_headers": ["X-Real", "Cookie", "Host", "X-Absent"],
        "emulated_headers": ["x-real", "X-Token", "x-other"],
        "http": {
            "static_headers": {"X-Real": "static", "X-Key": "secret", "X-Other": "static", "Content-Type": "text/x"}
        },
    }
    config = options(backend, more=how, client=with_connect(backend, **how))
    async with open_house(config) as house:
        client = await house.connected(
            with_headers="X-Real: transport\r\nCookie: a=b\r\nCookie: c=d\r\nX-Secret: no\r\n",
            headers={"X-REAL": "emulated", "x-token": "t", "cookie": "stolen", "X-Secret": "no"},
        )
        await client.ask(rpc={"method": "x"})
        for path in ("/connect", "/rpc"):
            (asked,) = await backend.requests(path)
            headers = dict(asked.headers)
            assert headers.pop("host") == f"127.0.0.1:{backend.port}"
            assert headers.pop("user-agent") == "trio-broker"
            headers.pop("content-length")
            assert headers == {
                "content-type": "application/json",
                "x-real": "transport",
                "cookie": "a=b; c=d",
                "x-token": "t",
                "x-other": "static",
                "x-key": "secret",
            }


async def test_an_emulated_header_cannot_end_the_line(backend: Backend, error_log: Any) -> None:
    error_log.expect("control character")
    await backend.answer("/connect", {"result": {"user": "1"}})
    async with open_house(options(backend, client=with_connect(backend, emulated_headers=["x-token"]))) as house:
        client = await house.client()
        reply = await client.ask(connect={"headers": {"x-token": "t\r\nX-Admin: 1"}})
        assert reply["error"]["code"] == 100
        assert await backend.requests("/connect") == []


async def test_status_to_code_transforms(backend: Backend, error_log: Any) -> None:
    error_log.expect("status 418")
    transforms = [
        {"status_code": 404, "to_error": {"code": 404, "message": "not found", "temporary": True}},
        {"status_code": 403, "to_disconnect": {"code": 4403, "reason": "forbidden"}},
    ]
    async with open_house(options(backend, more={"http": {"status_to_code_transforms": transforms}})) as house:
        client = await house.connected(token=token("42"))
        await backend.answer("/rpc", status=404)
        assert (await client.ask(rpc={"method": "x"}))["error"] == {
            "code": 404,
            "message": "not found",
            "temporary": True,
        }
        await backend.answer("/rpc", status=418)
        assert (await client.ask(rpc={"method": "x"}))["error"]["code"] == 100
        await backend.answer("/rpc", status=403)
        await client.command(rpc={"method": "x"})
        assert await client.wait_closed() == (4403, "forbidden")


async def test_named_proxies(backend: Backend) -> None:
    await backend.answer("/subscribe", {"result": {"data": "default"}})
    await backend.answer("/vip", {"result": {"data": "vip"}})
    base = options(backend)
    base["channel"]["namespaces"] = [{"name": "vip", "subscribe_proxy_enabled": True, "subscribe_proxy_name": "vips"}]
    base["proxies"] = [{"name": "vips", "endpoint": backend.url("/vip"), "timeout": "600s"}]
    async with open_house(base) as house:
        client = await house.connected(token=token("42"))
        assert (await client.ask(subscribe={"channel": "vip:x"}))["subscribe"]["data"] == "vip"
        assert (await client.ask(subscribe={"channel": "x"}))["subscribe"]["data"] == "default"


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (b'{"Result": {"DATA": {"Kept": 1}, "unknown": {"x": 1}}}', {"rpc": {"data": {"Kept": 1}}}),
        (b'{"ERROR": {"Code": 1000, "message": "no"}}', {"error": {"code": 1000, "message": "no"}}),
        (b'{"result": {"data": 1}, "trace": "of no concern"}', {"rpc": {"data": 1}}),
    ],
    ids=["result", "error", "unknown"],
)
async def test_keys_in_any_case_and_unknown_ones(backend: Backend, answer: bytes, seen: Any) -> None:
    await backend.answer("/rpc", body=answer)
    async with open_house(options(backend)) as house:
        client = await house.connected(token=token("42"))
        assert await client.ask(rpc={"method": "x"}) == {"id": 2, **seen}


async def test_keys_of_subscriptions_in_any_case(backend: Backend) -> None:
    override = {"Force_Positioning": {"Value": True}}
    result = {"User": "42", "Subs": {"News": {"Data": {"Kept": 1}, "Override": override}, "news": None}}
    await backend.answer("/connect", {"result": result})
    async with open_house(options(backend, client=with_connect(backend))) as house:
        client = await house.connected()
        (name,) = client.hello["subs"]
        assert name == "News"  # a channel is no key
        assert client.hello["subs"]["News"]["data"] == {"Kept": 1}
        assert client.hello["subs"]["News"]["positioned"] is True


async def test_calls_are_counted(backend: Backend, error_log: Any) -> None:
    error_log.expect("a hook failed")
    await backend.answer("/rpc", {"error": {"code": 1, "message": "no"}})
    async with open_house({**options(backend), "prometheus": {"enabled": True}}) as house:
        client = await house.connected(token=token("42"))
        await client.ask(rpc={"method": "x"})
        await backend.answer("/rpc", status=500)
        await client.ask(rpc={"method": "x"})
        text = (await house.http("GET", "/metrics")).body.decode()
        labels = '{name="default",protocol="http",type="rpc"}'
        assert f"centrifugo_proxy_duration_seconds_count{labels} 2.0" in text
        assert f"centrifugo_proxy_errors{labels} 1.0" in text
        assert f"centrifugo_proxy_inflight_requests{labels} 0.0" in text
