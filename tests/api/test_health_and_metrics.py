"""What monitoring asks: health, and metrics under Centrifugo's names (server API §7.1, §7.3)."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.support.api import KEPT, post
from tests.support.peers import open_house, options

pytestmark = pytest.mark.virtual_time


async def test_health() -> None:
    async with open_house({"health": {"enabled": True}}) as house:
        answer = await house.http("GET", "/health")
        assert (answer.status, answer.body) == (200, b"{}")
        assert (await house.http("HEAD", "/health")).status == 200
        assert (await house.http("POST", "/health")).status == 405
    async with open_house({"health": {"enabled": True, "handler_prefix": "/alive/"}}) as house:
        assert (await house.http("GET", "/alive")).status == 200


def samples(text: str) -> Callable[..., float]:
    """A function from a metric's name, without prefix, and its labels to its value."""
    found: dict[tuple[object, ...], float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            key = (name.removeprefix("centrifugo_"), *sorted(re.findall(r'(\w+)="([^"]*)"', labels)))
            found[key] = float(line.rpartition(" ")[2])
    return lambda name, **labels: found[name, *sorted(labels.items())]


async def test_metrics_count_what_happened() -> None:
    rules = {**KEPT, "presence": True, "join_leave": True, "force_recovery": True}
    async with open_house(options(rules, prometheus={"enabled": True})) as house:
        clients = [await house.connected(), await house.connected(name="js", version="1")]
        for client in clients:
            await client.ask(subscribe={"channel": "x", "recover": True})
        await clients[0].ask(publish={"channel": "x", "data": 1})
        await house.api("publish", channel="x", data=2)
        await house.api("publish", channel="x", data=2, idempotency_key="k")
        await house.api("publish", channel="x", data=2, idempotency_key="k")
        await house.api("publish", channel="nope:x", data=2)
        await post(house, "/api/publish", b"nonsense")
        await clients[0].ask(rpc={"method": "any"})
        await clients[1].ask(unsubscribe={"channel": "x"})
        await house.api("unsubscribe", channel="x")
        answer = await house.http("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        get = samples(answer.body.decode())
        assert get("node_num_clients") == 2
        assert get("node_num_users") == 1
        assert get("node_num_subscriptions") == 0
        assert get("node_num_channels") == 0
        assert get("node_num_nodes") == 1
        assert get("node_build", version="6.9.1 OSS") == 1
        ns = {"channel_namespace": ""}
        assert get("node_messages_sent_count", type="publication", **ns) == 3
        assert get("node_messages_sent_count", type="join", **ns) == 2
        assert get("node_messages_sent_count", type="leave", **ns) == 2
        assert get("node_messages_received_count", type="publication", **ns) == 3
        assert get("node_action_count", action="add_presence", **ns) == 2
        assert get("node_action_count", action="remove_presence", **ns) == 2
        assert get("client_command_duration_seconds_count", method="subscribe", **ns) == 2
        assert get("client_num_reply_errors", method="rpc", code="108", **ns) == 1
        assert get("client_num_server_unsubscribes", code="2000", **ns) == 1
        assert get("client_recover", recovered="yes", has_recovered_publications="no", **ns) == 2
        assert get("broker_publish_suppressed_count", reason="idempotency", **ns) == 1
        assert get("api_command_duration_seconds_count", protocol="http", method="publish") == 5
        assert get("api_command_errors_total", protocol="http", method="publish", error="102") == 1
        assert get("api_command_errors_total", protocol="http", method="publish", error="unmarshal") == 1
