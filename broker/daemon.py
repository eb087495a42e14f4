"""The daemon: a server for as long as the process lives, its signals, its reloads, its last words."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import trio

from broker import PROTOCOL_VERSION, __version__, notify
from broker.app import Server, open_server
from broker.config import Config, ConfigError
from broker.hub import EngineUnavailable
from broker.observe import set_up_logs
from broker.process import StartError, leaves, pid_file, raise_file_limit, tune_collector
from broker.reload import CannotReload, prepare, tell_reloaded
from broker.supervisor import STOP_SIGNALS, Stopped, deadline_for_leaving, open_signals

__all__ = ["serve"]

_log = structlog.get_logger("broker")

_WATCH: Final = 0.5
"""Seconds between two looks at the files of the application's hooks."""


def serve(config: Config, *, reload: Callable[[], Config], warnings: Sequence[str] = ()) -> int:
    """Run until a signal ends it. Returns the exit status: 0, or 1 if it could not start or had to be cut off."""
    set_up_logs(config.log)
    for warning in warnings:
        _log.warning(warning)
    raise_file_limit()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what holds again after the last word: nothing to end any more
    status = 0
    try:
        trio.run(_serve, config, reload)
    except* (StartError, Stopped, EngineUnavailable) as failed:
        status = 1
        for error in leaves(failed):
            print(f"broker: {error}", file=sys.stderr)
    return status


async def _serve(config: Config, reload: Callable[[], Config]) -> None:
    server: Server | None = None

    async def reload_rules() -> None:
        """SIGHUP."""
        if server is None:
            return
        with notify.reloading():
            try:
                fresh = reload()
                put_in_place = await prepare(server, fresh)
            except (ConfigError, CannotReload) as error:
                _log.error("configuration not reloaded, the old one stays", error=str(error), exc_info=error.__cause__)
                return
            put_in_place()
            tell_reloaded(config, fresh)

    async with (
        open_signals(reload_rules) as signals,
        deadline_for_leaving(signals, config.shutdown.timeout),
        open_server(config) as opened,
        trio.open_nursery() as nursery,
    ):
        server = opened
        if config.dev.enabled and opened.hooks is not None:
            nursery.start_soon(_watch_hooks, opened, reload_rules)
        with pid_file(config.pid_file):
            tune_collector()
            _announce(config, opened)
            notify.ready()
            nursery.start_soon(notify.keep_watchdog)
            await signals.stopping.wait()
            notify.stopping()
            _log.info("shutting down")
            nursery.cancel_scope.cancel()
    _log.info("goodbye")


async def _watch_hooks(server: Server, reload: Callable[[], Awaitable[None]]) -> None:
    """In development: new code is asked as soon as its file is saved. What cannot be imported is told about once."""
    seen: dict[Path, int] = {}
    while True:
        await trio.sleep(_WATCH)
        if server.hooks is not None and (stamps := server.hooks.stamps_now()) not in (server.hooks.stamps, seen):
            seen = stamps
            await reload()


def _announce(config: Config, server: Server) -> None:
    _log.info("serving", version=__version__, compatible=PROTOCOL_VERSION, addresses=list(server.urls), pid=os.getpid())
    if config.dev.enabled:
        url = server.urls[0]
        with suppress(OSError):  # nobody may be reading
            print(
                f"\n  trio-broker {__version__} with development settings, open to everybody on this machine.\n\n"
                f"  Open {url}/ in two tabs, or publish from here:\n\n"
                f'    curl {url}/api/publish -d \'{{"channel": "hello", "data": {{"text": "hi"}}}}\'\n',
                flush=True,
            )
