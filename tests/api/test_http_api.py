"""The server API over HTTP: batches, the older forms, keys, error modes, paths (server API §2.1)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.conftest import ErrorLog
from tests.support.api import ALL, BAD, INTERNAL, NOT_FOUND, OK, UNAVAILABLE, UNKNOWN, post
from tests.support.peers import open_house
from tests.support.slow_engine import Gates

pytestmark = pytest.mark.virtual_time


# ---- batches ------------------------------------------------------------------------------------------------------


async def test_a_batch_answers_each_command_in_order() -> None:
    commands = [
        {"publish": {"channel": "kept:x", "data": 1}},
        {"history": {"channel": "kept:x", "limit": 1}},
        {"publish": {"channel": "nope:x", "data": 1}},
        {"presence": {"channel": "seen:x"}},
        {"disconnect": {"user": "42"}},
        {"publish": None},
        {"fly": {}},
        {},
        None,
    ]
    async with open_house(ALL) as house:
        for parallel in ({}, {"parallel": True}, {"parallel": None}):
            answer = await post(house, "/api/batch", {"commands": commands, **parallel})
            assert set(answer.json()) == {"replies"}  # without `result`
            replies = answer.json()["replies"]
            assert replies[0]["publish"]["offset"] >= 1
            assert replies[1]["history"]["publications"] == [{"data": 1, "offset": 1}]
            assert replies[2:] == [
                UNKNOWN,
                {"presence": {"presence": {}}},
                {"disconnect": {}},
                NOT_FOUND,
                NOT_FOUND,
                NOT_FOUND,
                BAD,
            ]
        for empty in ({}, {"commands": []}, {"commands": None}):
            assert (await post(house, "/api/batch", empty)).json() == {"replies": []}


@pytest.mark.parametrize("data", [{"Text": "Hi"}, None])
async def test_keys_count_in_any_case(data: Any) -> None:
    """As a backend in C# writes them."""
    publish = {"Channel": "kept:x", "Data": data, "Tags": {"Key": "V"}, "Other": 1}
    async with open_house(ALL) as house:
        assert (await post(house, "/api/publish", publish)).json()["result"]["offset"] == 1
        batch = {"Commands": [{"Publish": publish}, {"HISTORY": {"channel": "kept:x", "Limit": 2, "x": {}}}]}
        first, second = (await post(house, "/api/batch", batch)).json()["replies"]
        assert first["publish"]["offset"] == 2
        one = {"data": data, "tags": {"Key": "V"}}
        assert second["history"]["publications"] == [one | {"offset": 1}, one | {"offset": 2}]
        legacy = {"Method": "broadcast", "Params": {"Channels": ["kept:x"], "DATA": data}}
        (third,) = (await post(house, "/api", legacy)).json()["result"]["responses"]
        assert third["result"]["offset"] == 3


# ---- the older forms ----------------------------------------------------------------------------------------------


async def test_one_path_for_all() -> None:
    async with open_house(ALL) as house:
        for body, reply in (
            ({"id": 7, "method": "publish", "params": {"channel": "x", "data": 1}}, {"id": 7, **OK}),
            ({"method": "PUBLISH", "params": {"channel": "x", "data": 1}}, OK),
            ({"method": 0, "params": {"channel": "x", "data": 1}}, OK),
            ({"params": {"channel": "x", "data": 1}}, OK),
            ({"channel": "x", "data": 1}, OK),
            ({"channel": "x", "b64data": "MQ=="}, OK),
            ({"method": "channels"}, {"result": {"channels": {}}}),
            ({"method": 8, "params": {}}, {"result": {"channels": {}}}),
            ({"id": 1, "method": 14, "params": {}}, {"id": 1, **NOT_FOUND}),
            ({"id": 1, "method": 9999}, {"id": 1, **NOT_FOUND}),
            ({"id": 2, "method": "publish", "params": {"channel": 5}}, {"id": 2, **BAD}),
            ({"id": 2, "method": "publish", "params": "text"}, {"id": 2, **BAD}),
            ({"id": 3, "method": "presence", "params": {"channel": "nope:x"}}, {"id": 3, **UNKNOWN}),
            ({}, BAD),
        ):
            answer = await post(house, "/api", body)
            assert (answer.status, answer.json()) == (200, reply), body


@pytest.mark.parametrize("between", ["", "\n", " \r\n\t", "\n\n"])
async def test_many_commands_in_one_body(between: str) -> None:
    commands = [
        {"id": 1, "method": "publish", "params": {"channel": "kept:x", "data": "{}"}},
        {"id": 2, "method": "history", "params": {"channel": "kept:x", "limit": 1}},
        {"method": "presence", "params": {"channel": "x"}},
    ]
    async with open_house(ALL) as house:
        answer = await post(house, "/api", between.join(map(json.dumps, commands)).encode() + b"\n")
        replies = [json.loads(line) for line in answer.body.split(b"\n")]
        assert [reply.get("id") for reply in replies] == [1, 2, None]
        assert replies[1]["result"]["publications"] == [{"data": "{}", "offset": 1}]
        assert replies[2] == UNAVAILABLE


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n ",
        b"nonsense",
        b"[]",
        b"1",
        b'{"method":"fly"}',
        b'{"method":true}',
        b'{"id":-1,"method":"info"}',
        b'{"method":"publish","params":{"channel":"x","data":1}}{',
        b'{"channel":"x","data":1}\n{"method":"fly"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_no_command_does_nothing(body: bytes) -> None:
    async with open_house(ALL) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "x"})
        assert (await post(house, "/api", body)).status == 400
        await client.nothing()


# ---- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        ({"X-API-Key": "right"}, "", 200),
        ({"x-api-key": "right"}, "", 200),
        ({"X-API-Key": "wrong"}, "", 401),
        ({"X-API-Key": "rightt"}, "", 401),
        ({"X-API-Key": "größe"}, "", 401),
        ({"Authorization": "apikey right"}, "", 200),
        ({"Authorization": "ApiKey   right"}, "", 200),
        ({"Authorization": "apikey wrong"}, "", 401),
        ({"Authorization": "Bearer right"}, "", 401),
        ({"Authorization": "apikey right more"}, "", 401),
        ({"Authorization": "right"}, "", 401),
        ({"X-API-Key": "wrong", "Authorization": "apikey right"}, "", 401),
        ({"X-API-Key": "right", "Authorization": "apikey wrong"}, "", 200),
        ({"X-API-Key": ""}, "", 401),
        ({}, "?api_key=right", 200),
        ({}, "?api_key=ri%67ht", 200),
        ({}, "?other=1&api_key=right", 200),
        ({}, "?api_key=wrong", 401),
        ({}, "?api_key=", 401),
        ({}, "?api_key", 401),
        ({}, "?api_key=%ff", 401),
        ({}, "?api_key=wrong&api_key=right", 401),
        ({"X-API-Key": "wrong"}, "?api_key=right", 200),
        ({"Authorization": "apikey wrong"}, "?api_key=right", 200),
    ],
)
async def test_keys(headers: dict[str, str], query: str, status: int) -> None:
    async with open_house({"http_api": {"key": "right"}}) as house:
        for path in ("/api/info", "/api/batch", "/api"):
            answer = await house.http("POST", path + query, b'{"method":"info"}', headers)
            assert answer.status == status
            assert status == 200 or answer.body == b""


async def test_without_a_key_nobody_comes_in(error_log: ErrorLog) -> None:
    error_log.expect("no http_api.key is set")
    async with open_house({}) as house:
        for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "anything"}, {"Authorization": "apikey "}):
            assert (await house.http("POST", "/api/info", b"{}", headers)).status == 401
        assert (await house.http("POST", "/api/info?api_key=", b"{}")).status == 401


# ---- errors as statuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["option", "header"])
@pytest.mark.parametrize(
    ("method", "params", "status", "code"),
    [
        ("publish", {"channel": "nope:x", "data": 1}, 404, 102),
        ("rpc", {"method": "x"}, 404, 104),
        ("publish", {"channel": "x"}, 400, 107),
        ("presence", {"channel": "x"}, 400, 108),
        ("history", {"channel": "kept:x", "since": {"epoch": "other"}}, 416, 112),
        ("publish", {"channel": "x", "data": 1}, 200, 0),
    ],
)
async def test_errors_as_statuses(by: str, method: str, params: dict[str, Any], status: int, code: int) -> None:
    mode = {"http_api": {"insecure": True, "error_mode": "transport"}} if by == "option" else {}
    headers = {"X_Centrifugo_Error_Mode": "transport"} if by == "header" else {}
    async with open_house(ALL | mode) as house:
        answer = await post(house, f"/api/{method}", params, **headers)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
        if code:
            assert set(answer.json()) == {"code", "message"}
            assert answer.json()["code"] == code
        else:
            assert answer.json() == OK
        batch = await post(house, "/api/batch", {"commands": [{method: params}]}, **headers)
        assert batch.status == 200


async def test_other_modes_are_none() -> None:
    async with open_house(ALL) as house:
        answer = await post(house, "/api/publish", {"channel": "nope:x", "data": 1}, X_Centrifugo_Error_Mode="other")
        assert (answer.status, answer.json()) == (200, UNKNOWN)


async def test_an_engine_that_fails(error_log: ErrorLog) -> None:
    error_log.expect("the engine failed an API call")
    gates = Gates()
    async with open_house(ALL, pace=gates) as house:
        gates.failing = {"publish", "history", "remove_history", "clients", "stats"}
        for method, params in (
            ("publish", {"channel": "x", "data": 1}),
            ("history", {"channel": "kept:x"}),
            ("history_remove", {"channel": "kept:x"}),
            ("presence", {"channel": "seen:x"}),
            ("presence_stats", {"channel": "seen:x"}),
        ):
            assert await house.api(method, **params) == INTERNAL
            answer = await post(house, f"/api/{method}", params, X_Centrifugo_Error_Mode="transport")
            assert answer.status == 500
        responses = (await house.api("broadcast", channels=["a", "b"], data=1))["result"]["responses"]
        assert responses == [INTERNAL, INTERNAL]
        replies = (await post(house, "/api/batch", {"commands": [{"publish": {"channel": "x", "data": 1}}]})).json()
        assert replies == {"replies": [INTERNAL]}


async def test_an_engine_that_is_away_is_told_of_now_and_then(
    error_log: ErrorLog, caplog: pytest.LogCaptureFixture
) -> None:
    """A line at first, then one in ten seconds that says how many calls failed; the metric has each of them."""
    error_log.expect("the engine failed an API call")
    gates = Gates()
    async with open_house(ALL, pace=gates) as house:
        gates.failing = {"publish"}

        async def fail(calls: int) -> list[str]:
            caplog.clear()
            for _ in range(calls):
                assert await house.api("publish", channel="x", data=1) == INTERNAL
            return [record.getMessage() for record in caplog.records if "engine failed" in record.getMessage()]

        (line,) = await fail(500)
        assert "method='publish'" in line
        assert "error='as the test wants it'" in line
        assert "calls_since_last_told=1" in line
        await trio.sleep(10)
        (line,) = await fail(500)
        assert "calls_since_last_told=500" in line  # 499 of before, and this one
        assert house.server.node.counters.api_errors["http", "publish", "100"] == 1000


# ---- paths and verbs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/info", 405),
        ("PUT", "/api/info", 405),
        ("GET", "/api", 405),
        ("POST", "/api/fly", 404),
        ("POST", "/api/", 404),
        ("POST", "/api/info/", 404),
        ("POST", "/API/info", 404),
        ("POST", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/health", 404),
        ("GET", "/metrics", 404),
    ],
)
async def test_paths_and_verbs(method: str, path: str, status: int) -> None:
    async with open_house(ALL) as house:
        assert (await house.http(method, path, b"{}")).status == status


@pytest.mark.parametrize(
    ("prefix", "path"), [("/v6/api", "/v6/api/info"), ("/v6/api/", "/v6/api/info"), ("/", "/info")]
)
async def test_a_prefix_of_ones_own(prefix: str, path: str) -> None:
    async with open_house({"http_api": {"insecure": True, "handler_prefix": prefix}}) as house:
        assert (await house.http("POST", path, b"{}")).status == 200
        assert (await house.http("POST", "/api/info", b"{}")).status == 404


async def test_the_api_can_be_off() -> None:
    async with open_house({"http_api": {"insecure": True, "disabled": True}}) as house:
        assert (await house.http("POST", "/api/info", b"{}")).status == 404
        assert (await house.http("POST", "/api", b"{}")).status == 404


async def test_a_body_that_is_too_large_is_refused_by_its_length() -> None:
    async with open_house(ALL) as house:
        stream = await house.open_stream()
        length = (64 << 20) + 1
        await stream.send_all(b"POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % length)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 413 ")
        await stream.aclose()


async def test_one_connection_for_many_calls() -> None:
    async with open_house(ALL) as house:
        stream = await house.open_stream()
        call = b'POST /api/publish HTTP/1.1\r\nHost: t\r\nContent-Length: 24\r\n\r\n{"channel":"x","data":1}'
        await stream.send_all(call * 3)
        answers = b""
        while answers.count(b'{"result":{}}') < 3:
            answers += await stream.receive_some()
        await stream.aclose()
