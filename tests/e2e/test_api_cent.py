"""`cent`, the official API client: every method of the open-source server, as an application's backend calls it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from cent import (
    BatchRequest,
    BroadcastRequest,
    CentApiResponseError,
    CentUnauthorizedError,
    ChannelsRequest,
    DisconnectRequest,
    HistoryRemoveRequest,
    HistoryRequest,
    InfoRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from cent import Client as CentClient
from cent.dto import BoolValue, ChannelOptionsOverride, Disconnect, StreamPosition

from tests.e2e.conftest import GetBroker, GetSdk
from tests.e2e.daemon import API_KEY, Daemon
from tests.e2e.sdk import Client
from tests.e2e.tokens import token

CONFIG: dict[str, Any] = {
    "channel": {
        "namespaces": [
            {
                "name": "chat",
                "presence": True,
                "history_size": 10,
                "history_ttl": "60s",
                "allow_subscribe_for_client": True,
            },
            {"name": "bare", "allow_subscribe_for_client": True},
        ]
    }
}


class Backend:
    """The blocking client, called from a thread."""

    def __init__(self, daemon: Daemon, key: str = API_KEY) -> None:
        self._client = CentClient(f"{daemon.http}/api", key)

    async def __call__(self, method: str, request: Any) -> Any:
        return await trio.to_thread.run_sync(getattr(self._client, method), request)

    def close(self) -> None:
        self._client.close()


@pytest.fixture
async def daemon(broker: GetBroker) -> Daemon:
    return await broker(CONFIG)


@pytest.fixture
async def cent(daemon: Daemon) -> AsyncIterator[Backend]:
    backend = Backend(daemon)
    yield backend
    backend.close()


@pytest.fixture
async def alice(daemon: Daemon, get_sdk: GetSdk) -> Client:
    sdk = await get_sdk("js", "json")
    return await sdk.connected(daemon.websocket, token=token("1", info={"name": "Alice"}))


async def test_publish(cent: Backend, alice: Client, key: str) -> None:
    await alice.subscribe(f"chat:{key}")
    result = await cent("publish", PublishRequest(channel=f"chat:{key}", data={"n": 1}, tags={"a": "b"}))
    assert result.offset == 1
    assert len(result.epoch) == 8
    publication = await alice.publication(f"chat:{key}")
    assert (publication["data"], publication["tags"], publication["offset"]) == ({"n": 1}, {"a": "b"}, 1)


async def test_publish_without_history_has_no_position(cent: Backend, daemon: Daemon, key: str) -> None:
    for request in (
        PublishRequest(channel=f"bare:{key}", data=1),
        PublishRequest(channel=f"chat:{key}", data=1, skip_history=True),
    ):
        result = await cent("publish", request)
        assert (result.offset, result.epoch) == (0, "")


async def test_publish_twice_with_one_idempotency_key(cent: Backend, alice: Client, key: str) -> None:
    await alice.subscribe(f"chat:{key}")
    request = PublishRequest(channel=f"chat:{key}", data=1, idempotency_key="once")
    first, second = await cent("publish", request), await cent("publish", request)
    assert (first.offset, first.epoch) == (second.offset, second.epoch) == (1, first.epoch)
    await cent("publish", PublishRequest(channel=f"chat:{key}", data=2))
    assert [(await alice.publication(f"chat:{key}"))["data"] for _ in range(2)] == [1, 2]


async def test_broadcast(cent: Backend, alice: Client, key: str) -> None:
    await alice.subscribe(f"chat:{key}")
    await alice.subscribe(f"bare:{key}")
    result = await cent("broadcast", BroadcastRequest(channels=[f"chat:{key}", "nowhere:room", f"bare:{key}"], data=5))
    ok, unknown, bare = result.responses
    assert ok.result.offset == 1
    assert (unknown.error.code, unknown.error.message) == (102, "unknown channel")
    assert (bare.error, bare.result.offset) == (None, 0)
    for channel in (f"chat:{key}", f"bare:{key}"):
        assert (await alice.publication(channel))["data"] == 5


async def test_subscribe_and_unsubscribe(cent: Backend, alice: Client, key: str) -> None:
    override = ChannelOptionsOverride(force_recovery=BoolValue(value=True))
    await cent("subscribe", SubscribeRequest(user="1", channel=f"chat:{key}", data={"hi": 1}, override=override))
    subscribed = await alice.event("subscribed", channel=f"chat:{key}", server=True)
    assert (subscribed["data"], subscribed["recoverable"], subscribed["positioned"]) == ({"hi": 1}, True, True)
    await cent("unsubscribe", UnsubscribeRequest(user="1", channel=f"chat:{key}", client=alice.id))
    await alice.event("unsubscribed", channel=f"chat:{key}", server=True)


async def test_subscribe_reaches_one_client_of_a_user(cent: Backend, alice: Client, daemon: Daemon, key: str) -> None:
    await cent("subscribe", SubscribeRequest(user="1", channel=f"chat:{key}", client="another"))
    await cent("subscribe", SubscribeRequest(user="1", channel=f"bare:{key}", client=alice.id))
    await alice.event("subscribed", channel=f"bare:{key}", server=True)
    assert alice.seen("subscribed") == []


async def test_disconnect(cent: Backend, alice: Client) -> None:
    await cent("disconnect", DisconnectRequest(user="1", whitelist=[alice.id]))
    await cent("disconnect", DisconnectRequest(user="1", disconnect=Disconnect(code=4500, reason="over")))
    ended = await alice.event("disconnected")
    assert (ended["code"], ended["reason"]) == (4500, "over")


async def test_refresh(cent: Backend, alice: Client, key: str) -> None:
    await cent("refresh", RefreshRequest(user="1", client=alice.id, expire_at=int(time.time()) + 600))
    await alice.subscribe(f"chat:{key}")
    await cent("refresh", RefreshRequest(user="1", expired=True))
    assert (await alice.event("connecting", code=3005))["reason"] == "connection expired"


async def test_presence(cent: Backend, alice: Client, key: str) -> None:
    await alice.subscribe(f"chat:{key}")
    result = await cent("presence", PresenceRequest(channel=f"chat:{key}"))
    assert {client: (info.user, info.client, info.conn_info) for client, info in result.presence.items()} == {
        alice.id: ("1", alice.id, {"name": "Alice"})
    }
    stats = await cent("presence_stats", PresenceStatsRequest(channel=f"chat:{key}"))
    assert (stats.num_clients, stats.num_users) == (1, 1)
    empty = await cent("presence", PresenceRequest(channel="chat:empty"))
    assert empty.presence == {}


async def test_history(cent: Backend, key: str) -> None:
    for number in range(12):
        await cent("publish", PublishRequest(channel=f"chat:{key}", data={"n": number}, tags={"n": str(number)}))
    position = await cent("history", HistoryRequest(channel=f"chat:{key}"))
    assert (position.publications, position.offset) == ([], 12)
    everything = await cent("history", HistoryRequest(channel=f"chat:{key}", limit=-1))
    assert [(p.offset, p.data, p.tags) for p in everything.publications] == [
        (number + 1, {"n": number}, {"n": str(number)}) for number in range(2, 12)
    ]
    newest = await cent("history", HistoryRequest(channel=f"chat:{key}", limit=2, reverse=True))
    assert [p.offset for p in newest.publications] == [12, 11]
    since = StreamPosition(offset=10, epoch=position.epoch)
    rest = await cent("history", HistoryRequest(channel=f"chat:{key}", limit=5, since=since))
    assert [p.offset for p in rest.publications] == [11, 12]
    with pytest.raises(CentApiResponseError) as refused:
        await cent("history", HistoryRequest(channel=f"chat:{key}", since=StreamPosition(offset=1, epoch="other")))
    assert refused.value.code == 112


async def test_history_remove_keeps_counting(cent: Backend, key: str) -> None:
    first = await cent("publish", PublishRequest(channel=f"chat:{key}", data=1))
    await cent("history_remove", HistoryRemoveRequest(channel=f"chat:{key}"))
    history = await cent("history", HistoryRequest(channel=f"chat:{key}", limit=-1))
    assert (history.publications, history.offset, history.epoch) == ([], 1, first.epoch)
    assert (await cent("publish", PublishRequest(channel=f"chat:{key}", data=1))).offset == 2


async def test_channels(cent: Backend, alice: Client, key: str) -> None:
    for channel in (f"chat:one{key}", f"chat:two{key}", f"bare:one{key}"):
        await alice.subscribe(channel)
    result = await cent("channels", ChannelsRequest())
    assert {channel: info.num_clients for channel, info in result.channels.items()} == {
        f"chat:one{key}": 1,
        f"chat:two{key}": 1,
        f"bare:one{key}": 1,
    }
    result = await cent("channels", ChannelsRequest(pattern="chat:*"))
    assert set(result.channels) == {f"chat:one{key}", f"chat:two{key}"}


async def test_info(cent: Backend, alice: Client, key: str) -> None:
    await alice.subscribe(f"chat:{key}")
    (node,) = (await cent("info", InfoRequest())).nodes
    assert node.uid
    assert node.name
    assert node.version


async def test_batch(cent: Backend, alice: Client, key: str) -> None:
    await alice.subscribe(f"chat:{key}")
    requests = [
        PublishRequest(channel=f"chat:{key}", data=1),
        PresenceStatsRequest(channel=f"chat:{key}"),
        HistoryRequest(channel=f"chat:{key}", limit=1),
    ]
    publish, stats, history = (await cent("batch", BatchRequest(requests=requests))).replies
    assert publish.offset == 1
    assert stats.num_clients == 1
    assert history.publications[0].data == 1
    replies = (await cent("batch", BatchRequest(requests=requests, parallel=True))).replies
    assert len(replies) == 3


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("publish", PublishRequest(channel="nowhere:room", data=1), 102),
        ("publish", PublishRequest(channel="", data=1), 107),
        ("broadcast", BroadcastRequest(channels=[], data=1), 107),
        ("presence", PresenceRequest(channel="bare:room"), 108),
        ("presence_stats", PresenceStatsRequest(channel="nowhere:room"), 102),
        ("history", HistoryRequest(channel="bare:room"), 108),
        ("history_remove", HistoryRemoveRequest(channel="bare:room"), 108),
        ("subscribe", SubscribeRequest(user="1", channel=""), 107),
        ("subscribe", SubscribeRequest(user="1", channel="nowhere:room"), 102),
    ],
)
async def test_refusals(cent: Backend, method: str, request_: Any, code: int) -> None:
    with pytest.raises(CentApiResponseError) as refused:
        await cent(method, request_)
    assert refused.value.code == code


async def test_a_wrong_key(daemon: Daemon) -> None:
    stranger = Backend(daemon, "guessed")
    with pytest.raises(CentUnauthorizedError):
        await stranger("info", InfoRequest())
    stranger.close()
