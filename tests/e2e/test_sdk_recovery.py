"""The official SDKs come back: recovery after a cut, after an unsubscribe, after a restart; deltas; getState."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.e2e.conftest import GetBroker, StartBroker
from tests.e2e.daemon import Daemon
from tests.e2e.relay import Relay
from tests.e2e.sdk import Client, Sdk
from tests.e2e.tokens import token

RECOVERED: dict[str, Any] = {
    "history_size": 100,
    "history_ttl": "300s",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_history_for_subscriber": True,
}
CONFIG: dict[str, Any] = {
    "channel": {
        "namespaces": [
            {"name": "room", **RECOVERED},
            {"name": "small", **RECOVERED, "history_size": 2},
            {"name": "delta", **RECOVERED, "allowed_delta_types": ["fossil"], "delta_publish": True},
            {"name": "latest", **RECOVERED, "history_size": 1, "force_recovery_mode": "cache"},
            {
                "name": "asked",
                "history_size": 10,
                "history_ttl": "300s",
                "allow_recovery": True,
                "allow_positioning": True,
                "allow_subscribe_for_client": True,
            },
        ]
    }
}
RelayTo = Callable[[Daemon], Awaitable[Relay]]


async def publish(daemon: Daemon, channel: str, *data: Any) -> None:
    for item in data:
        assert "error" not in await daemon.api("publish", channel=channel, data=item)


async def received(client: Client, channel: str, count: int) -> list[Any]:
    return [(await client.publication(channel))["data"] for _ in range(count)]


async def test_what_was_missed_while_the_wire_was_cut(sdk: Sdk, broker: GetBroker, key: str, relay_to: RelayTo) -> None:
    daemon = await broker(CONFIG)
    relay = await relay_to(daemon)
    alice = await sdk.connected(relay.websocket, token=token("1"))
    first = await alice.subscribe(f"room:{key}")
    assert (first["recoverable"], first["positioned"], first["was_recovering"]) == (True, True, False)
    await publish(daemon, f"room:{key}", 1, 2)
    assert await received(alice, f"room:{key}", 2) == [1, 2]
    relay.cut()
    await alice.event("subscribing", channel=f"room:{key}")
    await publish(daemon, f"room:{key}", 3, 4, 5)
    relay.mend()
    back = await alice.event("subscribed", channel=f"room:{key}")
    assert (back["was_recovering"], back["recovered"]) == (True, True)
    assert await received(alice, f"room:{key}", 3) == [3, 4, 5]
    await publish(daemon, f"room:{key}", 6)
    assert await received(alice, f"room:{key}", 1) == [6]


async def test_more_was_missed_than_is_kept(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"small:{key}")
    await publish(daemon, f"small:{key}", 1)
    await received(alice, f"small:{key}", 1)
    await alice.disconnect()
    await publish(daemon, f"small:{key}", 2, 3, 4)
    await alice.connect()
    back = await alice.event("subscribed", channel=f"small:{key}")
    assert (back["was_recovering"], back["recovered"]) == (True, False)
    await publish(daemon, f"small:{key}", 5)
    assert await received(alice, f"small:{key}", 1) == [5]  # what is lost stays lost, what is new arrives


async def test_recovery_after_unsubscribe(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"room:{key}")
    await publish(daemon, f"room:{key}", 1)
    await received(alice, f"room:{key}", 1)
    await alice.unsubscribe(f"room:{key}")
    await publish(daemon, f"room:{key}", 2)
    back = await alice.subscribe(f"room:{key}")
    assert (back["was_recovering"], back["recovered"]) == (True, True)
    assert await received(alice, f"room:{key}", 1) == [2]


async def test_an_empty_channel_is_recovered_from_its_first_publication(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"room:{key}")
    await alice.disconnect()
    await publish(daemon, f"room:{key}", 1, 2)
    await alice.connect()
    back = await alice.event("subscribed", channel=f"room:{key}")
    assert back["recovered"] is True
    assert await received(alice, f"room:{key}", 2) == [1, 2]


async def test_a_server_that_asks_to_come_back(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"room:{key}")
    await publish(daemon, f"room:{key}", 1)
    await received(alice, f"room:{key}", 1)
    await daemon.api("disconnect", user="1", disconnect={"code": 3012, "reason": "no pong"})
    back = await alice.event("subscribed", channel=f"room:{key}")
    assert (back["was_recovering"], back["recovered"]) == (True, True)


async def test_server_side_subscriptions_recover_too(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1", subs={f"room:{key}": {}}))
    await alice.event("subscribed", channel=f"room:{key}", server=True)
    await publish(daemon, f"room:{key}", 1)
    assert await received(alice, f"room:{key}", 1) == [1]
    await daemon.api("disconnect", user="1", disconnect={"code": 4000, "reason": "again"})
    await alice.event("connecting", code=4000)
    back = await alice.event("subscribed", channel=f"room:{key}", server=True)
    assert (back["was_recovering"], back["recovered"]) == (True, True)
    await publish(daemon, f"room:{key}", 2)
    assert await received(alice, f"room:{key}", 1) == [2]


async def test_cache_mode_delivers_the_latest(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"latest:{key}")
    await publish(daemon, f"latest:{key}", 1)
    await received(alice, f"latest:{key}", 1)
    await alice.disconnect()
    await publish(daemon, f"latest:{key}", 2, 3, 4)
    await alice.connect()
    assert (await alice.event("subscribed", channel=f"latest:{key}"))["recovered"] is True
    assert await received(alice, f"latest:{key}", 1) == [4]


async def test_flags_on_request(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    plain = await alice.subscribe(f"asked:{key}")
    assert (plain["recoverable"], plain["positioned"]) == (False, False)
    positioned = await alice.subscribe(f"asked:b{key}", positioned=True)
    assert (positioned["recoverable"], positioned["positioned"]) == (False, True)
    recoverable = await alice.subscribe(f"asked:c{key}", recoverable=True)
    assert (recoverable["recoverable"], recoverable["positioned"]) == (True, True)


async def test_a_restarted_memory_engine_is_another_epoch(
    sdk: Sdk, broker: GetBroker, broker_process: StartBroker, key: str, relay_to: RelayTo
) -> None:
    first, second = await broker(CONFIG), await broker_process(CONFIG)
    relay = await relay_to(first)
    alice = await sdk.connected(relay.websocket, token=token("1"))
    await alice.subscribe(f"room:{key}")
    await publish(first, f"room:{key}", 1)
    await received(alice, f"room:{key}", 1)
    relay.cut()
    relay.target = second.outside  # as good as a restart: nothing of the first is known to the second
    await publish(second, f"room:{key}", "x")
    relay.mend()
    back = await alice.event("subscribed", channel=f"room:{key}")
    assert (back["was_recovering"], back["recovered"]) == (True, False)


async def test_deltas(sdk: Sdk, broker: GetBroker, key: str, relay_to: RelayTo) -> None:
    daemon = await broker(CONFIG)
    relay = await relay_to(daemon)
    alice = await sdk.connected(relay.websocket, token=token("1"))
    await alice.subscribe(f"delta:{key}", delta="fossil")
    documents = [{"text": "".join(chr(97 + i * i % 26) for i in range(4000)), "version": n} for n in range(4)]
    relay.sent_to_client.clear()
    await publish(daemon, f"delta:{key}", *documents)
    assert await received(alice, f"delta:{key}", 4) == documents
    size = len(relay.sent_to_client)
    assert 4000 < size < 6000, f"one document in full and three deltas were expected, not {size} bytes"


async def test_deltas_go_on_after_recovery(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"delta:{key}", delta="fossil")
    documents = [{"text": "same long text " * 100, "version": n} for n in range(8)]
    await publish(daemon, f"delta:{key}", *documents[:2])
    assert await received(alice, f"delta:{key}", 2) == documents[:2]
    await alice.disconnect()
    await publish(daemon, f"delta:{key}", *documents[2:6])
    await alice.connect()
    assert (await alice.event("subscribed", channel=f"delta:{key}"))["recovered"] is True
    await publish(daemon, f"delta:{key}", *documents[6:])
    assert await received(alice, f"delta:{key}", 6) == documents[2:]


async def test_state_of_the_application_then_the_stream(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    await publish(daemon, f"room:{key}", 1, 2, 3)
    reply = await daemon.api("history", channel=f"room:{key}")
    epoch = reply["result"]["epoch"]
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing(f"room:{key}", ask_state=True)
    await alice.answer("state_wanted", {"offset": 1, "epoch": epoch})
    await alice.event("subscribed", channel=f"room:{key}")
    assert await received(alice, f"room:{key}", 2) == [2, 3]


async def test_state_from_nothing_delivers_all_that_is_kept(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    await publish(daemon, f"room:{key}", 1, 2, 3)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing(f"room:{key}", ask_state=True)
    await alice.answer("state_wanted", {"offset": 0, "epoch": ""})
    await alice.event("subscribed", channel=f"room:{key}")
    assert await received(alice, f"room:{key}", 3) == [1, 2, 3]


async def test_state_is_loaded_again_when_the_stream_no_longer_reaches_it(
    sdk: Sdk, broker: GetBroker, key: str
) -> None:
    daemon = await broker(CONFIG)
    await publish(daemon, f"small:{key}", 1, 2, 3, 4)
    epoch = (await daemon.api("history", channel=f"small:{key}"))["result"]["epoch"]
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing(f"small:{key}", ask_state=True)
    await alice.answer("state_wanted", {"offset": 1, "epoch": epoch})  # trimmed away: error 112
    await alice.answer("state_wanted", {"offset": 3, "epoch": epoch})
    await alice.event("subscribed", channel=f"small:{key}")
    assert await received(alice, f"small:{key}", 1) == [4]


@pytest.mark.parametrize("rounds", [5])
async def test_publications_while_the_wire_is_cut_again_and_again(
    sdk: Sdk, broker: GetBroker, key: str, relay_to: RelayTo, rounds: int
) -> None:
    """Every offset once and in order, whatever the wire does (P1, P2)."""
    daemon = await broker(CONFIG)
    relay = await relay_to(daemon)
    alice = await sdk.connected(relay.websocket, token=token("1"))
    await alice.subscribe(f"room:{key}")
    total = 0
    for _ in range(rounds):
        await publish(daemon, f"room:{key}", *range(total, total + 5))
        relay.cut()
        await publish(daemon, f"room:{key}", *range(total + 5, total + 10))
        relay.mend()
        total += 10
        assert (await alice.event("subscribed", channel=f"room:{key}"))["recovered"] is True
    offsets = [(await alice.publication(f"room:{key}"))["offset"] for _ in range(total)]
    assert offsets == list(range(1, total + 1))
