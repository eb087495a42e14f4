"""The official SDKs come in: tokens, anonymous connections, refresh, and the ways a connection ends."""

from __future__ import annotations

import re
import time

import pytest
import trio

from tests.e2e.conftest import GetBroker
from tests.e2e.daemon import Daemon
from tests.e2e.sdk import Sdk
from tests.e2e.tokens import token
from tests.support.patience import PATIENCE


async def test_a_token_gives_the_user_and_its_info(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker({"channel": {"without_namespace": {"presence": True, "allow_subscribe_for_client": True}}})
    alice = await sdk.connected(daemon.websocket, token=token("42", info={"name": "Alice"}))
    await alice.subscribe("room")
    reply = await daemon.api("presence", channel="room")
    assert reply["result"]["presence"] == {alice.id: {"user": "42", "client": alice.id, "conn_info": {"name": "Alice"}}}


async def test_a_wrong_token_ends_the_connection_for_good(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker()
    mallory = await sdk.client(daemon.websocket, token=token("42", secret="guessed"))
    await mallory.start_connecting()
    ended = await mallory.event("disconnected")
    assert (ended["code"], ended["reason"]) == (3500, "invalid token")


async def test_no_token_is_a_bad_request_unless_anonymous_is_allowed(sdk: Sdk, broker: GetBroker) -> None:
    strict = await broker()
    alice = await sdk.client(strict.websocket)
    await alice.start_connecting()
    assert (await alice.event("disconnected"))["code"] == 3501

    open_door = await broker({"client": {"allow_anonymous_connect_without_token": True}})
    bob = await sdk.connected(open_door.websocket, "bob")
    assert bob.id


async def test_insecure_mode_opens_every_permission(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker({"client": {"insecure": True}})
    alice = await sdk.connected(daemon.websocket)
    await alice.subscribe("room")
    await alice.publish("room", {"text": "hello"})
    assert (await alice.publication("room"))["data"] == {"text": "hello"}


async def test_an_expired_token_makes_the_sdk_fetch_another(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker()
    alice = await sdk.client(daemon.websocket, token=token("42", exp=int(time.time()) - 60), ask_token=True)
    await alice.start_connecting()
    await alice.answer("token_wanted", token("42", exp=int(time.time()) + 600))
    assert (await alice.event("connected"))["client_id"]


async def test_a_token_is_refreshed_before_it_ends(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker({"client": {"expired_close_delay": "60s"}})
    alice = await sdk.client(daemon.websocket, token=token("42", exp=int(time.time()) + 3), ask_token=True)
    await alice.start_connecting()
    await alice.answer("token_wanted", token("42", exp=int(time.time()) + 600))
    # the reply to the refresh has come back when a later command is answered, and the connection is still the first;
    # on a machine on which connecting takes seconds it is refreshed before
    with pytest.raises(Exception, match="108"):
        await alice.rpc("anything", {})
    assert alice.seen("disconnected") == []
    assert alice.seen("connecting", code=1) == []


async def test_an_application_may_refuse_a_new_token(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker()
    alice = await sdk.client(daemon.websocket, ask_token=True)
    await alice.start_connecting()
    await alice.refuse("token_wanted")
    assert (await alice.event("disconnected"))["code"] == 1  # the SDK's own code: unauthorized


async def test_connect_data_and_server_side_subscription_data(sdk: Sdk, broker: GetBroker, key: str) -> None:
    daemon = await broker({"channel": {"namespaces": [{"name": "feed"}]}})
    subs = {f"feed:all{key}": {"data": {"welcome": True}}}
    alice = await sdk.client(daemon.websocket, token=token("42", subs=subs), data={"app": "tests"})
    await alice.connect()
    subscribed = await alice.event("subscribed", channel=f"feed:all{key}", server=True)
    assert subscribed["data"] == {"welcome": True}
    await daemon.api("publish", channel=f"feed:all{key}", data=[1, 2])
    assert (await alice.publication(f"feed:all{key}"))["data"] == [1, 2]


async def test_the_personal_channel(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker({"client": {"subscribe_to_user_personal_channel": {"enabled": True}}})
    alice = await sdk.connected(daemon.websocket, token=token("42"))
    await alice.event("subscribed", channel="#42", server=True)
    await daemon.api("publish", channel="#42", data="for you")
    assert (await alice.publication("#42"))["data"] == "for you"


async def test_the_server_disconnects_for_good_or_for_a_while(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker()
    alice = await sdk.connected(daemon.websocket, token=token("42"))
    first = alice.id
    await daemon.api("disconnect", user="42", disconnect={"code": 4000, "reason": "come back"})
    assert (await alice.event("connecting", code=4000))["reason"] == "come back"
    assert (await alice.event("connected"))["client_id"] != first
    await daemon.api("disconnect", user="42")
    ended = await alice.event("disconnected")
    assert (ended["code"], ended["reason"]) == (3503, "force disconnect")


async def test_rpc_is_not_available(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker({"client": {"insecure": True}})
    alice = await sdk.connected(daemon.websocket)
    with pytest.raises(Exception, match="108"):
        await alice.rpc("method", {"a": 1})


async def test_the_built_in_rpc_ping(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker({"client": {"insecure": True}, "rpc": {"ping": {"enabled": True}}})
    alice = await sdk.connected(daemon.websocket)
    assert await alice.rpc("ping", {}) is None


async def test_pings_are_answered(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker({"client": {"insecure": True, "ping_interval": "3s", "pong_timeout": "2900ms"}})
    before = await pongs(daemon)
    alice = await sdk.connected(daemon.websocket)
    with trio.fail_after(PATIENCE):
        while await pongs(daemon) == before:  # noqa: ASYNC110 (another process)
            await trio.sleep(0.02)
    assert alice.seen("connecting", code=3012) == []


async def pongs(daemon: Daemon) -> float:
    text = (await daemon.get("/metrics")).body.decode()
    found = re.findall(r"(?m)^centrifugo_client_ping_pong_duration_seconds_count\S* (\S+)$", text)
    return sum(map(float, found))


async def test_more_subscriptions_than_allowed(sdk: Sdk, broker: GetBroker) -> None:
    daemon = await broker({"client": {"insecure": True, "channel_limit": 2}})
    alice = await sdk.connected(daemon.websocket)
    await alice.subscribe("one")
    await alice.subscribe("two")
    await alice.start_subscribing("three")
    assert (await alice.event("unsubscribed", channel="three"))["code"] == 106
