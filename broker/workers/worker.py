"""A worker: a server on addresses that it shares, for as long as its parent talks to it.

`python -m broker.workers.worker NUMBER`, with the line to the parent as its standard input.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import structlog
import trio
from trio_util import wait_any

from broker.app import Engine, Server, open_server
from broker.config import Config, ConfigError, after_reload, load
from broker.eager import own_task
from broker.hub import EngineUnavailable
from broker.observe import Metrics, as_data, set_up_logs
from broker.process import StartError, leaves, raise_file_limit, tune_collector
from broker.reload import CannotReload, prepare
from broker.supervisor import Stopped, deadline_for_leaving, open_signals
from broker.workers import sources
from broker.workers.talk import Gone, Talk

_log = structlog.get_logger("broker.workers")

_PARENT_SECONDS: Final = 3.0
"""For an answer of the parent, which asks the others."""


@final
class Worker:
    """The `Siblings` of its server."""

    def __init__(self, number: int, stream: trio.SocketStream) -> None:
        self._number = number
        self._talk = Talk(
            stream,
            {
                "start": self._start,
                "prepare": self._prepare,
                "take": self._take,
                "state": self._state,
                "metrics": self._own_metrics,
            },
        )
        self._told: Mapping[str, Any] = {}
        self._told_to_start = trio.Event()
        self._outcome: dict[str, Any] = {}
        self._decided = trio.Event()
        self._alone = trio.Event()
        self._server: Server | None = None
        self._put_in_place: Callable[[], None] | None = None
        self._unix: socket.socket | None = None

    async def run(self) -> int:
        """Serve until the parent lets go, or a signal ends it. Returns the exit status."""
        status = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            await wait_any(self._told_to_start.wait, self._alone.wait)
            if not self._alone.is_set():
                try:
                    await self._serve(self._configured())
                except* (ConfigError, StartError, Stopped, EngineUnavailable) as failed:
                    status = 1
                    self._failed("; ".join(str(error) for error in leaves(failed)))
                if self._server is None:
                    await self._alone.wait()  # when the parent has heard why
            nursery.cancel_scope.cancel()
        return status

    def _failed(self, why: str) -> None:
        if self._decided.is_set():
            _log.error("the end was not in order", error=why)
        else:
            self._decide({"error": why})

    def _configured(self) -> Config:
        """Listeners and engine as at the start of the parent, rules as of the last reload."""
        first = load(sources.from_data(self._told["first"])).config
        config = after_reload(first, load(sources.from_data(self._told["current"])).config)
        set_up_logs(config.log, worker=self._number)
        raise_file_limit()
        if (unix := self._told["unix"]) is not None:
            self._unix = socket.socket(fileno=unix)
            self._unix.set_inheritable(False)
        return config

    async def _serve(self, config: Config) -> None:
        async with (
            open_signals(_nothing) as signals,
            deadline_for_leaving(signals, config.shutdown.timeout),
            open_server(config, siblings=self) as server,
        ):
            self._server = server
            tune_collector()
            self._decide({"error": "", "urls": list(server.urls)})
            await wait_any(signals.stopping.wait, self._alone.wait)
            signals.stopping.set()

    async def _listen(self) -> None:
        await self._talk.run()
        self._alone.set()

    # ---- what the parent asks -------------------------------------------------------------------------------------

    async def _start(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        self._told = told
        self._told_to_start.set()
        await self._decided.wait()
        return self._outcome

    def _decide(self, outcome: dict[str, Any]) -> None:
        self._outcome = outcome
        self._decided.set()

    async def _prepare(self, told: Mapping[str, Any]) -> Mapping[str, Any]:
        assert self._server is not None
        self._put_in_place = None
        try:
            self._put_in_place = await prepare(self._server, load(sources.from_data(told["sources"])).config)
        except (ConfigError, CannotReload) as error:
            return {"error": str(error)}
        return {"error": ""}

    async def _take(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._put_in_place is not None:
            self._put_in_place()
            self._put_in_place = None
        return {}

    async def _state(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"unready": list(self._server.engine.unready) if self._server is not None else []}

    async def _own_metrics(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"families": as_data(self._server.metrics.families()) if self._server is not None else []}

    # ---- Siblings -------------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        return self._number

    @property
    def unix_socket(self) -> socket.socket | None:
        return self._unix

    async def metrics(self, own: Metrics) -> bytes:
        answer = await self._ask_parent("metrics")
        return own.render() if answer is None else str(answer["text"]).encode()

    async def unready(self, own: Engine) -> Sequence[str]:
        answer = await self._ask_parent("unready")
        return ["the parent of the workers does not answer"] if answer is None else list(answer["unready"])

    async def _ask_parent(self, what: str) -> Mapping[str, Any] | None:
        await own_task()
        with trio.move_on_after(_PARENT_SECONDS):
            try:
                return await self._talk.ask(what)
            except Gone:
                pass
        return None


async def _nothing() -> None:
    """A hang-up of the terminal reaches all; the parent decides what it means."""


def _line_to_parent() -> socket.socket:
    """The standard input, out of the reach of the application's code."""
    line = socket.socket(fileno=os.dup(0))
    line.set_inheritable(False)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    return line


async def _run(number: int, line: socket.socket) -> int:
    return await Worker(number, trio.SocketStream(trio.socket.from_stdlib_socket(line))).run()


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.exit(trio.run(_run, int(sys.argv[1]), _line_to_parent()))
