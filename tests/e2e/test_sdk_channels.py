"""The official SDKs in channels: publish and receive, permissions, presence, history, join and leave, tokens."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.conftest import StartBroker
from tests.e2e.sdk import Sdk, SdkError
from tests.e2e.tokens import token

CHAT: dict[str, Any] = {
    "name": "chat",
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "history_size": 10,
    "history_ttl": "60s",
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_presence_for_subscriber": True,
    "allow_history_for_subscriber": True,
}
CONFIG: dict[str, Any] = {
    "channel": {"namespaces": [CHAT, {"name": "closed"}, {"name": "bare", "allow_subscribe_for_client": True}]}
}


async def test_one_publishes_and_all_receive(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1", info={"name": "Alice"}))
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2"))
    for client in (alice, bob):
        await client.subscribe("chat:room")
    data = {"text": "<b>Grüße & 你好</b>", "nested": [1, 2.5, None, {"a": True}]}
    await alice.publish("chat:room", data)
    for client in (alice, bob):
        publication = await client.publication("chat:room")
        assert publication["data"] == data
        assert publication["offset"] == 1
        assert publication["info"]["user"] == "1"
        assert publication["info"]["client"] == alice.id
        assert publication["info"]["conn_info"] == {"name": "Alice"}


async def test_publications_of_the_api_carry_tags_and_no_client(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe("chat:room")
    await daemon.api("publish", channel="chat:room", data={"n": 1}, tags={"kind": "news"})
    publication = await alice.publication("chat:room")
    assert publication["tags"] == {"kind": "news"}
    assert publication.get("info") is None


async def test_ten_thousand_in_order(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(
        {"channel": {"namespaces": [CHAT | {"history_size": 100, "force_positioning": True}]}}
    )
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe("chat:room")
    commands = [{"publish": {"channel": "chat:room", "data": number}} for number in range(100)]
    for _ in range(100):
        await daemon.api("batch", commands=commands)
    received = [await alice.publication("chat:room") for _ in range(10_000)]
    assert [publication["offset"] for publication in received] == list(range(1, 10_001))
    assert [publication["data"] for publication in received] == list(range(100)) * 100


@pytest.mark.parametrize(
    ("channel", "code"),
    [("nowhere:room", 102), ("closed:room", 103), ("chat:" + "x" * 255, 107), ("$chat:room", 103), ("chat:ключ", 107)],
)
async def test_a_refused_subscription(sdk: Sdk, broker_process: StartBroker, channel: str, code: int) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing(channel)
    assert (await alice.event("unsubscribed", channel=channel))["code"] == code
    await alice.subscribe("chat:room")  # and the connection lives on


@pytest.mark.parametrize(
    ("channel", "code"), [("nowhere:room", 102), ("closed:room", 103), ("chat:room", 103), ("bare:room", 103)]
)
async def test_a_refused_publication(sdk: Sdk, broker_process: StartBroker, channel: str, code: int) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    with pytest.raises(SdkError) as refused:
        await alice.publish(channel, {})
    assert refused.value.code == code


@pytest.mark.parametrize(("channel", "code"), [("nowhere:room", 102), ("bare:room", 108), ("chat:room", 103)])
async def test_refused_queries(sdk: Sdk, broker_process: StartBroker, channel: str, code: int) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    for query in (alice.presence, alice.presence_stats, alice.history):
        with pytest.raises(SdkError) as refused:
            await query(channel)
        assert refused.value.code == code


async def test_presence(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1", info={"name": "Alice"}))
    again = await sdk.connected(daemon.websocket, "again", token=token("1"))
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2"))
    for client in (alice, again, bob):
        await client.subscribe("chat:room")
    present = await bob.presence("chat:room")
    assert {client: info["user"] for client, info in present.items()} == {alice.id: "1", again.id: "1", bob.id: "2"}
    assert present[alice.id]["conn_info"] == {"name": "Alice"}
    assert await bob.presence_stats("chat:room") == {"num_clients": 3, "num_users": 2}
    await again.unsubscribe("chat:room")
    await alice.disconnect()
    await bob.event("leave", channel="chat:room")
    await bob.event("leave", channel="chat:room")
    assert await bob.presence_stats("chat:room") == {"num_clients": 1, "num_users": 1}


async def test_join_and_leave(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1"))
    await alice.subscribe("chat:room")
    assert (await alice.event("join", channel="chat:room"))["info"]["client"] == alice.id  # one's own, after the reply
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2", info={"name": "Bob"}))
    await bob.subscribe("chat:room")
    joined = await alice.event("join", channel="chat:room")
    assert (joined["info"]["client"], joined["info"]["conn_info"]) == (bob.id, {"name": "Bob"})
    await bob.unsubscribe("chat:room")
    left = await alice.event("leave", channel="chat:room")
    assert left["info"]["client"] == bob.id
    assert bob.seen("leave") == []  # who leaves does not hear it


async def test_join_and_leave_on_request(sdk: Sdk, broker_process: StartBroker) -> None:
    quiet = {name: value for name, value in CHAT.items() if name != "force_push_join_leave"}
    daemon = await broker_process({"channel": {"namespaces": [quiet]}})
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1"))
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2"))
    await alice.subscribe("chat:room", join_leave=True)
    await bob.subscribe("chat:room")
    await alice.event("join", channel="chat:room")
    assert (await alice.event("join", channel="chat:room"))["info"]["client"] == bob.id
    await bob.publish("chat:room", 1)
    await bob.publication("chat:room")
    assert bob.seen("join") == []


async def test_history(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe("chat:room")
    for number in range(1, 13):
        await alice.publish("chat:room", {"n": number})

    async def offsets(**options: Any) -> list[int]:
        history = await alice.history("chat:room", **options)
        assert history["offset"] == 12
        return [publication["offset"] for publication in history["publications"]]

    epoch = (await alice.history("chat:room"))["epoch"]
    assert len(epoch) == 8
    assert await offsets() == []
    assert await offsets(limit=-1) == list(range(3, 13))  # the two oldest were trimmed
    assert await offsets(limit=2) == [3, 4]
    assert await offsets(limit=2, reverse=True) == [12, 11]
    assert await offsets(limit=3, since={"offset": 5, "epoch": epoch}) == [6, 7, 8]
    assert await offsets(limit=2, since={"offset": 5, "epoch": epoch}, reverse=True) == [4, 3]
    with pytest.raises(SdkError) as refused:
        await alice.history("chat:room", limit=1, since={"offset": 5, "epoch": "long ago"})
    assert refused.value.code == 112
    first = (await alice.history("chat:room", limit=1))["publications"][0]
    assert first["data"] == {"n": 3}
    assert first["info"]["client"] == alice.id


async def test_history_of_an_empty_channel(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe("chat:room")
    history = await alice.history("chat:room", limit=100)
    assert (history["publications"], history["offset"]) == ([], 0)
    assert history["epoch"]


async def test_a_subscription_token(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    subscription = token("1", channel="closed:room", info={"role": "admin"})
    await alice.subscribe("closed:room", token=subscription)
    await daemon.api("publish", channel="closed:room", data=1)
    assert (await alice.publication("closed:room"))["data"] == 1


async def test_a_private_channel_asks_for_a_token(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing("$chat:secret", ask_token=True)
    await alice.answer("token_wanted", token("1", channel="$chat:secret"), channel="$chat:secret")
    await alice.event("subscribed", channel="$chat:secret")


async def test_a_wrong_subscription_token_is_permission_denied(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing("closed:room", token=token("1", channel="closed:room", secret="guessed"))
    assert (await alice.event("unsubscribed", channel="closed:room"))["code"] == 103


@pytest.mark.parametrize("claims", [{"sub": "2", "channel": "closed:room"}, {"sub": "1", "channel": "closed:other"}])
async def test_another_ones_subscription_token_ends_the_connection(
    sdk: Sdk, broker_process: StartBroker, claims: dict[str, str]
) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing("closed:room", token=token(**claims))
    assert (await alice.event("disconnected"))["code"] == 3500


async def test_an_expired_subscription_token_is_replaced(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    old = token("1", channel="closed:room", exp=int(time.time()) - 60)
    await alice.start_subscribing("closed:room", token=old, ask_token=True)
    await alice.answer("token_wanted", token("1", channel="closed:room"), channel="closed:room")
    await alice.event("subscribed", channel="closed:room")


async def test_a_subscription_token_is_refreshed_before_it_ends(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    short = token("1", channel="closed:room", exp=int(time.time()) + 2)
    await alice.subscribe("closed:room", token=short, ask_token=True)
    await alice.answer("token_wanted", token("1", channel="closed:room", exp=int(time.time()) + 600))
    await daemon.api("publish", channel="closed:room", data=1)
    await alice.publication("closed:room")
    assert alice.seen("unsubscribed") == []


async def test_user_limited_channels(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process({"channel": {"namespaces": [{"name": "dm", "allow_user_limited_channels": True}]}})
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe("dm:talk#1,2")
    await alice.start_subscribing("dm:talk#2,3")
    assert (await alice.event("unsubscribed", channel="dm:talk#2,3"))["code"] == 103


async def test_the_server_ends_a_subscription(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe("chat:room")
    await daemon.api("unsubscribe", user="1", channel="chat:room")
    ended = await alice.event("unsubscribed", channel="chat:room")
    assert (ended["code"], ended["reason"]) == (2000, "server unsubscribe")


async def test_the_api_subscribes_a_user(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await daemon.api("subscribe", user="1", channel="chat:room", data={"hi": 1})
    assert (await alice.event("subscribed", channel="chat:room", server=True))["data"] == {"hi": 1}
    await daemon.api("publish", channel="chat:room", data=7)
    assert (await alice.publication("chat:room"))["data"] == 7
    await daemon.api("unsubscribe", user="1", channel="chat:room")
    await alice.event("unsubscribed", channel="chat:room", server=True)


async def test_bytes_that_are_not_json(sdk: Sdk, broker_process: StartBroker) -> None:
    if not sdk.protobuf:
        pytest.skip("JSON carries JSON only")
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe("chat:room")
    await alice.publish_bytes("chat:room", b"\x00\xffboom")
    assert (await alice.publication("chat:room"))["data"] == {"hex": b"\x00\xffboom".hex()}


async def test_both_codecs_meet_in_one_channel(sdk: Sdk, broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1"))
    await alice.subscribe("chat:room")
    sdk.protobuf = not sdk.protobuf  # clients made from here on speak the other codec
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2", info={"name": "Bob"}))
    await bob.subscribe("chat:room")
    await bob.publish("chat:room", {"from": "bob"})
    publication = await alice.publication("chat:room")
    assert publication["data"] == {"from": "bob"}
    assert publication["info"]["conn_info"] == {"name": "Bob"}
    await alice.publish("chat:room", {"from": "alice"})
    await bob.publication("chat:room")
    assert (await bob.publication("chat:room"))["data"] == {"from": "alice"}
