"""The daemon: a server for as long as the process lives, its signals, its reloads, its last words."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog
import trio

from broker import PROTOCOL_VERSION, __version__
from broker.app import Server, StartError, open_server
from broker.config import Config, ConfigError
from broker.hooks import HooksError, LoadedHooks, load_hooks
from broker.hub import EngineUnavailable
from broker.observe import set_up_logs
from broker.rules import make_rules
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
    _raise_file_limit()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # what holds again after the last word: nothing to end any more
    status = 0
    try:
        trio.run(_serve, config, reload)
    except* (StartError, Stopped, EngineUnavailable) as failed:
        status = 1
        for error in _leaves(failed):
            print(f"broker: {error}", file=sys.stderr)
    return status


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _serve(config: Config, reload: Callable[[], Config]) -> None:
    server: Server | None = None

    async def reload_rules() -> None:
        """SIGHUP: build everything anew, then change it in one assignment; or change nothing."""
        if server is None:
            return
        try:
            fresh = reload()
            loaded: LoadedHooks | None = None
            if fresh.hooks:
                loaded = await trio.to_thread.run_sync(load_hooks, fresh.hooks, server.hooks)
            rules = make_rules(fresh, server.node.counters, hooks=loaded.app if loaded is not None else None)
        except (ConfigError, ValueError, HooksError) as error:
            _log.error("configuration not reloaded, the old one stays", error=str(error), exc_info=error.__cause__)
            return
        if loaded is not None:
            loaded.app.attach(server.api)
        server.hooks = loaded
        server.reload(rules)
        _log.info("configuration reloaded")

    async with (
        open_signals(reload_rules) as signals,
        deadline_for_leaving(signals, config.shutdown.timeout),
        open_server(config) as opened,
        trio.open_nursery() as nursery,
    ):
        server = opened
        if config.dev.enabled and opened.hooks is not None:
            nursery.start_soon(_watch_hooks, opened, reload_rules)
        with _pid_file(config.pid_file):
            _tune_collector()
            _announce(config, opened)
            await signals.stopping.wait()
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


@contextmanager
def _pid_file(path: str) -> Iterator[None]:
    """A file with our process id, there as long as the server runs; none for an empty path."""
    if path:
        try:
            Path(path).write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise StartError(f"pid_file: cannot write {path}: {os.strerror(error.errno or 0)}") from None
    try:
        yield
    finally:
        if path:
            Path(path).unlink(missing_ok=True)


def _tune_collector() -> None:
    """What lives since the start is never garbage, and connections are freed by reference counts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
