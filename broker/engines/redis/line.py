"""A link that is kept up: dialled again whenever it ends, sooner at first, later while it stays away."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final, final

import structlog
import trio

from broker.engines.redis.address import Server, Shard
from broker.engines.redis.dial import open_master
from broker.engines.redis.link import Link, OnMessage, Together
from broker.hub import EngineUnavailable
from broker.reader import Stage

__all__ = ["Line", "OnUp", "Where"]

_log = structlog.get_logger("broker.engines.redis")

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
_SETTLED: Final = 2.0
"""Seconds after which a link counts as one that works: the next time it ends, it is dialled at once."""

OnUp = Callable[[Link], Awaitable[None]]
Where = Callable[[], Awaitable[Server]]
"""Which server to dial. Raises `EngineUnavailable` where nobody knows."""


@final
class Line:
    """A way to one master. `link` is None while it is away, and `why` tells the reason.

    Every dial asks anew `where` it is, `name` is what it is called before anybody knows. `on_up` prepares each new link
    before anybody else uses it.
    """

    def __init__(
        self,
        shard: Shard,
        purpose: str,
        where: Where,
        on_up: OnUp,
        stage: Stage,
        *,
        name: str = "",
        on_message: OnMessage | None = None,
        together: Together = nullcontext,
    ) -> None:
        self.link: Link | None = None
        self.why = f"{name or shard}: not connected yet"
        self.up = trio.Event()  # set by the first link, stays set
        self._where = where
        self._shard = shard
        self._purpose = purpose
        self._on_up = on_up
        self._stage = stage
        self._on_message = on_message
        self._together = together

    def need(self) -> Link:
        """The link.

        Raises:
            EngineUnavailable: it is away.
        """
        link = self.link
        if link is None:
            raise EngineUnavailable(self.why)
        return link

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        wait = 0.0
        told = ""
        away_since = trio.current_time()
        while True:
            connected = trio.current_time()
            try:
                server = await self._where()
                async with open_master(self._shard, server, self._stage, self._on_message, self._together) as (link, _):
                    await self._on_up(link)
                    self.link = link
                    self.up.set()
                    connected = trio.current_time()
                    if told:
                        told = ""
                        _log.info(
                            "Redis is back",
                            server=link.server,
                            link=self._purpose,
                            away=f"{connected - away_since:.1f}s",
                        )
                    await link.gone.wait()
                    self.why = link.why
            except EngineUnavailable as error:
                self.why = str(error)
            finally:
                was_up, self.link = self.link is not None, None
            if was_up:
                away_since = trio.current_time()
                if away_since - connected > _SETTLED:
                    wait = 0.0
            if self.why != told:  # once per reason, not once per dial
                told = self.why
                _log.warning("Redis is away, dialling again", link=self._purpose, reason=self.why)
            await trio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(max(wait * 2, _FIRST_WAIT), _LONGEST_WAIT)
