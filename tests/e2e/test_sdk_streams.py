"""The official JavaScript SDK over HTTP streaming and server-sent events, and raw clients of all streams."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from tests.e2e.conftest import GetBroker, GetSdk, StartBroker
from tests.e2e.daemon import PEER, SETTLE_SECONDS, Daemon
from tests.e2e.relay import Relay
from tests.e2e.sdk import Client, Sdk
from tests.e2e.tokens import token
from tests.support.patience import PATIENCE

KEPT: dict[str, Any] = {
    "presence": True,
    "join_leave": True,
    "force_push_join_leave": True,
    "history_size": 100,
    "history_ttl": "300s",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_publish_for_subscriber": True,
    "allow_history_for_subscriber": True,
    "allow_presence_for_subscriber": True,
}
ON: dict[str, Any] = {"enabled": True}
CONFIG: dict[str, Any] = {
    "http_stream": ON,
    "sse": ON,
    "uni_sse": ON,
    "uni_http_stream": ON,
    "uni_websocket": ON,
    "channel": {"namespaces": [{"name": "room", **KEPT}]},
}
WAYS = ["http_stream json", "http_stream protobuf", "sse json"]


@pytest.fixture(params=WAYS)
async def way(request: pytest.FixtureRequest, get_sdk: GetSdk) -> tuple[str, Sdk]:
    """A transport, and the SDK with a codec that it has."""
    transport, codec = request.param.split()
    return transport, await get_sdk("js", codec)


async def connected(way: tuple[str, Sdk], http: str, name: str, user: str) -> Client:
    transport, sdk = way
    url = f"{http}/connection/{transport}"
    return await sdk.connected(url, name, token=token(user), transport=transport, emulation=f"{http}/emulation")


async def test_a_conversation(way: tuple[str, Sdk], broker: GetBroker, key: str) -> None:
    daemon = await broker(CONFIG)
    channel = f"room:{key}"
    alice = await connected(way, daemon.http, "alice", "1")
    bob = await connected(way, daemon.http, "bob", "2")
    await alice.subscribe(channel)
    await bob.subscribe(channel)
    assert (await alice.event("join", channel=channel))["info"]["user"] in ("1", "2")
    await bob.publish(channel, {"text": "hi"})
    assert (await alice.publication(channel))["data"] == {"text": "hi"}
    await daemon.api("publish", channel=channel, data={"n": 2})
    assert [(await bob.publication(channel))["data"] for _ in range(2)] == [{"text": "hi"}, {"n": 2}]
    assert {info["user"] for info in (await alice.presence(channel)).values()} == {"1", "2"}
    assert len((await alice.history(channel, limit=10))["publications"]) == 2
    await bob.unsubscribe(channel)
    assert (await alice.event("leave", channel=channel))["info"]["user"] == "2"
    await daemon.api("disconnect", user="1", disconnect={"code": 4501, "reason": "go"})
    gone = await alice.event("disconnected")
    assert (gone["code"], gone["reason"]) == (4501, "go")
    await bob.disconnect()


async def test_what_was_missed_while_the_wire_was_cut(
    way: tuple[str, Sdk], broker: GetBroker, key: str, relay_to: Callable[[Daemon], Awaitable[Relay]]
) -> None:
    daemon = await broker(CONFIG)
    relay = await relay_to(daemon)
    channel = f"room:{key}"
    alice = await connected(way, relay.websocket.replace("ws", "http", 1).partition("/connection")[0], "alice", "1")
    await alice.subscribe(channel)
    await daemon.api("publish", channel=channel, data=1)
    assert (await alice.publication(channel))["data"] == 1
    relay.cut()
    await daemon.api("publish", channel=channel, data=2)
    relay.mend()
    again = await alice.event("subscribed", channel=channel)
    assert (again["was_recovering"], again["recovered"]) == (True, True)
    assert (await alice.publication(channel))["data"] == 2


async def test_a_stop_of_the_server_is_told(way: tuple[str, Sdk], broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    alice = await connected(way, daemon.http, "alice", "1")
    await daemon.stop()
    connecting = await alice.event("connecting", code=3001)
    assert connecting["reason"] == "shutdown"
    await alice.disconnect()


# ---- raw clients --------------------------------------------------------------------------------------------------

REQUESTS = {
    "http_stream": ("POST", '{"id":1,"connect":{"token":"TOKEN"}}'),
    "sse": ("POST", '{"id":1,"connect":{"token":"TOKEN"}}'),
    "uni_http_stream": ("POST", '{"token":"TOKEN"}'),
    "uni_sse": ("POST", '{"token":"TOKEN"}'),
}


async def opened(daemon: Daemon, transport: str) -> trio.SocketStream:
    """A stream whose connect was answered."""
    method, body = REQUESTS[transport]
    body = body.replace("TOKEN", token("1"))
    stream = await trio.open_tcp_stream("127.0.0.1", daemon.outside)
    head = f"{method} /connection/{transport} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    await stream.send_all((head + body).encode())
    came = b""
    while b'"connect"' not in came:
        data = await stream.receive_some()
        assert data, came
        came += data
    return stream


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


@pytest.mark.skipif(bool(PEER), reason="looks into our process")
async def test_churn_of_every_stream_returns_to_the_base(broker_process: StartBroker) -> None:
    daemon = await broker_process(CONFIG)
    await daemon.settle()
    base = descriptors(daemon)
    for _ in range(3):
        streams = [await opened(daemon, transport) for transport in REQUESTS for _ in range(10)]
        assert (await daemon.gauges())["clients"] == 40
        for number, stream in enumerate(streams):
            if number % 3 == 0:
                await stream.send_eof()  # half-closed
            elif number % 3 == 1:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(b"x" * 100_000)  # noise
        await daemon.api("disconnect", user="1")
        for stream in streams:
            await trio.aclose_forcefully(stream)
        await daemon.settle()
        with trio.fail_after(SETTLE_SECONDS):  # the hub is left at once; the socket is read for a moment more
            while descriptors(daemon) > base:  # noqa: ASYNC110 (nobody tells us: it is another process)
                await trio.sleep(0.01)


@pytest.mark.parametrize("transport", REQUESTS)
async def test_a_half_closed_socket_ends_a_stream(broker: GetBroker, transport: str) -> None:
    daemon = await broker(CONFIG)
    stream = await opened(daemon, transport)
    await stream.send_eof()
    with trio.fail_after(SETTLE_SECONDS):
        while await stream.receive_some():
            pass
    await stream.aclose()


async def test_an_event_stream_by_curl(broker: GetBroker, key: str) -> None:
    daemon = await broker({**CONFIG, "client": {"insecure": True}})
    connect = json.dumps({"subs": {f"room:{key}": {}}})
    command = ["curl", "-sN", "--get", f"{daemon.http}/connection/uni_sse", "--data-urlencode", f"cf_connect={connect}"]
    process = await trio.lowlevel.open_process(command, stdout=-1)
    assert process.stdout is not None
    came = b""
    try:
        with trio.fail_after(PATIENCE):
            while b'"connect"' not in came:
                came += await process.stdout.receive_some()
            await daemon.api("publish", channel=f"room:{key}", data={"n": 1})
            while b'"pub"' not in came:
                came += await process.stdout.receive_some()
    finally:
        process.kill()
        await process.wait()
        await process.stdout.aclose()
    events = [json.loads(line[6:]) for line in came.split(b"\n") if line.startswith(b"data: ")]
    assert list(events[0]["connect"]["subs"]) == [f"room:{key}"]
    assert [event["pub"]["data"] for event in events if "pub" in event] == [{"n": 1}]
