from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.config import hooks_advice

if TYPE_CHECKING:
    from tests.config.conftest import Scene


def channel(**options: object) -> dict[str, Any]:
    return {"channel": {"namespaces": [{"name": "chat", **options}]}}


HISTORY = {"history_size": 10, "history_ttl": "60s"}
REDIS: dict[str, Any] = {"engine": {"type": "redis"}}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"engine": {"type": "etcd"}}, 'engine.type: unknown: "etcd" (one of memory, redis)'),
    ({"broker": {"type": "etcd"}}, "broker.type: unknown"),
    ({"presence_manager": {"type": "nats"}}, "presence_manager.type: unknown"),
    ({"map_broker": {"type": "nats"}}, "map_broker.type: unknown"),
    ({"http_api": {"error_mode": "loud"}}, 'http_api.error_mode: unknown: "loud" (one of "", transport)'),
    ({"channel": {"publication_data_format": "xml"}}, "channel.publication_data_format: unknown"),
    (channel(publication_data_format="xml"), "channel.namespaces[chat].publication_data_format: unknown"),
    (channel(force_recovery_mode="all"), "channel.namespaces[chat].force_recovery_mode: unknown"),
    (channel(subscription_type="tree"), "channel.namespaces[chat].subscription_type: unknown"),
    (channel(allowed_delta_types=["fossil", "xdelta"]), "channel.namespaces[chat].allowed_delta_types: unknown"),
    (channel(history_size=10), "channel.namespaces[chat].history_ttl: history needs both"),
    (channel(history_ttl="60s"), "channel.namespaces[chat].history_size: history needs both"),
    (
        channel(history_size=10, history_ttl="1500ms"),
        "channel.namespaces[chat].history_ttl: must be whole seconds: 1.5s",
    ),
    (channel(**HISTORY, history_meta_ttl="60.5s"), "channel.namespaces[chat].history_meta_ttl: must be whole seconds"),
    (channel(**HISTORY, history_meta_ttl="59s"), "channel.namespaces[chat].history_ttl: must not be longer"),
    (channel(history_size=10, history_ttl="721h"), "channel.namespaces[chat].history_ttl: must not be longer"),
    ({"channel": {"history_meta_ttl": "100ms"}}, "channel.history_meta_ttl: must be whole seconds"),
    (channel(force_recovery=True), "channel.namespaces[chat].force_recovery: needs history_size and history_ttl"),
    (channel(**HISTORY, auto_cache_recover=True), "channel.namespaces[chat].auto_cache_recover: needs force_recovery"),
    (
        channel(**HISTORY, force_recovery=True, auto_cache_recover=True),
        "channel.namespaces[chat].auto_cache_recover: needs force_recovery",
    ),
    (channel(channel_regex="("), "channel.namespaces[chat].channel_regex: not a regular expression"),
    (channel(channel_regex="(?=a)"), "channel.namespaces[chat].channel_regex: not a regular expression"),
    ({"channel": {"namespaces": [{"name": "c"}]}}, "channel.namespaces[0].name: must match"),
    ({"channel": {"namespaces": [{"name": "with space"}]}}, "channel.namespaces[0].name: must match"),
    ({"channel": {"namespaces": [{}]}}, "channel.namespaces[0].name: must match"),
    ({"channel": {"namespaces": [{"name": "chat\n"}]}}, "channel.namespaces[0].name: must match"),
    (
        {"channel": {"namespaces": [{"name": "chat"}, {"name": "chat"}]}},
        "channel.namespaces[chat].name: comes more than once",
    ),
    ({"rpc": {"namespaces": [{"name": "x"}]}}, "rpc.namespaces[0].name: must match"),
    ({"proxies": [{"name": "default"}]}, "proxies[default].name: is reserved"),
    ({"consumers": [{"name": "a-b", "type": "kafka"}]}, "consumers[0].name: must match"),
    ({"consumers": [{"name": "queue", "type": "amqp"}]}, "consumers[queue].type: unknown"),
    ({"client": {"token": {"user_id_claim": "user-id"}}}, "client.token.user_id_claim: may hold only letters and _"),
    ({"client": {"token": {"issuer_regex": "("}}}, "client.token.issuer_regex: "),
    ({"client": {"token": {"rsa_public_key": "hunter2"}}}, "client.token.rsa_public_key: "),
    (
        {"client": {"subscription_token": {"enabled": True, "audience_regex": "["}}},
        "client.subscription_token.audience_regex: ",
    ),
    (
        {"client": {"ping_interval": "5s", "pong_timeout": "5s"}},
        "client.ping_interval: must be longer than client.pong_timeout (5s, 5s)",
    ),
    ({"client": {"allowed_origins": ["https://[a"]}}, "client.allowed_origins: "),
    (
        {"client": {"subscribe_to_user_personal_channel": {"enabled": True, "personal_channel_namespace": "own"}}},
        "client.subscribe_to_user_personal_channel.personal_channel_namespace: no such namespace",
    ),
    (
        {"client": {"subscribe_to_user_personal_channel": {"enabled": True, "single_connection": True}}},
        "client.subscribe_to_user_personal_channel.single_connection: needs presence",
    ),
    ({"node": {"info_metrics_aggregate_interval": "-1s"}}, "node.info_metrics_aggregate_interval: must be longer"),
    (
        {"workers": 2},
        "workers: 2 workers would not share the memory engine, which lives in one process; set engine.type",
    ),
    ({"workers": "many"}, 'workers: not a number from 1 to 512, nor auto: "many"'),
    ({"workers": -2}, 'workers: not a number from 1 to 512, nor auto: "-2"'),
    ({"workers": "0x2"}, "workers: not a number"),
    ({"workers": 513}, "workers: not a number"),
    (
        REDIS | {"workers": 2, "sockjs": {"enabled": True}},
        "workers: sockjs.enabled needs a client's requests to",
    ),
    (REDIS | {"workers": "auto", "dev": {"enabled": True}}, "workers: development settings"),
    (
        {"workers": 2, "broker": {"enabled": True, "type": "redis"}},
        "workers: 2 workers would not share the memory engine",
    ),
    ({"http_server": {"port": 65536}}, "http_server.port: not a port: 65536"),
    ({"http_server": {"port": -1}}, "http_server.port: not a port: -1"),
    ({"http_server": {"internal_port": "api"}}, 'http_server.internal_port: not a port: "api"'),
    ({"http_server": {"internal_port": 70000}}, "http_server.internal_port: not a port"),
    (
        {"http_server": {"trusted_proxies": ["10.0.0.0/8", "10.0.0.1/8"]}},
        "http_server.trusted_proxies[1]: 10.0.0.1/8 is an address within a network: say 10.0.0.0/8",
    ),
    ({"websocket": {"handler_prefix": "ws"}}, "websocket.handler_prefix: must start with /"),
    (
        {"websocket": {"compression": True, "compression_level": 10}},
        "websocket.compression_level: not from 1 to 9: 10",
    ),
    (
        {"http_server": {"tls": {"enabled": True, "cert_pem": "/no.pem", "key_pem": "/no.pem"}}},
        "http_server.tls.key_pem: neither PEM nor base64 of PEM, and as a path: No such file or directory",
    ),
    (
        {"http_server": {"internal_tls": {"enabled": True}}},
        "http_server.internal_tls.cert_pem: TLS is enabled and needs it",
    ),
]


@pytest.mark.parametrize(("file", "problem"), WRONG, ids=[problem for _, problem in WRONG])
def test_what_is_wrong(scene: Scene, file: dict[str, Any], problem: str) -> None:
    problems = scene.problems(file)
    assert any(each.startswith(problem) for each in problems), problems


def test_transforms(scene: Scene) -> None:
    path = "client.connect_code_to_unidirectional_disconnect.transforms[0]"
    transforms = [{"to": {"reason": "ä"}}, {"code": 109, "to": {"code": 4500, "reason": "ok"}}]
    assert scene.problems({"client": {"connect_code_to_unidirectional_disconnect": {"transforms": transforms}}}) == [
        f"{path}.code: must be set",
        f"{path}.to.code: must be set",
        f"{path}.to.reason: must be ASCII",
    ]


def test_statuses_of_one_way_connects(scene: Scene) -> None:
    transforms = [{"to": {"status_code": 99}}, {"code": 109, "to": {"status_code": 401}}]
    path = "uni_sse.connect_code_to_http_response.transforms[0]"
    assert scene.problems({"uni_sse": {"connect_code_to_http_response": {"transforms": transforms}}}) == [
        f"{path}.code: must be set",
        f"{path}.to.status_code: not a status of HTTP: 99",
    ]


def test_all_problems_at_once(scene: Scene) -> None:
    problems = scene.problems(
        {
            "webtransport": {"enabled": True},
            "engine": {"type": "redis", "redis": {"address": "nowhere"}},
            "channel": {"namespaces": [{"name": "chat", "history_size": 1}, {"name": "!"}]},
            "http_server": {"port": 70000, "tls": {"enabled": True}},
        }
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        "webtransport.enabled",
        "http_server.port",
        "engine.redis.address[0]",
        "channel.namespaces[chat].history_ttl",
        "channel.namespaces[1].name",
        "http_server.tls.cert_pem",
        "http_server.tls.key_pem",
    ]


@pytest.mark.parametrize(
    "file",
    [
        channel(**HISTORY, force_recovery=True, force_recovery_mode="cache", auto_cache_recover=True),
        channel(**HISTORY, history_meta_ttl="60s"),
        channel(subscription_type="stream", allowed_delta_types="fossil", channel_regex=r"^[a-z]+$"),
        {"client": {"subscribe_to_user_personal_channel": {"enabled": True}}},
        {
            "client": {
                "subscribe_to_user_personal_channel": {
                    "enabled": True,
                    "personal_channel_namespace": "chat",
                    "single_connection": True,
                }
            }
        }
        | channel(presence=True),
        {"client": {"subscription_token": {"audience_regex": "["}}},
        {"http_api": {"error_mode": "transport", "handler_prefix": "/"}},
        {"log": {"level": "loud"}},
    ],
)
def test_what_is_right(scene: Scene, file: dict[str, Any]) -> None:
    assert scene.load(file).unknown_keys == ()


ADVICE: list[tuple[dict[str, Any], str]] = [
    (
        {"client": {"insecure": True}},
        "INSECURE: client.insecure is on: no token is asked for, everything is permitted, and",
    ),
    ({"http_api": {"insecure": True}}, "INSECURE: http_api.insecure is on"),
    (
        {"client": {"insecure_skip_token_signature_verify": True}},
        "INSECURE: client.insecure_skip_token_signature_verify",
    ),
    (
        {"client": {"token": {"insecure_skip_jwks_endpoint_safety_check": True}}},
        "INSECURE: client.token.insecure_skip_jwks_endpoint_safety_check",
    ),
    ({"client": {"allowed_origins": ["*"]}}, 'client.allowed_origins: "*"'),
    ({"client": {"allowed_origins": ["*example.com"]}}, 'client.allowed_origins: "*example.com" also matches'),
    ({"workers": "auto"}, "workers: auto is one worker here: the memory engine lives in one process"),
    ({"prometheus": {"enabled": True}}, "prometheus.enabled: metrics are on the public port"),
]


@pytest.mark.parametrize("origin", ["*", "https://*", "*://*", "http*"])
def test_cookies_need_a_list_of_origins(scene: Scene, origin: str) -> None:
    """Centrifugo takes it, so a drop-in has to start; but it says so, with the keys."""
    proxy = {"endpoint": "http://backend", "http_headers": ["X-Device", "Cookie"]}
    file: dict[str, Any] = {
        "client": {"allowed_origins": [origin], "proxy": {"connect": {"enabled": True, **proxy}, "refresh": proxy}},
        "rpc": {"without_namespace": {"proxy_enabled": True, "proxy_name": "other"}},
        "channel": {"without_namespace": {"subscribe_proxy_enabled": True}, "proxy": {"subscribe": proxy}},
        "proxies": [{"name": "other", **proxy}, {"name": "unused", **proxy}],
    }
    (line,) = [line for line in scene.load(file).advice if line.startswith("INSECURE: ")]
    assert line == (
        "INSECURE: client.allowed_origins lets every page connect, and cookies are sent on "
        "(client.proxy.connect.http_headers, channel.proxy.subscribe.http_headers, proxies[other].http_headers): "
        "pages of every site can act as your users. List your own origins"
    )
    assert line in scene.load(file).warnings
    for some in (["https://example.com"], ["https://*.example.com"], []):
        file["client"]["allowed_origins"] = some
        assert list(scene.load(file).advice) == []


def test_cookies_for_functions_need_a_list_of_origins(scene: Scene) -> None:
    everybody = scene.load({"client": {"allowed_origins": ["*"]}}).config
    (line,) = hooks_advice(everybody, {"cookie"})
    assert line.startswith("INSECURE: client.allowed_origins lets every page connect")
    assert "Hooks(http_headers=…)" in line
    assert list(hooks_advice(everybody, {"x-device"})) == []
    some = scene.load({"client": {"allowed_origins": ["https://a.example"]}}).config
    assert list(hooks_advice(some, {"cookie"})) == []


@pytest.mark.parametrize(("file", "line"), ADVICE, ids=[line for _, line in ADVICE])
def test_advice(scene: Scene, file: dict[str, Any], line: str) -> None:
    loaded = scene.load(file)
    assert [each.startswith(line) for each in loaded.advice] == [True]
    assert loaded.advice[0] in loaded.warnings


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "[::1]", "localhost", "127.8.8.8"])
def test_loopback_is_not_the_network(scene: Scene, address: str) -> None:
    (line,) = scene.load({"http_server": {"address": address}, "client": {"insecure": True}}).advice
    assert line.endswith("everything is permitted")


def test_nothing_to_say_about_a_sound_configuration(scene: Scene) -> None:
    loaded = scene.load({"client": {"allowed_origins": ["https://*.example.com", "*://a.example"]}})
    assert loaded.warnings == []
