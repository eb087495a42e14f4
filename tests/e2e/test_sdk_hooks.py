"""The official SDKs against a daemon that asks a backend process over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import GetBroker
from tests.e2e.sdk import Sdk, SdkError
from tests.support.backend import Backend


def config(backend: Backend) -> dict[str, Any]:
    return {
        "client": {"proxy": {"connect": {"enabled": True, "endpoint": backend.url("/e2e/connect"), "timeout": "5s"}}},
        "channel": {
            "proxy": {
                "subscribe": {"endpoint": backend.url("/e2e/subscribe"), "timeout": "5s"},
                "publish": {"endpoint": backend.url("/e2e/publish"), "timeout": "5s"},
            },
            "namespaces": [{"name": "asked", "subscribe_proxy_enabled": True, "publish_proxy_enabled": True}],
        },
        "rpc": {
            "without_namespace": {"proxy_enabled": True},
            "proxy": {"endpoint": backend.url("/e2e/rpc"), "timeout": "5s"},
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
