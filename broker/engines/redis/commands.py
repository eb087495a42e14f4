"""What is asked of a shard: commands and scripts, to the server that holds the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, final

import structlog
import trio

from broker.engines.redis.line import Line
from broker.engines.redis.link import Link, ReplyError
from broker.engines.redis.scripts import ALL, Script
from broker.hub import EngineUnavailable

__all__ = ["Commands", "OneServer", "Route", "load_scripts"]

_log = structlog.get_logger("broker.engines.redis")

_QUIET: Final = 10.0
"""Seconds between two log lines about the same refusal."""


class Route(Protocol):
    """Which server a key belongs to."""

    def link(self, key: bytes) -> Link:
        """The link to the master of `key`.

        Raises:
            EngineUnavailable: it is away.
        """
        ...

    async def elsewhere(self, answer: str) -> tuple[Link, bool] | None:
        """Where to ask again after a refusal that may be a redirection, and whether to say `ASKING` first."""
        ...

    @property
    def lines(self) -> Sequence[Line]:
        """All lines that it uses."""
        ...


@final
class OneServer:
    """The route of a shard that is one master."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def link(self, key: bytes) -> Link:
        return self._line.need()

    async def elsewhere(self, answer: str) -> tuple[Link, bool] | None:
        return None

    @property
    def lines(self) -> Sequence[Line]:
        return (self._line,)


@final
class Commands:
    """Commands of one shard. Whatever Redis refuses is raised as `EngineUnavailable`, and logged."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._told: dict[str, float] = {}

    @property
    def lines(self) -> Sequence[Line]:
        return self._route.lines

    async def call(self, key: bytes, *command: Any) -> Any:
        """One command about `key`.

        Raises:
            EngineUnavailable: Redis is away, refuses, or takes too long.
        """
        link = self._route.link(key)
        reply = await link.call(*command)
        if type(reply) is not ReplyError:
            return reply
        return await self._again(link, reply, lambda _: command)

    async def run(self, script: Script, keys: tuple[bytes, ...], *args: Any) -> Any:
        """One script. Its last argument is the identity of the server that runs it.

        Raises:
            EngineUnavailable: Redis is away, refuses, or takes too long.
        """
        link = self._route.link(keys[0])
        reply = await link.call(b"EVALSHA", script.sha, len(keys), *keys, *args, link.identity)
        if type(reply) is not ReplyError:
            return reply
        # the whole source is what any server takes, whether or not it has lost its scripts
        return await self._again(link, reply, lambda at: (b"EVAL", script.source, len(keys), *keys, *args, at.identity))

    async def _again(self, link: Link, reply: Any, command: Any) -> Any:
        """After a refusal: where it could be another server's, or a script that was forgotten, once more."""
        answer = str(reply)
        if answer.startswith("NOSCRIPT"):
            reply = await link.call(*command(link))
            if type(reply) is not ReplyError:
                return reply
            answer = str(reply)
        for _ in range(3):
            where = await self._route.elsewhere(answer)
            if where is None:
                break
            link, asking = where
            if asking:
                first = link.start("ASKING")
                reply = await link.call(*command(link))
                await first.wait()
            else:
                reply = await link.call(*command(link))
            if type(reply) is not ReplyError:
                return reply
            answer = str(reply)
        raise self._refused(link, answer)

    def _refused(self, link: Link, answer: str) -> EngineUnavailable:
        kind = answer.partition(" ")[0]
        now = trio.current_time()
        if self._told.get(kind, -_QUIET) <= now - _QUIET:
            self._told[kind] = now
            _log.warning("Redis refuses", server=link.server, answer=answer[:200])
        if kind in ("READONLY", "NOAUTH"):
            link.close(f"it answers {kind}")  # another one may be the master by now: ask again
        return EngineUnavailable(f"{link.server}: {answer[:200]}")


async def load_scripts(link: Link) -> None:
    """Before a link is used: its server learns the scripts."""
    for call in [link.start("SCRIPT", "LOAD", script.source) for script in ALL]:
        reply = await call.wait()
        if isinstance(reply, ReplyError):
            raise EngineUnavailable(f"{link.server}: {reply}")
