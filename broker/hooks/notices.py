"""The room from which backends are told what has happened: a stage of its own, so that nobody who ends waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import final

import attrs
import trio

from broker.channels import Channels
from broker.hooks.backends import Backends
from broker.hooks.options import StateOptions
from broker.hooks.post import Post
from broker.hooks.states import States
from broker.hub import Node

__all__ = ["Notices", "open_notices"]


@final
@attrs.frozen
class Notices:
    """`post` takes what has happened to clients, `states` what may have changed in channels."""

    post: Post
    states: States

    def waiting(self) -> dict[str, int]:
        """What backends have yet to be told, by event."""
        return {**self.post.waiting, "state": self.states.owed}


@asynccontextmanager
async def open_notices(
    node: Node,
    *,
    backends: Callable[[], Backends],
    channels: Callable[[], Channels],
    options: Callable[[], StateOptions],
    wall_clock: Callable[[], float],
    random: Callable[[], float],
    last: float,
) -> AsyncIterator[Notices]:
    """The stage. When its block is left, what has not been told has `last` seconds.

    Args:
        backends, channels, options: what holds at the time of asking.
        wall_clock: Unix seconds.
        random: numbers in [0, 1).
    """
    async with trio.open_nursery() as nursery:
        post = Post(nursery, backends, node.counters)
        states = States(node, nursery, backends, channels, options, wall_clock, random)
        nursery.start_soon(states.run, name="hooks states")
        try:
            yield Notices(post, states)
            with trio.move_on_after(last):
                await states.end()
                await post.wait_empty()
        finally:
            post.give_up()
            node.counters.events_dropped["state", "shutdown"] += states.give_up()
            nursery.cancel_scope.cancel()
