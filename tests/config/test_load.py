from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING

import attrs
import pytest

from broker.config import Config, ConfigError, Sources, load, reloader
from broker.config.schema import keys_of
from broker.glob import compile_glob

if TYPE_CHECKING:
    from tests.config.conftest import Scene

LAYERS = ("flag", "environment", "dotenv", "file", "development")


@pytest.mark.parametrize("given", [c for n in range(6) for c in itertools.combinations(LAYERS, n)], ids="-".join)
def test_precedence(scene: Scene, given: tuple[str, ...]) -> None:
    """The first of the layers that says something decides."""
    says = {layer: f"10.0.0.{number}" for number, layer in enumerate(LAYERS)} | {"development": "127.0.0.1"}
    loaded = scene.load(
        {"http_server": {"address": says["file"]}} if "file" in given else None,
        env={"CENTRIFUGO_HTTP_SERVER_ADDRESS": says["environment"]} if "environment" in given else {},
        dotenv=f"CENTRIFUGO_HTTP_SERVER_ADDRESS={says['dotenv']}" if "dotenv" in given else "",
        flags={"http_server.address": says["flag"]} if "flag" in given else {},
        development="development" in given,
    )
    assert loaded.config.http_server.address == (says[given[0]] if given else "")


@pytest.mark.parametrize("zero", [0, "0", False, "", None])
def test_a_zero_in_the_file_is_not_set(scene: Scene, zero: object) -> None:
    assert scene.load({"client": {"channel_limit": zero}}).config.client.channel_limit == 128


@pytest.mark.parametrize("zero", ["0s", "0", 0, "", None])
def test_a_zero_duration_in_the_file_is_not_set(scene: Scene, zero: object) -> None:
    assert scene.load({"shutdown": {"timeout": zero}}).config.shutdown.timeout == 30


def test_a_zero_given_as_flag_or_variable_counts(scene: Scene) -> None:
    loaded = scene.load(
        {"http_server": {"port": 9000}, "client": {"channel_limit": 7}},
        flags={"http_server.port": "0"},
        env={"CENTRIFUGO_CLIENT_CHANNEL_LIMIT": "0"},
    )
    assert loaded.config.http_server.port == 0
    assert loaded.config.client.channel_limit == 0


def test_loose_types(scene: Scene) -> None:
    config = scene.load(
        {
            "http_server": {"port": "9000", "internal_port": 9001},
            "client": {"allowed_origins": "https://a.example", "insecure": "true", "queue_max_size": "0x1000"},
            "websocket": {"write_timeout": 2_000_000_000, "disabled": 1},
            "channel": {"namespaces": {"name": "only", "presence": 1}},
        }
    ).config
    assert (config.http_server.port, config.http_server.internal_port) == (9000, "9001")
    assert config.client.allowed_origins == ("https://a.example",)
    assert config.client.insecure
    assert config.client.queue_max_size == 4096
    assert config.websocket.write_timeout == 2
    assert config.websocket.disabled
    assert [(each.name, each.presence) for each in config.channel.namespaces] == [("only", True)]


def test_every_bad_key_is_named(scene: Scene) -> None:
    problems = scene.problems(
        {
            "Client": {"ping_interval": "5 days", "token": {"hmac_secret_key": ["hunter2"]}, "allowed_origins": [{}]},
            "channel": {
                "namespaces": [{"name": "chat", "history_ttl": "5 days", "map": {"mode": {}}}, {"presence": "maybe"}, 7]
            },
            "log": [],
            "proxies": [{"name": "auth", "http": {"status_to_code_transforms": [{"to_error": {"code": "x"}}]}}],
        },
        env={"CENTRIFUGO_CLIENT_CHANNEL_LIMIT": "many", "BROKER_CHANNEL_MAX_LENGTH": "long"},
        flags={"http_server.port": "high"},
    )
    assert sorted(problems) == [
        'channel.max_length: not a whole number: "long" (from BROKER_CHANNEL_MAX_LENGTH)',
        'channel.namespaces[1].presence: not a boolean: "maybe"',
        "channel.namespaces[2]: not a section: a number",
        'channel.namespaces[chat].history_ttl: not a duration: "5 days"',
        "channel.namespaces[chat].map.mode: not a text: a section",
        "client.allowed_origins[0]: not a text: a section",
        'client.channel_limit: not a whole number: "many" (from CENTRIFUGO_CLIENT_CHANNEL_LIMIT)',
        'client.ping_interval: not a duration: "5 days"',
        "client.token.hmac_secret_key: not a text: a list",
        'http_server.port: not a whole number: "high" (from --http_server.port)',
        "log: not a section: a list",
        'proxies[auth].http.status_to_code_transforms[0].to_error.code: not a whole number: "x"',
    ]


def test_rules_name_the_variable_too(scene: Scene) -> None:
    assert scene.problems({}, env={"CENTRIFUGO_MAP_BROKER_TYPE": "redis"}) == [
        "map_broker.type: the map broker on a database is not in this version (from CENTRIFUGO_MAP_BROKER_TYPE)"
    ]


def test_unknown_keys_and_variables_are_told_and_tolerated(scene: Scene) -> None:
    loaded = scene.load(
        {
            "Foo": 1,
            "client": {"rate_limit": {"x": 1}},
            "channel": {
                "namespaces": [{"name": "chat", "client_publish_debounce_interval": "50ms"}, {"name": "no", "y": 1}]
            },
            "proxies": [{"name": "auth", "http": {"static_headers": {"any": "thing"}}}],
        },
        env={"CENTRIFUGO_BAR": "1"},
    )
    assert loaded.unknown_keys == (
        "foo",
        "client.rate_limit",
        "channel.namespaces[chat].client_publish_debounce_interval",
        "channel.namespaces[no].y",
    )
    assert loaded.unknown_env == ("CENTRIFUGO_BAR",)
    assert "unknown key in configuration file: client.rate_limit" in loaded.warnings
    assert "unknown var in environment: CENTRIFUGO_BAR" in loaded.warnings


def test_no_file_is_a_warning(scene: Scene) -> None:
    loaded = scene.load(name="nothing.json")
    assert loaded.config == Config()
    assert loaded.warnings == ["config file not found, continue using environment and flag options"]
    assert load(Sources(file=None, environ={}, dotenv=scene.folder / ".env")).config == Config()


def test_the_process_environment_is_the_default(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_NODE_NAME", "here")
    assert Sources().environ is os.environ
    assert load(Sources(file=None, dotenv=scene.folder / ".env")).config.node.name == "here"


SECRETS = {
    "client": {
        "token": {"hmac_secret_key": "PLANTED-1", "hmac_previous_secret_key": "PLANTED-2"},
        "subscription_token": {"hmac_secret_key": "PLANTED-3"},
        "proxy": {"connect": {"endpoint": "http://u:PLANTED-4@h", "http": {"static_headers": {"a": "PLANTED-5"}}}},
    },
    "http_api": {"key": "PLANTED-6"},
    "admin": {"password": "PLANTED-7", "secret": "PLANTED-8"},
    "engine": {"redis": {"address": "redis://:PLANTED-9@h", "password": "PLANTED-10"}},
    "broker": {"nats": {"url": "nats://u:PLANTED-11@h"}, "postgres": {"dsn": "postgres://u:PLANTED-12@h"}},
    "http_server": {"tls": {"key_pem": "PLANTED-13"}},
    "consumers": [{"name": "queue", "type": "kafka", "kafka": {"sasl_password": "PLANTED-14"}}],
    "grpc_api": {"key": "PLANTED-15"},
    "shared_poll": {"hmac_secret_key": "PLANTED-16"},
}


def test_secrets_show_nowhere(scene: Scene) -> None:
    loaded = scene.load(SECRETS)
    assert loaded.config.http_api.key.reveal() == "PLANTED-6"
    for text in (repr(loaded), str(loaded.config), *loaded.warnings):
        assert "PLANTED" not in text


def test_secrets_show_in_no_error(scene: Scene) -> None:
    """Whatever is wrong around them: another shape, a bad rule, a file that ends too soon."""
    text = json.dumps(SECRETS)
    wrong_shapes = text.replace('"PLANTED', '["PLANTED').replace('"}', '"]}').replace('", "', '"], "')
    for broken in (text[:-1], text[:500], wrong_shapes):
        assert not any("PLANTED" in problem for problem in scene.problems(broken))
    enabled = text.replace('{"key_pem"', '{"enabled": true, "cert_pem": "PLANTED", "key_pem"').replace(
        "PLANTED-13", "PLANTED\\n"
    )
    assert not any("PLANTED-" in problem for problem in scene.problems(enabled))


def test_every_problem_is_one_line_of_printable_text(scene: Scene) -> None:
    odd = "a\nb\x1b[31m"
    files: list[dict[str, object]] = [
        {"client": {"ping_interval": odd}, "channel": {"namespaces": [{"name": odd, "presence": odd}]}},
        {"engine": {"type": odd}, "http_server": {"internal_port": odd}, "channel": {"namespaces": [{"name": odd}]}},
        {"consumers": [{"name": odd, "type": odd}], "client": {"token": {"issuer_regex": f"({odd}"}}},
    ]
    for file in files:
        assert all(problem.isprintable() for problem in scene.problems(file))
    assert all(key.isprintable() for key in scene.load({odd: 1}).unknown_keys)


def test_development_settings(scene: Scene) -> None:
    config = scene.load(development=True).config
    assert config.http_server.address == "127.0.0.1"
    assert config.dev.enabled
    assert config.client.insecure
    assert config.http_api.insecure
    assert config.health.enabled
    assert config.channel.without_namespace.presence
    assert config.channel.without_namespace.history_size == 100
    assert config.channel.without_namespace.history_ttl == 600
    for origin in ("http://localhost:8000", "https://127.0.0.1:5173", "http://[::1]:8000", "http://localhost"):
        assert any(compile_glob(glob).fullmatch(origin) for glob in config.client.allowed_origins)
    for origin in ("http://localhost.example", "http://evil.example", "null", "http://127.0.0.1.example:80"):
        assert not any(compile_glob(glob).fullmatch(origin) for glob in config.client.allowed_origins)
    own = scene.load({"client": {"allowed_origins": ["https://mine.example"]}}, development=True).config
    assert own.client.allowed_origins == ("https://mine.example",)
    assert own.client.insecure


def test_our_own_keys_are_new_keys(scene: Scene) -> None:
    config = scene.load({"http_server": {"unix_socket": "/run/broker.sock"}, "dev": {"enabled": True}}).config
    assert config.http_server.unix_socket == "/run/broker.sock"
    assert config.dev.enabled
    assert "dev" in keys_of(Config)


# ---- reload -------------------------------------------------------------------------------------------------------


def test_reload_reads_the_same_sources_and_keeps_the_flags(scene: Scene) -> None:
    sources = scene.sources({"client": {"channel_limit": 5}, "foo": 1}, flags={"log.level": "debug"})
    reload = reloader(sources, load(sources))
    scene.sources({"client": {"channel_limit": 6}, "log": {"level": "error"}, "foo": 2})
    config = reload().config
    assert config.client.channel_limit == 6
    assert config.log.level == "debug"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"client": ', "not JSON"),
        ("", "not JSON"),
        ('{"client": {"channel_limit": "many"}}', "client.channel_limit: not a whole number"),
        ('{"channel": {"without_namespace": {"channel_regex": "("}}}', "channel_regex: not a regular expression"),
        ('{"client": {"chanel_limit": 6}}', "client.chanel_limit: unknown key"),
        ('{"map_broker": {"type": "redis"}}', "map_broker.type: the map broker on a database is not in this version"),
        (
            '{"http_server": {"tls": {"enabled": true, "cert_pem": "/no", "key_pem": "/no"}}}',
            "http_server.tls.cert_pem",
        ),
        ("{}", "the file is empty"),
        (None, "the file is gone"),
    ],
)
def test_a_broken_reload_raises(scene: Scene, content: str | None, problem: str) -> None:
    sources = scene.sources({"client": {"channel_limit": 5}})
    reload = reloader(sources, load(sources))
    assert sources.file is not None
    if content is None:
        sources.file.unlink()
    else:
        sources.file.write_text(content)
    with pytest.raises(ConfigError, match=problem):
        reload()


def test_without_a_file_at_start_none_is_needed(scene: Scene) -> None:
    sources = scene.sources()
    assert reloader(sources, load(sources))().config == Config()


def test_frozen_sources_say_the_same_later(scene: Scene) -> None:
    sources = scene.sources(
        {"client": {"channel_limit": 5}, "foo": 1},
        env={"CENTRIFUGO_LOG_LEVEL": "debug", "CENTRIFUGO_X": "1"},
        dotenv="BROKER_HTTP_API_KEY=hunter2",
        flags={"http_server.port": "0"},
    )
    first = load(sources)
    scene.sources({"client": {"channel_limit": 6}}, dotenv="BROKER_HTTP_API_KEY=other")
    again = load(first.sources)
    assert attrs.evolve(again, sources=first.sources) == first
    assert load(sources).config != first.config
    assert "hunter2" not in repr(first.sources)
    scene.sources({"client": {"channel_limit": "many"}})
    assert load(first.sources).config == first.config
