"""Proxies that are used have to be usable; those that are not are left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.config.conftest import Scene

GOOD: dict[str, Any] = {"endpoint": "http://backend/hook"}


def rpc(proxy: dict[str, Any]) -> dict[str, Any]:
    return {"rpc": {"without_namespace": {"proxy_enabled": True}, "proxy": proxy}}


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ({}, "rpc.proxy.endpoint: must be set"),
        ({"endpoint": "grpc://backend:1"}, "rpc.proxy.endpoint: gRPC backends are not in this version"),
        ({"endpoint": "backend:1"}, "rpc.proxy.endpoint: gRPC backends are not in this version"),
        ({**GOOD, "timeout": "-1s"}, "rpc.proxy.timeout: must be more than 0: -1s"),
        ({**GOOD, "http": {"max_connections": -1}}, "rpc.proxy.http.max_connections: must be at least 1: -1"),
    ],
)
def test_a_used_proxy_is_checked(scene: Scene, proxy: dict[str, Any], problem: str) -> None:
    (line,) = scene.problems(rpc(proxy))
    assert line.startswith(problem)


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        ({"to_error": {"code": 400}}, ".status_code: must be set"),
        ({"status_code": 400}, ": needs either to_error.code or to_disconnect.code"),
        ({"status_code": 400, "to_error": {"code": 1}, "to_disconnect": {"code": 4000}}, ": needs either"),
        ({"status_code": 400, "to_disconnect": {"code": 1}}, ".to_disconnect.code: not from 3000 to 4999"),
        ({"status_code": 400, "to_error": {"code": 1, "message": "ü"}}, ".to_error.message: must be ASCII"),
        ({"status_code": 400, "to_disconnect": {"code": 4000, "reason": "x" * 124}}, ".to_disconnect.reason: must be"),
    ],
)
def test_transforms_are_checked(scene: Scene, transform: dict[str, Any], problem: str) -> None:
    (line,) = scene.problems(rpc({**GOOD, "http": {"status_to_code_transforms": [transform]}}))
    assert line.startswith(f"rpc.proxy.http.status_to_code_transforms[0]{problem}")


def test_a_name_must_exist_where_it_is_used(scene: Scene) -> None:
    used = {"name": "chat", "subscribe_proxy_enabled": True, "subscribe_proxy_name": "gate"}
    off = {"name": "off", "subscribe_proxy_name": "gate"}
    assert scene.problems({"channel": {"namespaces": [used, off]}}) == [
        'channel.namespaces[chat].subscribe_proxy_name: no such proxy: "gate"'
    ]
    scene.load({"channel": {"namespaces": [used]}, "proxies": [{"name": "gate", **GOOD}]})


def test_switched_proxies_and_defaults(scene: Scene) -> None:
    assert scene.problems({"client": {"proxy": {"connect": {"enabled": True}}}}) == [
        "client.proxy.connect.endpoint: must be set"
    ]
    assert scene.problems({"channel": {"without_namespace": {"publish_proxy_enabled": True}}}) == [
        "channel.proxy.publish.endpoint: must be set"
    ]


def test_certificates_are_read(scene: Scene) -> None:
    (line,) = scene.problems(rpc({**GOOD, "http": {"tls": {"enabled": True, "server_ca_pem": "/nowhere"}}}))
    assert line.startswith("rpc.proxy.http.tls.server_ca_pem: ")


def test_who_is_told_has_to_be_there(scene: Scene) -> None:
    told = {"unsubscribe_proxy_enabled": True, "state_proxy_enabled": True, "state_proxy_name": "states"}
    state = {"vacated_event_delay": "-1s", "batch_max_delay": "-1ms", "batch_max_size": -1}
    assert sorted(
        scene.problems(
            {
                "client": {"proxy": {"disconnect": {"enabled": True}}},
                "channel": {"namespaces": [{"name": "chat", **told}], "state": state},
            }
        )
    ) == [
        'channel.namespaces[chat].state_proxy_name: no such proxy: "states"',
        "channel.proxy.unsubscribe.endpoint: must be set",
        "channel.state.batch_max_delay: must not be negative: -1ms",
        "channel.state.batch_max_size: must be at least 1: -1",
        "channel.state.vacated_event_delay: must not be negative: -1s",
        "client.proxy.disconnect.endpoint: must be set",
    ]
    channel = {"proxy": {"state": GOOD, "unsubscribe": GOOD}, "without_namespace": {"state_proxy_enabled": True}}
    scene.load({"client": {"proxy": {"disconnect": {"enabled": True, **GOOD}}}, "channel": channel})
