"""Every option of Centrifugo is known, with its type and its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from broker.config import Config
from broker.config.schema import Key, keys_of, values_at
from broker.durations import parse_duration
from broker.values import Duration, Pem, Secret

TABLE = [
    line.split("\t")
    for line in (Path(__file__).parent / "centrifugo_keys.tsv").read_text().splitlines()
    if not line.startswith("#")
]
TYPES = {
    "text": (str, Secret),
    "pem": (Pem,),
    "bool": (bool,),
    "int": (int,),
    "duration": (Duration,),
    "map": (dict[str, Secret],),
    "list": (tuple[str, ...], tuple[Secret, ...]),
}
OURS = {
    "dev.enabled",
    "hooks",
    "http_server.unix_socket",
    "shutdown.drain_window",
    "workers",
    "http_server.http2.enabled",
    "http_server.trusted_proxies",
    *(f"sockjs.{key}" for key in ("enabled", "handler_prefix", "url", "heartbeat_delay", "max_request_body_size")),
    *(f"{redis}.fence_disabled" for redis in ("engine.redis", "broker.redis", "broker.redisnats.redis")),
}
OURS_EVERYWHERE = re.compile(
    r"\.http\.max_connections$|\.(cache_empty|unsubscribe|state)_proxy_"
    r"|^channel\.(proxy\.(cache_empty|unsubscribe|state)|state)\.|^client\.proxy\.disconnect\."
)
"""Keys of our own: single ones, and those that every proxy or namespace has."""


def leaves(section: type, path: str = "") -> Iterator[tuple[str, Key, Any]]:
    """Path, key and default of every leaf."""
    defaults = section()
    for key in keys_of(section).values():
        here = path + key.name
        if key.section is not None:
            yield from leaves(key.section, f"{here}.")
        elif key.item is not None:
            yield from leaves(key.item, f"{here}[].")
        else:
            yield here, key, getattr(defaults, key.name)


LEAVES = {path: (key, default) for path, key, default in leaves(Config)}


def test_no_key_is_missing_and_none_is_invented() -> None:
    assert {path for path in LEAVES if not OURS_EVERYWHERE.search(path)} - OURS == {path for path, _, _ in TABLE}
    assert LEAVES.keys() >= OURS


@pytest.mark.parametrize(("path", "kind", "default"), TABLE, ids=[row[0] for row in TABLE])
def test_type_and_default(path: str, kind: str, default: str) -> None:
    key, value = LEAVES[path]
    assert key.type in TYPES[kind]
    expected: Any = default
    if kind == "int":
        expected = int(default or 0)
    elif kind == "bool":
        expected = False
    elif kind == "duration":
        expected = parse_duration(default or "0")
    elif kind == "list":
        expected = (default,) if default else ()
    elif kind == "map":
        expected = {}
    if isinstance(value, Secret):
        value = value.reveal()
    elif kind == "list":
        value = tuple(item.reveal() if isinstance(item, Secret) else item for item in value)
    assert value == expected


def test_defaults_of_nested_sections_are_those_of_the_leaves() -> None:
    """A section's default instance says nothing else than its class."""
    config = Config()

    def compare(options: Any) -> None:
        for key in keys_of(type(options)).values():
            if key.section is not None:
                assert getattr(options, key.name) == key.section()
                compare(getattr(options, key.name))

    compare(config)


def test_options_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().pid_file = "x"  # type: ignore[misc]


def test_values_at_a_path() -> None:
    config = Config()
    assert list(values_at(config, "log.level")) == [("log.level", "info")]
    assert list(values_at(config, "channel.namespaces.*.presence")) == []
