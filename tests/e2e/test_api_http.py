"""The server API as plain HTTP: bodies, keys, error modes, and the older forms of `POST /api`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import GetBroker, StartBroker
from tests.e2e.daemon import API_KEY, PEER, Daemon
from tests.e2e.http import request

CONFIG: dict[str, Any] = {
    "channel": {"namespaces": [{"name": "chat", "presence": True, "history_size": 10, "history_ttl": "60s"}]}
}


@pytest.fixture
async def daemon(broker: GetBroker) -> Daemon:
    return await broker(CONFIG)


async def stored(daemon: Daemon, channel: str) -> list[Any]:
    """The payloads in a channel's history, byte for byte as the reply has them."""
    body = (await daemon.post("/api/history", {"channel": channel, "limit": -1})).body.decode()
    publications = body.partition('"publications":[')[2]
    return [part.partition(',"offset"')[0] for part in publications.split('{"data":')[1:]]


async def test_the_shape_of_an_answer(daemon: Daemon, key: str) -> None:
    answer = await daemon.post("/api/publish", {"channel": f"chat:{key}", "data": {"t": "hi"}})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    result = answer.json()["result"]
    assert answer.body == json.dumps({"result": result}, separators=(",", ":")).encode()
    assert result == {"offset": 1, "epoch": result["epoch"]}
    assert (await daemon.api("publish", channel="any", data=1)) == {"result": {}}


async def test_an_error_is_an_answer(daemon: Daemon) -> None:
    answer = await daemon.post("/api/publish", {"channel": "nowhere:x", "data": 1})
    assert (answer.status, answer.json()) == (200, {"error": {"code": 102, "message": "unknown channel"}})


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"X-API-Key": API_KEY}, "", 200),
        ({"Authorization": f"apikey {API_KEY}"}, "", 401),  # two spaces too many: the key has spaces of its own
        ({}, "?api_key=key+of+the+tests", 200),
        ({"X-API-Key": "guessed"}, "?api_key=key%20of%20the%20tests", 200),
        ({"X-API-Key": "guessed"}, "", 401),
        ({"Authorization": "Bearer abc"}, "", 401),
        ({}, "", 401),
        ({}, "?api_key=guessed", 401),
    ],
)
async def test_keys(daemon: Daemon, headers: dict[str, str], query: str, status: int) -> None:
    answer = await request(daemon.port, "POST", f"/api/info{query}", headers, b"{}")
    assert answer.status == status
    if status == 401:
        assert b"nodes" not in answer.body


async def test_the_key_in_the_authorization_header(broker_process: StartBroker) -> None:
    daemon = await broker_process({"http_api": {"key": "plain"}})
    for value, status in (("apikey plain", 200), ("APIKEY plain", 200), ("apikey Plain", 401), ("plain", 401)):
        answer = await request(daemon.port, "POST", "/api/info", {"Authorization": value}, b"{}")
        assert answer.status == status, value


async def test_without_a_key_nobody_comes_in_unless_insecure(broker_process: StartBroker) -> None:
    closed = await broker_process({"http_api": {"key": ""}})
    closed.allow_error("(?i)key")
    assert (await request(closed.port, "POST", "/api/info", {}, b"{}")).status == 401
    insecure = await broker_process({"http_api": {"key": "", "insecure": True}})
    assert (await request(insecure.port, "POST", "/api/info", {}, b"{}")).status == 200


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"channel": "nowhere:x", "data": 1}, 404, 102),
        ({"channel": "", "data": 1}, 400, 107),
        ({"channel": "chat:room", "data": 1}, 200, None),
    ],
)
async def test_transport_error_mode(daemon: Daemon, params: dict[str, Any], status: int, code: int | None) -> None:
    answer = await daemon.post("/api/publish", params, X_Centrifugo_Error_Mode="transport")
    assert answer.status == status
    if code:
        assert answer.json()["code"] == code
    else:
        assert answer.json()["result"]["offset"] == 1


async def test_transport_error_mode_for_all(broker_process: StartBroker, key: str) -> None:
    daemon = await broker_process({**CONFIG, "http_api": {"error_mode": "transport"}})
    assert (await daemon.post("/api/presence", {"channel": "bare"})).status == 400
    since = {"offset": 1, "epoch": "other"}
    assert (await daemon.post("/api/history", {"channel": f"chat:{key}", "limit": 1, "since": since})).status == 416
    answer = await daemon.post("/api/batch", {"commands": [{"publish": {"channel": "nowhere:x", "data": 1}}]})
    assert (answer.status, answer.json()) == (
        200,
        {"replies": [{"error": {"code": 102, "message": "unknown channel"}}]},
    )


async def test_batch(daemon: Daemon, key: str) -> None:
    commands = [
        {"publish": {"channel": f"chat:{key}", "data": 1}},
        {"presence_stats": {"channel": f"chat:{key}"}},
        {"nothing": {}},
        {},
        None,
    ]
    replies = (await daemon.api("batch", commands=commands))["replies"]
    assert replies[0]["publish"]["offset"] == 1
    assert replies[1] == {"presence_stats": {"num_clients": 0, "num_users": 0}}
    assert [reply["error"]["code"] for reply in replies[2:]] == [104, 104, 107]


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b'{"channel": 1}', b'{"channel":"a"', b'"text"'])
async def test_a_body_that_is_no_request(daemon: Daemon, body: bytes) -> None:
    assert (await daemon.post("/api/publish", body)).status == 400


async def test_verbs_and_paths(daemon: Daemon) -> None:
    key = {"X-API-Key": API_KEY}
    assert (await request(daemon.port, "GET", "/api/publish", key)).status == 405
    assert (await request(daemon.port, "POST", "/api/nothing", key, b"{}")).status == 404
    assert (await request(daemon.port, "POST", "/nothing", key, b"{}")).status == 404
    answer = await daemon.get("/health")
    assert (answer.status, answer.json()) == (200, {})


PAYLOADS = [
    '{"a":1,"a":2}',
    "123456789012345678901234567890",
    "1e400",
    '"\\ud800"',
    "null",
    "0.10",
    '{"b":1,"a":{"z":[]}}',
]


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_payloads_pass_byte_for_byte(daemon: Daemon, payload: str, key: str) -> None:
    answer = await daemon.post("/api/publish", f'{{"channel":"chat:{key}","data":{payload}}}'.encode())
    assert answer.json()["result"]["offset"] == 1
    assert await stored(daemon, f"chat:{key}") == [payload]


async def test_missing_data_is_not_null(daemon: Daemon, key: str) -> None:
    assert (await daemon.api("publish", channel=f"chat:{key}"))["error"]["code"] == 107
    assert (await daemon.api("publish", channel=f"chat:{key}", b64data="eyJhIjoxfQ=="))["result"]["offset"] == 1
    assert await stored(daemon, f"chat:{key}") == ['{"a":1}']


async def test_the_older_form_with_a_method(daemon: Daemon, key: str) -> None:
    body = {"id": 7, "method": "publish", "params": {"channel": f"chat:{key}", "data": {"a": 1}}}
    answer = (await daemon.post("/api", body)).json()
    assert (answer["id"], answer["result"]["offset"]) == (7, 1)
    commands = [
        {"method": "presence_stats", "params": {"channel": f"chat:{key}"}},
        {"id": 2, "method": "PUBLISH", "params": {"channel": f"chat:{key}", "data": 2}},
        {"id": 3, "method": 6, "params": {"channel": f"chat:{key}", "limit": 5}},
        {"id": 4, "method": "publish", "params": {"channel": 7}},
    ]
    answer = await daemon.post("/api", "\n".join(map(json.dumps, commands)).encode())
    replies = [json.loads(line) for line in answer.body.decode().split("\n") if line]
    assert replies[0] == {"result": {"num_clients": 0, "num_users": 0}}
    assert (replies[1]["id"], replies[1]["result"]["offset"]) == (2, 2)
    assert [publication["offset"] for publication in replies[2]["result"]["publications"]] == [1, 2]
    assert [(reply["id"], reply["error"]["code"]) for reply in replies[3:]] == [(4, 107)]


@pytest.mark.skipif(bool(PEER), reason="ours alone")
async def test_the_shortest_form(daemon: Daemon, key: str) -> None:
    """`POST /api {"channel": …, "data": …}` publishes: the form of the first examples, which Centrifugo refuses."""
    answer = await daemon.post("/api", f'{{"channel":"chat:{key}","data":{{"short":true}}}}'.encode())
    assert answer.status == 200
    assert answer.json()["result"]["offset"] == 1
    assert await stored(daemon, f"chat:{key}") == ['{"short":true}']


async def test_a_body_that_is_no_command(daemon: Daemon) -> None:
    for body in (b"", b"nonsense", b"{", b'{"method":"no_such"}'):
        assert (await daemon.post("/api", body)).status == 400


async def test_metrics(daemon: Daemon, key: str) -> None:
    await daemon.api("publish", channel=f"chat:{key}", data=1)
    await daemon.api("history", channel=f"chat:{key}")
    text = (await daemon.get("/metrics")).body.decode()
    for name in (
        "node_num_clients",
        "node_num_users",
        "node_num_subscriptions",
        "node_num_channels",
        "node_num_nodes",
        "node_build",
        "node_messages_sent_count",
        "node_messages_received_count",
        "node_action_count",
        "api_command_duration_seconds",
    ):
        assert f"\ncentrifugo_{name}" in text, name
