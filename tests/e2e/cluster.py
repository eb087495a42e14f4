"""Several daemons over one Redis."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import trio

from tests.e2e.daemon import Daemon, merged
from tests.support.patience import PATIENCE
from tests.support.redis import RedisServer

__all__ = ["ClusterPool", "over_redis", "wait_known"]


def over_redis(config: Mapping[str, Any], address: str, **options: Any) -> dict[str, Any]:
    """`config` with the engine on the Redis at `address`."""
    return merged(config, {"engine": {"type": "redis", "redis": {"address": f"redis://{address}", **options}}})


async def wait_known(daemons: Sequence[Daemon], count: int | None = None) -> None:
    """Until each of `daemons` knows that there are `count` nodes, as many as it was given unless told."""
    with trio.fail_after(PATIENCE):
        for daemon in daemons:
            while await known(daemon) != (count or len(daemons)):  # noqa: ASYNC110 (another process)
                await trio.sleep(0.02)


async def known(daemon: Daemon) -> int:
    return len((await daemon.api("info"))["result"]["nodes"])


@final
class ClusterPool:
    """Three daemons over one Redis, for tests that share them; another configuration replaces them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._redis: RedisServer | None = None
        self._config = ""
        self._daemons: list[Daemon] = []

    @property
    def redis(self) -> RedisServer:
        """What they share, once there are any."""
        assert self._redis is not None
        return self._redis

    async def get(self, config: Mapping[str, Any]) -> list[Daemon]:
        wanted = json.dumps(config, sort_keys=True)
        if self._redis is None:
            redis = RedisServer(Path(tempfile.mkdtemp(dir=self._folder)))
            redis.start()
            self._redis = redis
            await redis.wait_ready()
        if wanted != self._config or any(daemon.process.poll() is not None for daemon in self._daemons):
            self._stop()
            for _ in range(3):
                folder = Path(tempfile.mkdtemp(dir=self._folder))
                self._daemons.append(Daemon(folder, over_redis(config, self._redis.address)))
            for daemon in self._daemons:
                await daemon.ready()
            await wait_known(self._daemons)
            self._config = wanted
        return list(self._daemons)

    def discard(self) -> None:
        """Do not use them again: a test left something in them."""
        for daemon in self._daemons:
            daemon.process.kill()
            daemon.process.wait()
        self._daemons = []
        self._config = ""

    def close(self) -> None:
        self._stop()
        if self._redis is not None:
            self._redis.kill()

    def _stop(self) -> None:
        daemons, self._daemons, self._config = self._daemons, [], ""
        for daemon in daemons:
            daemon.signal(signal.SIGTERM)
        for daemon in daemons:
            daemon.stop_sync()
