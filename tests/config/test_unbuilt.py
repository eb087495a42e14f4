"""What asks for something that this version has not is refused, and nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.config.conftest import Scene

ASKS = [
    ("engine.redis.history_use_lists", True),
    ("broker.redis.history_use_lists", True),
    ("map_broker.type", "redis"),
    ("map_broker.type", "postgres"),
    ("controller.enabled", True),
    *(
        (f"channel.without_namespace.{key}", value)
        for key, value in [
            ("subscription_type", "map"),
            ("subscription_type", "map_clients"),
            ("subscription_type", "map_users"),
            ("subscription_type", "shared_poll"),
            ("map_clients_presence_channel_prefix", "p:"),
            ("map_users_presence_channel_prefix", "p:"),
            ("subscribe_stream_proxy_enabled", True),
            ("map.publish_proxy_enabled", True),
            ("map.remove_proxy_enabled", True),
        ]
    ),
    ("http_server.tls_autocert.enabled", True),
    ("http_server.http3.enabled", True),
    ("http_server.h2c_external", True),
    ("grpc_api.enabled", True),
    *((f"{transport}.enabled", True) for transport in ["webtransport", "uni_grpc"]),
    ("admin.enabled", True),
    ("swagger.enabled", True),
    ("debug.enabled", True),
    ("prometheus.instrument_http_handlers", True),
    ("prometheus.recovered_publications_histogram", True),
    ("prometheus.native_histograms", True),
    ("opentelemetry.enabled", True),
    ("graphite.enabled", True),
]


def nested(path: str, value: object) -> dict[str, Any]:
    for step in reversed(path.split(".")):
        value = {step: value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(("path", "value"), ASKS, ids=[f"{path}={value}" for path, value in ASKS])
def test_one_clear_line(scene: Scene, path: str, value: object) -> None:
    (line,) = scene.problems(nested(path, value))
    assert line.startswith(f"{path}: ")
    assert line.endswith(" not in this version")


@pytest.mark.parametrize("kind", ["nats", "redisnats", "postgres"])
def test_the_broker_only_when_it_is_switched_on(scene: Scene, kind: str) -> None:
    scene.load({"broker": {"type": kind}})
    (line,) = scene.problems({"broker": {"enabled": True, "type": kind}})
    assert line.startswith("broker.type: the ")
    scene.load({"broker": {"enabled": True, "type": "memory"}})


def test_items_of_lists_are_named(scene: Scene) -> None:
    problems = scene.problems(
        {
            "channel": {"namespaces": [{"name": "fine"}, {"name": "poll", "subscription_type": "shared_poll"}]},
            "consumers": [{"name": "queue", "type": "kafka", "enabled": True}, {"name": "off", "type": "kafka"}],
        }
    )
    assert problems == [
        "channel.namespaces[poll].subscription_type: shared poll subscriptions are not in this version",
        "consumers[queue].enabled: consuming from queues is not in this version",
    ]


def test_settings_of_what_is_off_are_left_alone(scene: Scene) -> None:
    scene.load(
        {
            "engine": {"redis": {"address": "redis://h:6379", "tls": {"enabled": True}}},
            "proxies": [{"name": "auth", "endpoint": "http://backend"}],
            "channel": {"proxy": {"subscribe": {"endpoint": "http://backend"}}},
            "shared_poll": {"hmac_secret_key": "x"},
            "map_broker": {},
            "admin": {"password": "x", "secret": "y"},
            "webtransport": {"handler_prefix": "/wt"},
            "client": {"concurrency": 8},
            "websocket": {"read_buffer_size": 4096, "write_buffer_size": 4096, "use_write_buffer_pool": True},
            "usage_stats": {"disabled": True},
            "enable_unreleased_features": True,
        }
    )
