"""A reload: everything is built anew, then put in place in one assignment; or nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import trio

from broker.app import Server
from broker.config import Config
from broker.hooks import HooksError, LoadedHooks, load_hooks
from broker.rules import make_rules

__all__ = ["CannotReload", "prepare"]


class CannotReload(Exception):
    """Why the old rules stay, in one line; `__cause__` is what the application's code raised, if it was that."""


async def prepare(server: Server, fresh: Config) -> Callable[[], None]:
    """Build the rules of `fresh` and import its hooks. What comes back puts them in place, without waiting.

    Raises:
        CannotReload: they cannot be built.
    """
    loaded: LoadedHooks | None = None
    try:
        if fresh.hooks:
            loaded = await trio.to_thread.run_sync(load_hooks, fresh.hooks, server.hooks)
        rules = make_rules(fresh, server.node.counters, hooks=loaded.app if loaded is not None else None)
    except (ValueError, HooksError) as error:
        raise CannotReload(str(error)) from error.__cause__

    def put_in_place() -> None:
        if loaded is not None:
            loaded.app.attach(server.api)
        server.hooks = loaded
        server.reload(rules)

    return put_in_place
