"""What docs/redis.md says that the log tells on a bad day is what it tells."""

from __future__ import annotations

import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from broker.hub import EngineUnavailable, HistoryOptions, PublishOptions
from broker.protocol import Publication
from tests.support.patience import PATIENCE
from tests.support.redis import RedisServer, running_redis
from tests.support.redis_engine import open_redis

GUIDE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
KEEP = PublishOptions(HistoryOptions(size=10, ttl=60, meta_ttl=600))
SLOW = "local till = redis.call('TIME')[1] + 2 while redis.call('TIME')[1] + 0 < till do end"


def told(day: str) -> re.Pattern[str]:
    """What the table promises: `…` stands for what differs."""
    (text,) = re.findall(rf"^\| {day}[^|]*\| `([^`]+)`", GUIDE, re.MULTILINE)
    return re.compile(".*".join(re.escape(part) for part in text.split("…")))


async def killed(server: RedisServer) -> None:
    server.kill()


async def stopped(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)


async def slow(server: RedisServer) -> None:
    await trio.to_thread.run_sync(server.ask, "EVAL", SLOW, 0)


async def full(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "1")


async def replica(server: RedisServer) -> None:
    server.ask("REPLICAOF", "127.0.0.1", "1")


async def password(server: RedisServer) -> None:
    server.ask("ACL", "SETUSER", "default", "resetpass", ">other")
    RedisServer(server.folder, port=server.port, login=("other",)).ask("CLIENT", "KILL", "TYPE", "normal")


@pytest.mark.parametrize(
    ("day", "happens"),
    [
        ("killed", killed),
        ("stands still", stopped),
        ("a slow script", slow),
        ("memory full", full),
        ("it became a replica", replica),
        ("the password was changed", password),
    ],
)
async def test_the_log_tells_it(
    day: str, happens: Callable[[RedisServer], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    pattern = told(day)
    options = {"password": "right"} if happens is password else {}
    async with running_redis() as server, trio.open_nursery() as nursery:
        if options:
            server.ask("ACL", "SETUSER", "default", "resetpass", ">right")
            server = RedisServer(server.folder, port=server.port, login=("right",))
        async with open_redis(server, io_timeout="500ms", **options) as opened:
            nursery.start_soon(happens, server)
            with trio.fail_after(PATIENCE):
                while not pattern.search(caplog.text.replace("within 0.5 s", "within 4 s")):
                    with suppress(EngineUnavailable):
                        await opened.broker.publish("news", Publication(b"1"), KEEP)
                    await trio.sleep(0.02)
