"""The official SDKs against a daemon that asks a backend process over HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.conftest import GetBroker, StartBroker
from tests.e2e.daemon import Daemon
from tests.e2e.sdk import Sdk, SdkError
from tests.support.backend import Backend
from tests.support.patience import PATIENCE


def config(backend: Backend) -> dict[str, Any]:
    return {
        "client": {"proxy": {"connect": {"enabled": True, "endpoint": backend.url("/e2e/connect"), "timeout": "60s"}}},
        "channel": {
            "proxy": {
                "subscribe": {"endpoint": backend.url("/e2e/subscribe"), "timeout": "60s"},
                "publish": {"endpoint": backend.url("/e2e/publish"), "timeout": "60s"},
            },
            "namespaces": [{"name": "asked", "subscribe_proxy_enabled": True, "publish_proxy_enabled": True}],
        },
        "rpc": {
            "without_namespace": {"proxy_enabled": True},
            "proxy": {"endpoint": backend.url("/e2e/rpc"), "timeout": "60s"},
        },
    }


async def test_a_backend_decides(sdk: Sdk, broker: GetBroker, key: str, backend: Backend) -> None:
    daemon = await broker(config(backend))
    await backend.answer("/e2e/connect", {"result": {"user": "42", "info": {"name": "A"}}})
    await backend.answer("/e2e/subscribe", {"result": {"info": {"role": "x"}}})
    await backend.answer("/e2e/publish", {"result": {"data": {"text": "better"}}})
    await backend.answer("/e2e/rpc", {"result": {"data": {"sum": 3}}})
    alice = await sdk.connected(daemon.websocket, "alice")
    await alice.subscribe(f"asked:{key}")
    await alice.publish(f"asked:{key}", {"text": "hi"})
    publication = await alice.publication(f"asked:{key}")
    assert publication["data"] == {"text": "better"}
    assert publication["info"]["user"] == "42"
    assert publication["info"]["conn_info"] == {"name": "A"}
    assert publication["info"]["chan_info"] == {"role": "x"}
    (asked,) = await backend.requests("/e2e/publish")
    assert asked.json()["protocol"] == ("protobuf" if sdk.protobuf else "json")

    await backend.answer("/e2e/publish", {"error": {"code": 1000, "message": "not today"}})
    with pytest.raises(SdkError) as failed:
        await alice.publish(f"asked:{key}", {"text": "hi"})
    assert failed.value.code == 1000


def telling(endpoint: Callable[[str], str]) -> dict[str, Any]:
    """A daemon that tells a backend everything."""

    def proxy(kind: str) -> dict[str, Any]:
        return {"endpoint": endpoint(kind), "timeout": "60s"}

    return {
        "client": {"insecure": True, "proxy": {"disconnect": {"enabled": True, **proxy("disconnect")}}},
        "channel": {
            "namespaces": [{"name": "told", "unsubscribe_proxy_enabled": True, "state_proxy_enabled": True}],
            "proxy": {kind: proxy(kind) for kind in ("unsubscribe", "state")},
            "state": {"vacated_event_delay": "1ms"},
        },
    }


Told = Callable[[], Awaitable[Mapping[str, list[Any]]]]
"""What the backend has been told so far, by event."""


async def come_and_go(sdk: Sdk, daemon: Daemon, told: Told) -> None:
    """Two subscriptions: one ends by itself, the other with the connection. Then the daemon ends, too."""
    alice = await sdk.connected(daemon.websocket, "alice")
    await alice.subscribe("told:a")
    await alice.subscribe("told:b")
    with trio.fail_after(PATIENCE):
        while len(states(await told())) < 2:  # noqa: ASYNC110 (nobody tells us: it is another process)
            await trio.sleep(0.01)
    assert states(await told()) == {"told:a": "occupied", "told:b": "occupied"}
    await alice.unsubscribe("told:a")
    await alice.disconnect()
    await daemon.settle()
    await daemon.stop()
    events = await told()
    (gone,) = events["disconnect"]
    assert (gone["client"], gone["code"]) == (alice.id, 3000)
    assert gone["protocol"] == ("protobuf" if sdk.protobuf else "json")
    assert [(each["client"], each["channel"], each["code"]) for each in events["unsubscribe"]] == [
        (alice.id, "told:a", 0),
        (alice.id, "told:b", 1),
    ]
    assert states(events) == {"told:a": "vacated", "told:b": "vacated"}


def states(events: Mapping[str, list[Any]]) -> dict[str, str]:
    """The state of each channel, as the highest generation has it."""
    final: dict[str, tuple[int, str]] = {}
    for each in events["state"]:
        for state in each["events"]:
            final[state["channel"]] = max(final.get(state["channel"], (0, "")), (state["generation"], state["type"]))
    return {channel: kind for channel, (_, kind) in final.items()}


KINDS = ("disconnect", "unsubscribe", "state")


async def test_a_backend_is_told(sdk: Sdk, broker_process: StartBroker, backend: Backend) -> None:
    daemon = await broker_process(telling(lambda kind: backend.url(f"/e2e/told/{kind}")))
    for kind in KINDS:
        await backend.answer(f"/e2e/told/{kind}", {"result": {}})
    events: dict[str, list[Any]] = {kind: [] for kind in KINDS}

    async def told() -> Mapping[str, list[Any]]:
        for kind in KINDS:
            events[kind] += [asked.json() for asked in await backend.requests(f"/e2e/told/{kind}")]
        return events

    await come_and_go(sdk, daemon, told)


FUNCTIONS = """
import json

import attrs

from broker.hooks import DisconnectEvent, Hooks, StateEvent, UnsubscribeEvent

app = Hooks()


def note(kind: str, event: object) -> None:
    fields = attrs.asdict(event, filter=lambda field, value: field.name not in ("meta", "headers", "emulated_headers"))
    with open(kind, "a") as file:
        file.write(json.dumps(fields) + "\\n")


@app.on.disconnect()
async def disconnect(event: DisconnectEvent) -> None:
    note("disconnect", event)


@app.on.unsubscribe("told:*")
async def unsubscribe(event: UnsubscribeEvent) -> None:
    note("unsubscribe", event)


@app.on.state("told:*")
def state(event: StateEvent) -> None:
    note("state", event)
"""


async def test_functions_are_told(sdk: Sdk, broker_process: StartBroker, tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(FUNCTIONS)
    channel = {"namespaces": [{"name": "told"}], "state": {"vacated_event_delay": "1ms"}}
    daemon = await broker_process(
        {"client": {"insecure": True}, "channel": channel, "hooks": "told:app"},
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
    )

    async def told() -> Mapping[str, list[Any]]:
        files = {kind: daemon.config_file.parent / kind for kind in KINDS}
        return {
            kind: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            for kind, file in files.items()
        }

    await come_and_go(sdk, daemon, told)
