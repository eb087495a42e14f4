"""The configurations that the test suites of the official SDKs run their servers with (client protocol §9.1, §9.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.config.conftest import Scene

HISTORY = {"history_size": 100, "history_ttl": "300s", "force_recovery": True}
DELTA = {"allowed_delta_types": ["fossil"], "delta_publish": True}
STREAM = {**HISTORY, "allow_subscribe_for_client": True, "allow_publish_for_subscriber": True}
POLL = {"refresh_interval": "200ms", "refresh_batch_size": 100, "max_keys_per_connection": 100}


def map_namespace(name: str, **options: object) -> dict[str, Any]:
    return {"name": name, "subscription_type": "map", "map": options}


CENTRIFUGE_JS: dict[str, Any] = {
    "client": {"insecure": True, "concurrency": 8, "token": {"hmac_secret_key": "secret"}},
    "http_stream": {"enabled": True},
    "sse": {"enabled": True},
    "map_broker": {},
    "shared_poll": {"hmac_secret_key": "test-poll-secret"},
    "http_api": {"key": "test-api-key"},
    "proxies": [
        {"name": "poll_backend", "endpoint": "http://host:3010/refresh", "timeout": "5s"},
        {"name": "poll_backend_pb", "endpoint": "http://host:3011/refresh", "timeout": "5s"},
    ],
    "channel": {
        "without_namespace": {"presence": True, **DELTA, **HISTORY},
        "namespaces": [
            {"name": "delta", **STREAM, **DELTA},
            {"name": "recovery", **STREAM},
            {"name": "smallhistory", **STREAM, "history_size": 2},
            map_namespace("streamless", mode="ephemeral", key_ttl="60s"),
            map_namespace("positioned", mode="persistent"),
            map_namespace("debounced", mode="ephemeral", key_ttl="60s") | {"client_publish_debounce_interval": "50ms"},
            map_namespace("tagged", mode="persistent") | {"allow_tags_filter": True},
            {"name": "poll", "subscription_type": "shared_poll", "shared_poll": POLL | {"proxy_name": "poll_backend"}},
        ],
    },
}
MISSING = [
    *(
        f"channel.namespaces[{name}].subscription_type: map subscriptions are not in this version"
        for name in ("streamless", "positioned", "debounced", "tagged")
    ),
    "channel.namespaces[poll].subscription_type: shared poll subscriptions are not in this version",
]


def test_centrifuge_js_asks_for_more_than_there_is(scene: Scene) -> None:
    assert scene.problems(CENTRIFUGE_JS) == MISSING


def test_centrifuge_js_without_what_is_missing(scene: Scene) -> None:
    streams = CENTRIFUGE_JS["channel"]["namespaces"][:3]
    loaded = scene.load(CENTRIFUGE_JS | {"channel": CENTRIFUGE_JS["channel"] | {"namespaces": streams}})
    assert loaded.unknown_keys == ()
    config = loaded.config
    assert [each.name for each in config.channel.namespaces] == ["delta", "recovery", "smallhistory"]
    assert config.channel.namespaces[0].delta_publish
    assert config.channel.namespaces[2].history_size == 2
    assert config.client.token.hmac_secret_key.reveal() == "secret"
    assert config.client.concurrency == 8


def test_keys_of_the_commercial_edition_only_warn(scene: Scene) -> None:
    file = {"channel": {"namespaces": [{"name": "debounced", "client_publish_debounce_interval": "50ms"}]}}
    assert scene.load(file).unknown_keys == ("channel.namespaces[debounced].client_publish_debounce_interval",)


def test_centrifuge_python(scene: Scene) -> None:
    without = {
        "ALLOWED_DELTA_TYPES": "fossil",
        "DELTA_PUBLISH": "true",
        "PRESENCE": "true",
        "JOIN_LEAVE": "true",
        "FORCE_PUSH_JOIN_LEAVE": "true",
        "HISTORY_SIZE": "100",
        "HISTORY_TTL": "300s",
        "FORCE_RECOVERY": "true",
        "ALLOW_PUBLISH_FOR_SUBSCRIBER": "true",
        "ALLOW_PRESENCE_FOR_SUBSCRIBER": "true",
        "ALLOW_HISTORY_FOR_SUBSCRIBER": "true",
    }
    small = {
        "HISTORY_SIZE": "2",
        "HISTORY_TTL": "300s",
        "FORCE_RECOVERY": "true",
        "ALLOW_PUBLISH_FOR_SUBSCRIBER": "true",
        "ALLOW_HISTORY_FOR_SUBSCRIBER": "true",
    }
    env = {
        "CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY": "secret",
        "CENTRIFUGO_CLIENT_SUBSCRIBE_TO_USER_PERSONAL_CHANNEL_ENABLED": "true",
        "CENTRIFUGO_CHANNEL_NAMESPACES": "smallhistory",
        **{f"CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_{key}": value for key, value in without.items()},
        **{f"CENTRIFUGO_CHANNEL_NAMESPACES_SMALLHISTORY_{key}": value for key, value in small.items()},
    }
    loaded = scene.load(env=env)
    assert loaded.unknown_env == ()
    channel = loaded.config.channel
    assert channel.without_namespace.allowed_delta_types == ("fossil",)
    assert channel.without_namespace.force_push_join_leave
    assert channel.without_namespace.history_ttl == 300
    assert [(each.name, each.history_size) for each in channel.namespaces] == [("smallhistory", 2)]
    assert loaded.config.client.subscribe_to_user_personal_channel.enabled


def test_centrifuge_go(scene: Scene) -> None:
    """It runs the daemon with a flag, as `--client.insecure`."""
    config = scene.load(flags={"client.insecure": "true"}).config
    assert config.client.insecure
    assert not config.channel.without_namespace.presence
