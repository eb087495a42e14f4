from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import Config, as_tree
from broker.config.env import Environment
from broker.config.structure import structure
from broker.values import Secret


def overlaid(env: dict[str, str], tree: dict[str, Any] | None = None) -> Config:
    """The configuration that `env` makes of a file's keys."""
    tree = tree or {}
    environment = Environment(env)
    environment.lay_over(tree, Config)
    config, problems = structure(tree)
    assert [*environment.problems, *problems] == []
    assert environment.unknown() == []
    return config


def complaints(env: dict[str, str], tree: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    tree = tree or {}
    environment = Environment(env)
    environment.lay_over(tree, Config)
    return environment.problems + structure(tree)[1]


def test_the_path_of_a_key_in_capitals() -> None:
    config = overlaid(
        {
            "CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY": "hunter2",
            "CENTRIFUGO_CLIENT_SUBSCRIPTION_TOKEN_ENABLED": "T",
            "CENTRIFUGO_CLIENT_PING_INTERVAL": "1m30s",
            "CENTRIFUGO_HTTP_SERVER_PORT": "0x2328",
            "CENTRIFUGO_PID_FILE": "/run/broker.pid",
            "CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_MAP_KEY_TTL": "1h",
            "CENTRIFUGO_BROKER_TYPE": "nats",
            "BROKER_BROKER_ENABLED": "1",
        }
    )
    assert config.client.token.hmac_secret_key == Secret("hunter2")
    assert config.client.subscription_token.enabled
    assert config.client.ping_interval == 90
    assert config.http_server.port == 9000
    assert config.pid_file == "/run/broker.pid"
    assert config.channel.without_namespace.map.key_ttl == 3600
    assert config.broker.type == "nats"
    assert config.broker.enabled


def test_broker_wins_over_centrifugo() -> None:
    assert overlaid({"BROKER_LOG_LEVEL": "debug", "CENTRIFUGO_LOG_LEVEL": "error"}).log.level == "debug"
    assert overlaid({"BROKER_LOG_LEVEL": "", "CENTRIFUGO_LOG_LEVEL": "error"}).log.level == "error"


def test_empty_is_unset_and_zero_is_not() -> None:
    tree: dict[str, Any] = {"client": {"channel_limit": 5, "ping_interval": "7s"}}
    config = overlaid({"CENTRIFUGO_CLIENT_CHANNEL_LIMIT": "", "CENTRIFUGO_CLIENT_PING_INTERVAL": "0"}, tree)
    assert config.client.channel_limit == 5
    assert config.client.ping_interval == 0


def test_lists_of_texts_are_separated_by_spaces() -> None:
    config = overlaid({"CENTRIFUGO_CLIENT_ALLOWED_ORIGINS": "https://a.example  https://b.example,c"})
    assert config.client.allowed_origins == ("https://a.example", "https://b.example,c")


def test_namespaces_by_a_list_of_names() -> None:
    config = overlaid(
        {
            "CENTRIFUGO_CHANNEL_NAMESPACES": "chat my-news.v2",
            "CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_PRESENCE": "true",
            "CENTRIFUGO_CHANNEL_NAMESPACES_MY_NEWS_V2_HISTORY_TTL": "5m",
            "CENTRIFUGO_CHANNEL_NAMESPACES_MY_NEWS_V2_ALLOWED_DELTA_TYPES": "fossil",
            "CENTRIFUGO_CHANNEL_NAMESPACES_MY_NEWS_V2_MAP_MODE": "ephemeral",
        }
    )
    chat, news = config.channel.namespaces
    assert (chat.name, chat.presence) == ("chat", True)
    assert (news.name, news.history_ttl, news.allowed_delta_types) == ("my-news.v2", 300, ("fossil",))
    assert news.map.mode == "ephemeral"


def test_names_join_those_of_the_file_and_variables_reach_both() -> None:
    tree: dict[str, Any] = {"channel": {"namespaces": [{"name": "chat", "history_size": 5}]}}
    config = overlaid(
        {
            "CENTRIFUGO_CHANNEL_NAMESPACES": "news chat",
            "CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_PRESENCE": "1",
            "CENTRIFUGO_CHANNEL_NAMESPACES_NEWS_PRESENCE": "1",
        },
        tree,
    )
    assert [(each.name, each.presence, each.history_size) for each in config.channel.namespaces] == [
        ("chat", True, 5),
        ("news", True, 0),
    ]


def test_arrays_as_json() -> None:
    tree: dict[str, Any] = {"channel": {"namespaces": [{"name": "old"}]}}
    config = overlaid(
        {
            "CENTRIFUGO_CHANNEL_NAMESPACES": '[{"name": "chat", "Presence": true, "history_size": 0}]',
            "CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_JOIN_LEAVE": "true",
            "CENTRIFUGO_RPC_NAMESPACES": '[{"name": "math", "proxy_name": ""}]',
            "CENTRIFUGO_CLIENT_CONNECT_CODE_TO_UNIDIRECTIONAL_DISCONNECT_TRANSFORMS": (
                '[{"code": 109, "to": {"code": 4500}}]'
            ),
        },
        tree,
    )
    (chat,) = config.channel.namespaces
    assert (chat.name, chat.presence, chat.join_leave) == ("chat", True, True)
    assert config.rpc.namespaces[0].proxy_name == "default"
    (transform,) = config.client.connect_code_to_unidirectional_disconnect.transforms
    assert (transform.code, transform.to.code) == (109, 4500)


def test_proxies_and_consumers_too() -> None:
    config = overlaid(
        {
            "CENTRIFUGO_PROXIES": "auth",
            "CENTRIFUGO_PROXIES_AUTH_ENDPOINT": "http://backend",
            "CENTRIFUGO_PROXIES_AUTH_HTTP_STATIC_HEADERS": '{"X-Key": "${CENTRIFUGO_VAR_KEY}-1"}',
            "CENTRIFUGO_VAR_KEY": "hunter2",
            "CENTRIFUGO_CONSUMERS": "queue",
            "CENTRIFUGO_CONSUMERS_QUEUE_KAFKA_BROKERS": "one:9092 two:9092",
        }
    )
    assert config.proxies[0].http.static_headers == {"X-Key": Secret("hunter2-1")}
    assert config.consumers[0].kafka.brokers == ("one:9092", "two:9092")


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({"CENTRIFUGO_HTTP_SERVER_PORT": "80a"}, ("http_server.port", 'not a whole number: "80a"')),
        ({"CENTRIFUGO_CLIENT_INSECURE": "yes"}, ("client.insecure", 'not a boolean: "yes"')),
        ({"CENTRIFUGO_CLIENT_PING_INTERVAL": "25"}, ("client.ping_interval", 'not a duration: "25"')),
        ({"CENTRIFUGO_CHANNEL_NAMESPACES": '[{"x": '}, ("channel.namespaces", "not a JSON array")),
        (
            {"CENTRIFUGO_CLIENT_CONNECT_CODE_TO_UNIDIRECTIONAL_DISCONNECT_TRANSFORMS": "{}"},
            ("client.connect_code_to_unidirectional_disconnect.transforms", "not a JSON array"),
        ),
        (
            {"CENTRIFUGO_CHANNEL_NAMESPACES": "chat", "CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_HISTORY_SIZE": "many"},
            ("channel.namespaces[chat].history_size", 'not a whole number: "many"'),
        ),
        (
            {"CENTRIFUGO_RPC_PROXY_HTTP_STATIC_HEADERS": '{"A": "${CENTRIFUGO_VAR_NONE}"}'},
            ("rpc.proxy.http.static_headers", "the variable CENTRIFUGO_VAR_NONE is not set"),
        ),
        (
            {"CENTRIFUGO_RPC_PROXY_HTTP_STATIC_HEADERS": "A:hunter2"},
            ("rpc.proxy.http.static_headers", "not a JSON object"),
        ),
    ],
)
def test_what_is_wrong_has_a_path(env: dict[str, str], problem: tuple[str, str]) -> None:
    assert complaints(env) == [problem]


def test_variables_in_mappings_of_the_file() -> None:
    tree: dict[str, Any] = {
        "proxies": [{"name": "auth", "http": {"static_headers": {"x-key": "${CENTRIFUGO_VAR_KEY}"}}}]
    }
    config = overlaid({"CENTRIFUGO_VAR_KEY": "hunter2"}, tree)
    assert config.proxies[0].http.static_headers == {"x-key": Secret("hunter2")}


def test_unknown_variables() -> None:
    environment = Environment(
        {
            "CENTRIFUGO_FOO": "1",
            "BROKER_CLIENT": "1",
            "CENTRIFUGO_CHANNEL_NAMESPACES_NEWS_PRESENCE": "1",
            "CENTRIFUGO_LOG_LEVEL": "info",
            "CENTRIFUGO_VAR_X": "1",
            "CENTRIFUGO_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "CENTRIFUGO_SERVICE_HOST": "10.0.0.1",
            "CENTRIFUGO_METRICS_SERVICE_PORT": "9000",
            "BROKER_PORT": "tcp://10.0.0.1:8000",
            "PATH": "/bin",
            "CENTRIFUGO": "1",
        }
    )
    environment.lay_over({}, Config)
    assert environment.unknown() == ["BROKER_CLIENT", "CENTRIFUGO_CHANNEL_NAMESPACES_NEWS_PRESENCE", "CENTRIFUGO_FOO"]


def test_a_section_that_is_no_section_stays_wrong() -> None:
    assert complaints({"CENTRIFUGO_LOG_LEVEL": "debug"}, {"log": "loud"}) == [("log", "not a section: a text")]


@given(st.dictionaries(st.sampled_from(sorted(json.loads(json.dumps(as_tree(Config()))))), st.text(min_size=1)))
def test_any_texts_give_a_configuration_or_problems(texts: dict[str, str]) -> None:
    env = {f"CENTRIFUGO_{name.upper()}": text for name, text in texts.items()}
    complaints(env)
