"""A reload: everything is built anew, then put in place in one assignment; or nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from broker.app import Server
from broker.config import Config, waits_for_restart
from broker.hooks import HooksError, LoadedHooks, load_hooks
from broker.rules import make_rules

__all__ = ["CannotReload", "prepare", "tell_reloaded"]

_log = structlog.get_logger("broker")


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
        rules = make_rules(fresh, server.node.counters, server.stage, hooks=loaded.app if loaded is not None else None)
    except (ValueError, HooksError) as error:
        raise CannotReload(str(error)) from error.__cause__

    def put_in_place() -> None:
        if loaded is not None:
            loaded.app.attach(server.api)
        server.hooks = loaded
        server.reload(rules)

    return put_in_place


def tell_reloaded(running: Config, fresh: Config) -> None:
    """Log that `fresh` was taken by a process that was started with `running`, and what of it was not."""
    _log.info("configuration reloaded")
    if waiting := waits_for_restart(running, fresh):
        _log.warning("some options changed that are read at the start only: restart to use them", options=waiting)
