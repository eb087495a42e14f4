"""sockjs-client, and the SDK on top of it, over each way of SockJS that both sides have."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import GetBroker, GetSdk
from tests.e2e.daemon import PEER

pytestmark = pytest.mark.skipif(bool(PEER), reason="Centrifugo 6 has no SockJS")

CONFIG = {"client": {"insecure": True}, "sockjs": {"enabled": True}}
WAYS = ["websocket", "xhr-streaming", "xhr-polling"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_session(way: str, get_sdk: GetSdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    sdk = await get_sdk("js", "json")
    alice = await sdk.connected(f"{daemon.http}/connection/sockjs", sockjs=way)
    await alice.subscribe(key)
    text = 'line\nseparator\u2028 "quoted" 100% \U0001f680'
    await alice.publish(key, {"text": text})
    assert (await alice.publication(key))["data"] == {"text": text}
    for number in range(20):
        await daemon.api("publish", channel=key, data=number)
    assert [(await alice.publication(key))["data"] for _ in range(20)] == list(range(20))

    await daemon.api("disconnect", user="", client=alice.id)
    ended = await alice.event("disconnected")
    assert (ended["code"], ended["reason"]) == (3503, "force disconnect")


@pytest.mark.parametrize("way", WAYS)
async def test_more_than_one_stream_takes(way: str, get_sdk: GetSdk, broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    sdk = await get_sdk("js", "json")
    alice = await sdk.connected(f"{daemon.http}/connection/sockjs", sockjs=way)
    await alice.subscribe(key)
    for number in range(12):
        await daemon.api("publish", channel=key, data=[number, "x" * 30_000])
    assert [(await alice.publication(key))["data"][0] for _ in range(12)] == list(range(12))
    assert not alice.seen("connecting", code=1)
