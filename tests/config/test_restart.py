"""Which changes wait for a restart: paths of options, and never their values."""

from __future__ import annotations

from typing import Any

import pytest

from broker.config import after_reload, configure, waits_for_restart


@pytest.mark.parametrize(
    ("change", "waiting"),
    [
        ({}, []),
        ({"client": {"channel_limit": 3, "token": {"hmac_secret_key": "x"}}}, []),
        ({"channel": {"namespaces": [{"name": "news"}]}, "rpc": {"without_namespace": {}}}, []),
        ({"client": {"allowed_origins": ["*"]}}, ["client.allowed_origins"]),
        ({"engine": {"type": "redis"}}, ["engine.type"]),
        ({"engine": {"redis": {"tls": {"enabled": True}}}}, ["engine.redis.tls.enabled"]),
        ({"http_server": {"port": 1}, "log": {"level": "debug"}}, ["http_server.port", "log.level"]),
        ({"presence_manager": {"redis": {"password": "pw"}}}, ["presence_manager.redis.password"]),
    ],
)
def test_what_waits(change: dict[str, Any], waiting: list[str]) -> None:
    running, fresh = configure({}), configure(change)
    assert sorted(waits_for_restart(running, fresh)) == sorted(waiting)
    taken = after_reload(running, fresh)
    assert waits_for_restart(running, taken) == []
    assert sorted(waits_for_restart(taken, fresh)) == sorted(waiting)
    if not waiting:
        assert taken == fresh
