"""What is asked of a shard: commands and scripts, to the server that holds the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, final

import structlog
import trio

from broker.eager import own_task
from broker.engines.redis.line import Line
from broker.engines.redis.link import Link, ReplyError
from broker.engines.redis.scripts import ALL, Script
from broker.hub import EngineUnavailable

__all__ = ["Commands", "OneServer", "Route", "load_scripts"]

_log = structlog.get_logger("broker.engines.redis")

_QUIET: Final = 10.0
"""Seconds between two log lines about the same refusal."""
_REDIRECTIONS: Final = 5
_HALF_MOVED: Final = 0.05
"""Seconds between two tries while only some keys of a script have moved to another server."""

Command = Callable[[Link], tuple[Any, ...]]
"""A command as it has to be for the server that runs it."""


class Route(Protocol):
    """Which server a key belongs to."""

    def link(self, key: bytes) -> Link:
        """The link to the master of `key`.

        Raises:
            EngineUnavailable: it is away.
        """
        ...

    async def elsewhere(self, link: Link, answer: str) -> tuple[Link, bool] | None:
        """Where to ask again after a refusal of `link` that may be a redirection, and whether to say `ASKING` first."""
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

    async def elsewhere(self, link: Link, answer: str) -> tuple[Link, bool] | None:
        return None

    @property
    def lines(self) -> Sequence[Line]:
        return (self._line,)


@final
class Commands:
    """Commands of one shard. Whatever Redis refuses is raised as `EngineUnavailable`, and logged.

    `patience` in seconds: how long a command is tried again whose keys are being moved.
    """

    def __init__(self, route: Route, patience: float) -> None:
        self._route = route
        self._patience = patience
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
        reply = await link.start(*command).wait()
        if type(reply) is not ReplyError:
            return reply
        return await self._again(key, link, reply, lambda _: command)

    async def run(self, script: Script, keys: tuple[bytes, ...], *args: Any) -> Any:
        """One script. Its last argument is the identity of the server that runs it.

        Raises:
            EngineUnavailable: Redis is away, refuses, or takes too long.
        """
        link = self._route.link(keys[0])
        reply = await link.start(b"EVALSHA", script.sha, len(keys), *keys, *args, link.identity).wait()
        if type(reply) is not ReplyError:
            return reply
        # the whole source is what any server takes, whether or not it has lost its scripts
        return await self._again(
            keys[0], link, reply, lambda at: (b"EVAL", script.source, len(keys), *keys, *args, at.identity)
        )

    async def check(self, needs: Sequence[str]) -> None:
        """Whether the servers know these commands.

        Raises:
            EngineUnavailable: one does not, or is away.
        """
        for name in needs:
            for line in self.lines:
                link = line.need()
                reply = await link.call("COMMAND", "INFO", name)
                if reply == [None] or reply == [[]]:
                    raise EngineUnavailable(f"{link.server}: it does not know {name}, a later version is needed")

    async def _again(self, key: bytes, link: Link, reply: ReplyError, command: Command) -> Any:
        """After a refusal: where it could be another server's, or a script that was forgotten, once more."""
        await own_task()
        asking = False
        redirections = 0
        until = trio.current_time() + self._patience
        while True:
            answer = str(reply)
            if answer.startswith("TRYAGAIN") and trio.current_time() < until:
                await trio.sleep(_HALF_MOVED)
                link, asking = self._route.link(key), False
            elif not answer.startswith("NOSCRIPT"):
                where = await self._route.elsewhere(link, answer)
                if where is None or redirections == _REDIRECTIONS:
                    raise self._refused(link, answer)
                redirections += 1
                link, asking = where
            # both leave in one turn: nothing comes in between
            asked = link.start("ASKING") if asking else None
            reply = await link.call(*command(link))
            if asked is not None:
                await asked.wait()
            if type(reply) is not ReplyError:
                return reply

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
