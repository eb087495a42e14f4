"""The client against the real daemon, in both codecs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
import trio

from broker.client import (
    Backoff,
    Client,
    Disconnected,
    Join,
    Leave,
    Publication,
    ReplyError,
    Subscribed,
    Unsubscribed,
    connect,
)
from tests.e2e.conftest import StartBroker
from tests.e2e.daemon import Daemon
from tests.e2e.relay import Relay
from tests.e2e.tokens import token
from tests.support.patience import PATIENCE

StartRelay = Callable[[Daemon], Awaitable[Relay]]
QUICK = Backoff(0.05, 0.2)
CONFIG: dict[str, Any] = {
    "client": {"allow_anonymous_connect_without_token": True},
    "rpc": {"ping": {"enabled": True}},
    "channel": {
        "without_namespace": {
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
            "allow_publish_for_subscriber": True,
            "allow_publish_for_anonymous": True,
            "allow_presence_for_subscriber": True,
            "allow_presence_for_anonymous": True,
            "allow_history_for_subscriber": True,
            "allow_history_for_anonymous": True,
            "presence": True,
            "join_leave": True,
            "force_push_join_leave": True,
            "history_size": 10,
            "history_ttl": "60s",
            "force_recovery": True,
        },
        "namespaces": [{"name": "closed"}],
    },
}

Protocol = Literal["json", "protobuf"]
"""The codec of a test's clients."""


@pytest.fixture(params=["json", "protobuf"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def daemon(broker_process: StartBroker) -> Daemon:
    return await broker_process(CONFIG)


async def next_of(kind: type[Any], subscription: Any) -> Any:
    """The next event of a kind."""
    with trio.fail_after(PATIENCE):
        while not isinstance(event := await subscription.next_event(), kind):
            pass
        return event


async def test_a_conversation(daemon: Daemon, protocol: Protocol) -> None:
    async with (
        connect(daemon.websocket, protocol=protocol) as alice,
        connect(daemon.websocket, protocol=protocol) as bob,
        alice.subscribe("room") as heard,
    ):
        assert alice.client_id != bob.client_id
        assert await heard.next_event() == Subscribed(position=heard.position)
        assert (await next_of(Join, heard)).info.client == alice.client_id
        async with bob.subscribe("room"):
            assert (await next_of(Join, heard)).info.client == bob.client_id
            await bob.publish("room", {"text": "hello"})
            publication = await anext(heard)
            assert (publication.data, publication.offset) == (b'{"text":"hello"}', 1)
            assert publication.info.client == bob.client_id
            await daemon.api("publish", channel="room", data={"text": "from the API"}, tags={"a": "b"})
            publication = await anext(heard)
            assert (publication.data, publication.offset, publication.tags) == (
                b'{"text": "from the API"}',
                2,
                {"a": "b"},
            )
            assert set(await alice.presence("room")) == {alice.client_id, bob.client_id}
            stats = await alice.presence_stats("room")
            assert (stats.num_clients, stats.num_users) == (2, 1)
            history = await bob.history("room", limit=-1, reverse=True)
            assert [publication.offset for publication in history.publications] == [2, 1]
            assert history.position == heard.position
        assert (await next_of(Leave, heard)).info.client == bob.client_id
        assert await alice.rpc("ping", {}) in (b"", b"{}")


async def test_errors(daemon: Daemon, protocol: Protocol) -> None:
    async with connect(daemon.websocket, protocol=protocol) as client:
        with pytest.raises(ReplyError, match="103"):
            await client.publish("closed:room", 1)
        with pytest.raises(ReplyError, match=r"104|108"):
            await client.rpc("no such method")
        with pytest.raises(Unsubscribed, match="102"):
            async with client.subscribe("nowhere:room"):
                pytest.fail("not subscribed")
        async with client.subscribe("room"):
            await client.publish("room", 1)
    with pytest.raises(Disconnected, match="3500"):
        async with connect(daemon.websocket, protocol=protocol, token="no token"):
            pytest.fail("not connected")


async def test_tokens(daemon: Daemon, protocol: Protocol) -> None:
    asked = 0

    async def get_token() -> str:
        nonlocal asked
        asked += 1
        return token("42", exp=int(time.time()) + (-10 if asked == 1 else 100))

    async with connect(daemon.websocket, protocol=protocol, get_token=get_token, backoff=QUICK) as client:
        assert asked == 2
        async with client.subscribe("room") as room:
            await client.publish("room", 1)
            publication = await anext(room)
            assert publication.info.user == "42"
        assert await client.refresh(token("42", exp=int(time.time()) + 200)) > 150
        await daemon.api("disconnect", user="42")
        assert (await client.wait_disconnected()).code == 3503


async def test_what_was_missed_is_recovered(daemon: Daemon, protocol: Protocol, relay_to: StartRelay) -> None:
    relay = await relay_to(daemon)
    url = f"ws://127.0.0.1:{relay.port}/connection/websocket"
    async with connect(url, protocol=protocol, backoff=QUICK) as client, client.subscribe("room") as room:
        await daemon.api("publish", channel="room", data=1)
        assert (await anext(room)).offset == 1
        await cut_and_publish(relay, daemon, client, range(2, 5))
        assert (await next_of(Subscribed, room)).recovered
        assert [(await anext(room)).data for _ in range(3)] == [b"2", b"3", b"4"]
        await cut_and_publish(relay, daemon, client, range(5, 20))  # the history keeps ten
        assert not (await next_of(Subscribed, room)).recovered
        await daemon.api("publish", channel="room", data=20)
        assert (await anext(room)).offset == 20


async def cut_and_publish(relay: Relay, daemon: Daemon, client: Client, numbers: range) -> None:
    relay.cut()
    with trio.fail_after(PATIENCE):
        await client.wait_lost()
    for number in numbers:
        await daemon.api("publish", channel="room", data=number)
    relay.mend()
    with trio.fail_after(PATIENCE):
        await client.wait_connected()


async def test_server_side_subscriptions(daemon: Daemon, protocol: Protocol) -> None:
    send, receive = trio.open_memory_channel[tuple[str, Any]](100)
    async with connect(
        daemon.websocket, protocol=protocol, token=token("42"), on_server_event=lambda *event: send.send_nowait(event)
    ) as client:
        await daemon.api("subscribe", user="42", channel="mine")
        await daemon.api("publish", channel="mine", data="x")
        await daemon.api("unsubscribe", user="42", channel="mine")
        with trio.fail_after(PATIENCE):
            kinds = {type((await receive.receive())[1]) for _ in range(4)}
        assert {Subscribed, Publication, Unsubscribed} <= kinds
        assert client.connected


async def test_the_server_says_goodbye(daemon: Daemon, protocol: Protocol) -> None:
    async with connect(daemon.websocket, protocol=protocol) as client, client.subscribe("room"):
        await daemon.stop()
        with trio.fail_after(PATIENCE):
            await client.wait_lost()
