from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import Config, as_tree, as_variables, file_tree, written_as
from broker.config.dotenv import parse_dotenv
from broker.config.files import read_file
from broker.config.structure import structure

if TYPE_CHECKING:
    from tests.config.conftest import Scene

RICH: dict[str, Any] = {
    "client": {
        "token": {"hmac_secret_key": 'quote " back \\ dollar $A \n line é \x7f'},
        "ping_interval": "1m30s",
        "allowed_origins": ["https://a.example", "https://b.example"],
    },
    "channel": {
        "namespaces": [
            {"name": "chat", "presence": True, "history_size": 10, "history_ttl": "60s", "map": {"key_ttl": "1.5s"}},
            {"name": "news.v2", "join_leave": True},
        ]
    },
    "proxies": [{"name": "auth", "endpoint": "http://backend", "http": {"static_headers": {"x-key": "v"}}}],
    "http_server": {"tls": {"cert_pem": "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"}},
}
FORMATS = ["config.json", "config.toml", "config.yaml", "config.yml"]


def typed(tree: dict[str, Any]) -> Config:
    config, problems = structure(tree)
    assert problems == []
    return config


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tree", [{}, RICH], ids=["defaults", "rich"])
def test_what_is_written_is_read_as_the_same(tmp_path: Path, name: str, tree: dict[str, Any]) -> None:
    config = typed(tree)
    path = tmp_path / name
    path.write_text(written_as(path)(as_tree(config)))
    read = read_file(path)
    assert read is not None
    assert typed(read) == config


@pytest.mark.parametrize("tree", [{}, RICH], ids=["defaults", "rich"])
def test_variables_are_read_as_the_same(scene: Scene, tree: dict[str, Any]) -> None:
    config = typed(tree)
    lines = as_variables(config)
    assert lines == sorted(lines)
    loaded = scene.load(env=parse_dotenv("\n".join(lines)))
    assert loaded.config == config
    assert loaded.unknown_env == ()


@given(st.text())
def test_any_secret_survives_variables(secret: str) -> None:
    config = typed({"http_api": {"key": secret}})
    (line,) = (each for each in as_variables(config) if each.startswith("CENTRIFUGO_HTTP_API_KEY="))
    assert parse_dotenv(line)["CENTRIFUGO_HTTP_API_KEY"] == secret


def test_forms_of_variables(scene: Scene) -> None:
    lines = as_variables(scene.load(RICH).config)
    for line in (
        "CENTRIFUGO_HTTP_SERVER_PORT=8000",
        'CENTRIFUGO_HTTP_SERVER_ADDRESS=""',
        "CENTRIFUGO_CLIENT_INSECURE=false",
        "CENTRIFUGO_CLIENT_PING_INTERVAL=1m30s",
        'CENTRIFUGO_CLIENT_ALLOWED_ORIGINS="https://a.example https://b.example"',
        'CENTRIFUGO_CHANNEL_NAMESPACES="chat news.v2"',
        "CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_PRESENCE=true",
        "CENTRIFUGO_CHANNEL_NAMESPACES_NEWS_V2_JOIN_LEAVE=true",
        'CENTRIFUGO_PROXIES_AUTH_HTTP_STATIC_HEADERS="{\\"x-key\\": \\"v\\"}"',
        'CENTRIFUGO_UNI_SSE_CONNECT_CODE_TO_HTTP_RESPONSE_TRANSFORMS="[]"',
    ):
        assert line in lines


def test_only_what_a_file_sets(scene: Scene) -> None:
    path = scene.sources({"log": {"level": "debug", "file": ""}, "channel": {"namespaces": [{"name": "chat"}]}}).file
    assert path is not None
    config = scene.load(env={"CENTRIFUGO_CHANNEL_NAMESPACES": "more"}).config
    assert as_variables(config, file_tree(path)) == [
        'CENTRIFUGO_CHANNEL_NAMESPACES="chat more"',
        'CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_NAME="chat"',
        'CENTRIFUGO_LOG_LEVEL="debug"',
    ]
