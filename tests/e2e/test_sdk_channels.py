"""The official SDKs in channels: publish and receive, permissions, presence, history, join and leave, tokens."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.conftest import GetBroker, GetSdk
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


async def test_one_publishes_and_all_receive(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1", info={"name": "Alice"}))
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2"))
    for client in (alice, bob):
        await client.subscribe(f"chat:{key}")
    data = {"text": "<b>Grüße & 你好</b>", "nested": [1, 2.5, None, {"a": True}]}
    await alice.publish(f"chat:{key}", data)
    for client in (alice, bob):
        publication = await client.publication(f"chat:{key}")
        assert publication["data"] == data
        assert publication["offset"] == 1
        assert publication["info"]["user"] == "1"
        assert publication["info"]["client"] == alice.id
        assert publication["info"]["conn_info"] == {"name": "Alice"}


async def test_publications_of_the_api_carry_tags_and_no_client(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"chat:{key}")
    await daemon.api("publish", channel=f"chat:{key}", data={"n": 1}, tags={"kind": "news"})
    publication = await alice.publication(f"chat:{key}")
    assert publication["tags"] == {"kind": "news"}
    assert publication.get("info") is None


async def test_ten_thousand_in_order(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker({"channel": {"namespaces": [CHAT | {"history_size": 100, "force_positioning": True}]}})
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"chat:{key}")
    commands = [{"publish": {"channel": f"chat:{key}", "data": number}} for number in range(100)]
    for _ in range(100):
        await daemon.api("batch", commands=commands)
    received = [await alice.publication(f"chat:{key}") for _ in range(10_000)]
    assert [publication["offset"] for publication in received] == list(range(1, 10_001))
    assert [publication["data"] for publication in received] == list(range(100)) * 100


@pytest.mark.parametrize(
    ("channel", "code"),
    [("nowhere:room", 102), ("closed:room", 103), ("chat:" + "x" * 255, 107), ("$chat:room", 103), ("chat:ключ", 107)],
)
async def test_a_refused_subscription(sdk: Sdk, broker: GetBroker, key: str, channel: str, code: int) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing(channel)
    assert (await alice.event("unsubscribed", channel=channel))["code"] == code
    await alice.subscribe(f"chat:{key}")  # and the connection lives on


@pytest.mark.parametrize(
    ("channel", "code"), [("nowhere:room", 102), ("closed:room", 103), ("chat:room", 103), ("bare:room", 103)]
)
async def test_a_refused_publication(sdk: Sdk, broker: GetBroker, channel: str, code: int) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    with pytest.raises(SdkError) as refused:
        await alice.publish(channel, {})
    assert refused.value.code == code


@pytest.mark.parametrize(("channel", "code"), [("nowhere:room", 102), ("bare:room", 108), ("chat:room", 103)])
async def test_refused_queries(sdk: Sdk, broker: GetBroker, channel: str, code: int) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    for query in (alice.presence, alice.presence_stats, alice.history):
        with pytest.raises(SdkError) as refused:
            await query(channel)
        assert refused.value.code == code


async def test_presence(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1", info={"name": "Alice"}))
    again = await sdk.connected(daemon.websocket, "again", token=token("1"))
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2"))
    for client in (alice, again, bob):
        await client.subscribe(f"chat:{key}")
    present = await bob.presence(f"chat:{key}")
    assert {client: info["user"] for client, info in present.items()} == {alice.id: "1", again.id: "1", bob.id: "2"}
    assert present[alice.id]["conn_info"] == {"name": "Alice"}
    assert await bob.presence_stats(f"chat:{key}") == {"num_clients": 3, "num_users": 2}
    await again.unsubscribe(f"chat:{key}")
    await alice.disconnect()
    await bob.event("leave", channel=f"chat:{key}")
    await bob.event("leave", channel=f"chat:{key}")
    assert await bob.presence_stats(f"chat:{key}") == {"num_clients": 1, "num_users": 1}


async def test_join_and_leave(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1"))
    await alice.subscribe(f"chat:{key}")
    assert (await alice.event("join", channel=f"chat:{key}"))["info"][
        "client"
    ] == alice.id  # one's own, after the reply
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2", info={"name": "Bob"}))
    await bob.subscribe(f"chat:{key}")
    joined = await alice.event("join", channel=f"chat:{key}")
    assert (joined["info"]["client"], joined["info"]["conn_info"]) == (bob.id, {"name": "Bob"})
    await bob.unsubscribe(f"chat:{key}")
    left = await alice.event("leave", channel=f"chat:{key}")
    assert left["info"]["client"] == bob.id
    assert bob.seen("leave") == []  # who leaves does not hear it


async def test_join_and_leave_on_request(sdk: Sdk, broker: GetBroker, key: str) -> None:
    quiet = {name: value for name, value in CHAT.items() if name != "force_push_join_leave"}
    daemon = await broker({"channel": {"namespaces": [quiet]}})
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1"))
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2"))
    await alice.subscribe(f"chat:{key}", join_leave=True)
    await bob.subscribe(f"chat:{key}")
    await alice.event("join", channel=f"chat:{key}")
    assert (await alice.event("join", channel=f"chat:{key}"))["info"]["client"] == bob.id
    await bob.publish(f"chat:{key}", 1)
    await bob.publication(f"chat:{key}")
    assert bob.seen("join") == []


async def test_history(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"chat:{key}")
    for number in range(1, 13):
        await alice.publish(f"chat:{key}", {"n": number})

    async def offsets(**options: Any) -> list[int]:
        history = await alice.history(f"chat:{key}", **options)
        assert history["offset"] == 12
        return [publication["offset"] for publication in history["publications"]]

    epoch = (await alice.history(f"chat:{key}"))["epoch"]
    assert len(epoch) == 8
    assert await offsets() == []
    assert await offsets(limit=-1) == list(range(3, 13))  # the two oldest were trimmed
    assert await offsets(limit=2) == [3, 4]
    assert await offsets(limit=2, reverse=True) == [12, 11]
    assert await offsets(limit=3, since={"offset": 5, "epoch": epoch}) == [6, 7, 8]
    assert await offsets(limit=2, since={"offset": 5, "epoch": epoch}, reverse=True) == [4, 3]
    with pytest.raises(SdkError) as refused:
        await alice.history(f"chat:{key}", limit=1, since={"offset": 5, "epoch": "long ago"})
    assert refused.value.code == 112
    first = (await alice.history(f"chat:{key}", limit=1))["publications"][0]
    assert first["data"] == {"n": 3}
    assert first["info"]["client"] == alice.id


async def test_history_of_an_empty_channel(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"chat:{key}")
    history = await alice.history(f"chat:{key}", limit=100)
    assert (history["publications"], history["offset"]) == ([], 0)
    assert history["epoch"]


async def test_a_subscription_token(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    subscription = token("1", channel=f"closed:{key}", info={"role": "admin"})
    await alice.subscribe(f"closed:{key}", token=subscription)
    await daemon.api("publish", channel=f"closed:{key}", data=1)
    assert (await alice.publication(f"closed:{key}"))["data"] == 1


async def test_a_private_channel_asks_for_a_token(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing(f"$chat:secret{key}", ask_token=True)
    await alice.answer("token_wanted", token("1", channel=f"$chat:secret{key}"), channel=f"$chat:secret{key}")
    await alice.event("subscribed", channel=f"$chat:secret{key}")


async def test_a_wrong_subscription_token_is_permission_denied(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing(f"closed:{key}", token=token("1", channel=f"closed:{key}", secret="guessed"))
    assert (await alice.event("unsubscribed", channel=f"closed:{key}"))["code"] == 103


@pytest.mark.parametrize("claims", [{"sub": "2", "channel": "closed:room"}, {"sub": "1", "channel": "closed:other"}])
async def test_another_ones_subscription_token_ends_the_connection(
    sdk: Sdk, broker: GetBroker, claims: dict[str, str]
) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.start_subscribing("closed:room", token=token(**claims))
    assert (await alice.event("disconnected"))["code"] == 3500


async def test_an_expired_subscription_token_is_replaced(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    old = token("1", channel=f"closed:{key}", exp=int(time.time()) - 60)
    await alice.start_subscribing(f"closed:{key}", token=old, ask_token=True)
    await alice.answer("token_wanted", token("1", channel=f"closed:{key}"), channel=f"closed:{key}")
    await alice.event("subscribed", channel=f"closed:{key}")


async def test_a_subscription_token_is_refreshed_before_it_ends(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    short = token("1", channel=f"closed:{key}", exp=int(time.time()) + 3)
    await alice.subscribe(f"closed:{key}", token=short, ask_token=True)
    await alice.answer("token_wanted", token("1", channel=f"closed:{key}", exp=int(time.time()) + 600))
    await daemon.api("publish", channel=f"closed:{key}", data=1)
    await alice.publication(f"closed:{key}")
    assert alice.seen("unsubscribed") == []


async def test_user_limited_channels(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker({"channel": {"namespaces": [{"name": "dm", "allow_user_limited_channels": True}]}})
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"dm:{key}#1,2")
    await alice.start_subscribing(f"dm:{key}#2,3")
    assert (await alice.event("unsubscribed", channel=f"dm:{key}#2,3"))["code"] == 103


async def test_the_server_ends_a_subscription(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"chat:{key}")
    await daemon.api("unsubscribe", user="1", channel=f"chat:{key}")
    ended = await alice.event("unsubscribed", channel=f"chat:{key}")
    assert (ended["code"], ended["reason"]) == (2000, "server unsubscribe")


async def test_the_api_subscribes_a_user(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await daemon.api("subscribe", user="1", channel=f"chat:{key}", data={"hi": 1})
    assert (await alice.event("subscribed", channel=f"chat:{key}", server=True))["data"] == {"hi": 1}
    await daemon.api("publish", channel=f"chat:{key}", data=7)
    assert (await alice.publication(f"chat:{key}"))["data"] == 7
    await daemon.api("unsubscribe", user="1", channel=f"chat:{key}")
    await alice.event("unsubscribed", channel=f"chat:{key}", server=True)


@pytest.mark.parametrize("language", ["js", "python"])
async def test_bytes_that_are_not_json(language: str, get_sdk: GetSdk, broker: GetBroker, key: str) -> None:
    sdk = await get_sdk(language, "protobuf")  # JSON carries JSON only
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, token=token("1"))
    await alice.subscribe(f"chat:{key}")
    await alice.publish_bytes(f"chat:{key}", b"\x00\xffboom")
    assert (await alice.publication(f"chat:{key}"))["data"] == {"hex": b"\x00\xffboom".hex()}


async def test_both_codecs_meet_in_one_channel(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    alice = await sdk.connected(daemon.websocket, "alice", token=token("1"))
    await alice.subscribe(f"chat:{key}")
    sdk.protobuf = not sdk.protobuf  # clients made from here on speak the other codec
    bob = await sdk.connected(daemon.websocket, "bob", token=token("2", info={"name": "Bob"}))
    await bob.subscribe(f"chat:{key}")
    await bob.publish(f"chat:{key}", {"from": "bob"})
    publication = await alice.publication(f"chat:{key}")
    assert publication["data"] == {"from": "bob"}
    assert publication["info"]["conn_info"] == {"name": "Bob"}
    await alice.publish(f"chat:{key}", {"from": "alice"})
    await bob.publication(f"chat:{key}")
    assert (await bob.publication(f"chat:{key}"))["data"] == {"from": "alice"}
