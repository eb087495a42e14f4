"""T20: a server dies, or is told to go, and everybody who was there comes back at once, while publications go on.

The official SDKs, as they are; the checkers C1 and C2 judge what they saw (tests/faults/checkers.py).
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.e2e.balancer import Direct
from tests.e2e.cluster import over_redis, wait_known
from tests.e2e.conftest import GetSdk
from tests.e2e.crowd import ROOM, Crowd
from tests.e2e.daemon import PEER, Daemon
from tests.support.redis import running_redis

pytestmark = pytest.mark.skipif(bool(PEER), reason="ours alone")

TTL: Final = 8
CONFIG: dict[str, Any] = {"client": {"presence_update_interval": "2s"}, "channel": {"namespaces": [ROOM]}}
MOST_IN_PYTHON: Final = 200
"""Clients of the Python SDK; the others are the JavaScript SDK's."""


def launched(folder: Path, config: Mapping[str, Any], port: int) -> Daemon:
    folder.mkdir()
    return Daemon(folder, config, port=port)


@asynccontextmanager
async def started(folder: Path, config: Mapping[str, Any], port: int = 0) -> AsyncIterator[Daemon]:
    daemon = launched(folder, config, port)
    try:
        await daemon.ready()
        yield daemon
    finally:
        daemon.process.kill()
        daemon.process.wait()


@pytest.mark.parametrize(
    ("engine", "how", "clients"),
    [
        ("redis", signal.SIGKILL, 60),
        *(
            pytest.param(engine, how, 2000, marks=pytest.mark.long)
            for engine in ("memory", "redis")
            for how in (signal.SIGKILL, signal.SIGTERM)
        ),
    ],
)
async def test_everybody_comes_back_at_once(
    engine: str, how: signal.Signals, clients: int, tmp_path: Path, get_sdk: GetSdk
) -> None:
    async with running_redis() as redis, AsyncExitStack() as daemons:
        config = over_redis(CONFIG, redis.address, presence_ttl=f"{TTL}s") if engine == "redis" else CONFIG

        async def start(name: str, port: int = 0) -> Daemon:
            return await daemons.enter_async_context(started(tmp_path / name, config, port))

        goes = await start("goes")
        publishers = [goes]
        if engine == "redis":  # somebody takes publications meanwhile
            publishers = [await start("stays")]
            await wait_known([goes, *publishers])
        channels = [f"room:{number}" for number in range(max(clients // 100, 2))]
        crowd = Crowd(Direct(goes.outside), channels, ttl=TTL, once=engine == "redis")
        python = min(clients // 3, MOST_IN_PYTHON)
        await crowd.gather(await get_sdk("python", "protobuf"), python)
        await crowd.gather(await get_sdk("js", "json"), clients - python)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crowd.publish, publishers, 0.02)
            nursery.start_soon(crowd.look, publishers, 0.02)
            await crowd.until(lambda: crowd.acknowledged >= 3 * len(channels))
            crowd.unknown(goes)
            goes.signal(how)
            await trio.to_thread.run_sync(goes.process.wait)
            came = await start("came", goes.outside)
            if engine == "memory":
                publishers[0] = came
            began = trio.current_time()
            await crowd.until(lambda: all(follower.subscribed == 2 for follower in crowd.followers))
            print(f"all are back {trio.current_time() - began:.1f} s after the server")
            crowd.load.cancel()
            await crowd.settled(publishers)
            await crowd.seen()
            nursery.cancel_scope.cancel()
        # a server that keeps nothing says so to everybody; what is in Redis, nobody misses
        assert {follower.lost for follower in crowd.followers} == {0 if engine == "redis" else 1}
        crowd.judge()
        came.check_log()
