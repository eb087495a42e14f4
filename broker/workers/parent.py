"""The parent: starts workers, starts them again, passes on what it is told, and ends when the last one has ended."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Final, final

import attrs
import structlog
import trio
from trio_util import wait_any

from broker import PROTOCOL_VERSION, __version__, notify
from broker.config import ConfigError, Loaded
from broker.listeners import bind_path, reserve
from broker.observe import set_up_logs
from broker.process import StartError, leaves, pid_file, raise_file_limit
from broker.reload import tell_reloaded
from broker.supervisor import STOP_SIGNALS, Stopped, deadline_for_leaving, open_signals
from broker.workers.fleet import Fleet
from broker.workers.patience import Pauses, deaf
from broker.workers.sources import as_data
from broker.workers.talk import Gone, Handler, Talk

__all__ = ["serve"]

_log = structlog.get_logger("broker.workers")

_GRACE: Final = 3.0
"""Seconds that workers have to end, beyond what they give themselves."""


def serve(first: Loaded, count: int, reload: Callable[[], Loaded]) -> int:
    """Run `count` workers until a signal ends them. Returns the exit status: 0, or 1 if they could not start or had to
    be cut off.

    Args:
        first: the configuration to start with.
        reload: reads its sources anew, for SIGHUP.
    """
    config = first.config
    set_up_logs(config.log)
    for warning in first.warnings:
        _log.warning(warning)
    raise_file_limit()
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # workers inherit it: until they listen to signals, their parent does
    parent = _Parent(first, count)
    try:
        trio.run(parent.run, reload)
    except* (StartError, Stopped) as failed:
        parent.status = 1
        for text in dict.fromkeys(str(error) for error in leaves(failed)):
            print(f"broker: {text}", file=sys.stderr)
    return parent.status


@final
class _Parent:
    def __init__(self, first: Loaded, count: int) -> None:
        self.status = 0
        self._config = first.config
        self._first = first.sources
        self._fleet = Fleet(count, first.sources)
        self._leaving = trio.Event()
        self._rng = random.Random()
        self._unix: socket.socket | None = None
        self._urls: list[str] = []
        self._handlers: dict[str, Handler] = {"metrics": self._metrics, "unready": self._unready}

    async def run(self, reload: Callable[[], Loaded]) -> None:
        """Ends when the last worker has ended.

        Raises:
            StartError: one of them cannot start for the first time; none is left.
            Stopped: one of them did not end in time; it was killed.
        """

        async def reload_all() -> None:
            """SIGHUP."""
            with notify.reloading():
                try:
                    fresh = reload()
                    why = await self._fleet.reload(fresh.sources)
                except ConfigError as error:
                    why = str(error)
                if why:
                    _log.error("configuration not reloaded, the old one stays", error=why)
                else:
                    tell_reloaded(self._config, fresh.config)

        config = self._config
        with ExitStack() as stack:
            self._reserve(stack)
            async with (
                open_signals(reload_all) as signals,
                deadline_for_leaving(signals, config.shutdown.timeout + _GRACE),
                trio.open_nursery() as nursery,
            ):
                for worker in self._fleet.restarts:
                    nursery.start_soon(self._keep, worker, name=f"worker {worker}")
                await wait_any(self._fleet.complete.wait, signals.stopping.wait)
                if not signals.stopping.is_set():
                    await self._serve(signals.stopping)
                _log.info("shutting down")
                if self._unix is not None:
                    os.unlink(config.http_server.unix_socket)
                self._leaving.set()
        _log.info("goodbye")

    def _reserve(self, stack: ExitStack) -> None:
        """Keep our addresses, and have workers listen on the ports that the system chose where it had the choice."""
        config = self._config
        ports = [stack.enter_context(each).getsockname()[1] for each in reserve(config)]
        names = ("http_server.port", "http_server.internal_port")
        flags = dict(self._first.flags) | {name: str(port) for name, port in zip(names, ports, strict=False)}
        self._first = attrs.evolve(self._first, flags=flags)
        if config.http_server.unix_socket:
            self._unix = stack.enter_context(bind_path(config.http_server.unix_socket))

    async def _serve(self, stopping: trio.Event) -> None:
        """All of them work."""
        with pid_file(self._config.pid_file):
            _log.info(
                "serving",
                version=__version__,
                compatible=PROTOCOL_VERSION,
                addresses=self._urls,
                workers=self._fleet.count,
                pid=os.getpid(),
            )
            notify.ready()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(notify.keep_watchdog)
                await stopping.wait()
                nursery.cancel_scope.cancel()
            notify.stopping()

    # ---- one worker -----------------------------------------------------------------------------------------------

    async def _keep(self, worker: int) -> None:
        """One life after another, until we leave."""
        pauses = Pauses(self._rng)
        while True:
            began = trio.current_time()
            status = await self._live(worker)
            self._fleet.ended(worker)
            if self._leaving.is_set():
                self.status = self.status or min(abs(status), 1)
                return
            if not self._fleet.complete.is_set():
                raise StartError(f"worker {worker} {_how(status)} before it served")
            pause = pauses.after(trio.current_time() - began)
            _log.error("a worker has ended", worker=worker, how=_how(status), starts_again_in=round(pause, 2))
            self._fleet.restarts[worker] += 1
            with trio.move_on_after(pause):
                await self._leaving.wait()
                return

    async def _live(self, worker: int) -> int:
        """From its start to its end; its exit status."""
        ours, theirs = socket.socketpair()
        fleet = self._fleet
        began_with = fleet.sources
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        async with stream, trio.open_nursery() as nursery:
            with theirs:
                process = await self._spawn(worker, theirs, nursery)
            talk = Talk(stream, self._handlers)
            nursery.start_soon(talk.run)
            nursery.start_soon(self._let_go, talk)
            details = {"first": as_data(self._first), "current": as_data(began_with)}
            try:
                started = await talk.ask("start", unix=self._unix and self._unix.fileno(), **details)
                why = started["error"] or await fleet.join(worker, talk, began_with)
                if why and not fleet.complete.is_set():
                    raise StartError(why)
                if why:
                    _log.error("a worker cannot start", worker=worker, error=why)
                    talk.end()
                else:
                    self._urls = started["urls"]
                    _log.info("a worker serves", worker=worker, pid=process.pid)
                    nursery.start_soon(self._kill_if_deaf, worker, talk, process)
            except Gone:
                pass  # it has ended, or is about to
            await process.wait()
            nursery.cancel_scope.cancel()
        assert process.returncode is not None
        return process.returncode

    async def _spawn(self, worker: int, line: socket.socket, nursery: trio.Nursery) -> trio.Process:
        """A process that is killed with `nursery`."""
        run = partial(
            trio.run_process,
            [sys.executable, "-m", "broker.workers.worker", str(worker)],
            stdin=line.fileno(),
            pass_fds=[self._unix.fileno()] if self._unix is not None else [],
            env={name: text for name, text in os.environ.items() if name not in notify.VARIABLES},
            check=False,
            deliver_cancel=_kill,
        )
        process: trio.Process = await nursery.start(run)
        return process

    async def _kill_if_deaf(self, worker: int, talk: Talk, process: trio.Process) -> None:
        with suppress(Gone):
            await deaf(partial(talk.ask, "state"))
            _log.error("a worker does not answer any more, it is killed", worker=worker)
            process.kill()

    async def _let_go(self, talk: Talk) -> None:
        await self._leaving.wait()
        talk.end()

    # ---- what workers ask -----------------------------------------------------------------------------------------

    async def _metrics(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"text": (await self._fleet.metrics()).decode()}

    async def _unready(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"unready": await self._fleet.unready()}


async def _kill(process: trio.Process) -> None:
    process.kill()


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
