"""A broker for the tests of applications: on a real port for any test, or in memory for tests on Trio.

The fixtures of `pytest_plugin` give both. A server made here trusts its clients (`client.insecure`) and wants no API
key, unless the options say otherwise.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final, final

import outcome
import trio
import trio.testing

from broker.api import ServerHandle
from broker.app import Server, open_server
from broker.auth import make_token
from broker.client import Client, connect
from broker.config import Config, configure
from broker.protocol import StreamPosition

__all__ = ["MemoryServer", "RunningServer", "open_memory_server", "running_server"]

_EPOCH: Final = 1_700_000_000.0
"""Unix seconds when virtual time begins."""
_START: Final = 30.0
"""Seconds that a server may take to start."""


def _config(options: Mapping[str, Any], **flags: str) -> Config:
    """`options` over trust for everybody; who sets up tokens or API keys wants them checked."""
    client, api = dict(options.get("client", {})), dict(options.get("http_api", {}))
    if "token" not in client:
        client.setdefault("insecure", True)
    if "key" not in api:
        api.setdefault("insecure", True)
    client.setdefault("allowed_origins", ["*"])
    return configure({**options, "client": client, "http_api": api}, flags=flags)


class _Tokens:
    """Makes tokens that the server accepts."""

    _config: Config

    def token(self, user: str, **claims: Any) -> str:
        """A connection token for `user`; with `channel=…` a subscription token.

        Raises:
            ValueError: the options set no `client.token.hmac_secret_key`.
        """
        secret = self._config.client.token.hmac_secret_key
        if not secret:
            raise ValueError("set client.token.hmac_secret_key in the options of the server to make tokens")
        return make_token({"sub": user, **claims}, secret.reveal())


@final
class RunningServer(_Tokens):
    """A server on a port of this machine, in a thread of its own: for tests of every kind."""

    def __init__(self, config: Config, server: Server, trio_token: trio.lowlevel.TrioToken) -> None:
        self._config = config
        self._api = server.api
        self._trio_token = trio_token
        self.http_url: Final = server.urls[0].replace("localhost", "127.0.0.1")
        """`http://127.0.0.1:PORT`"""
        self.api_url: Final = self.http_url + "/" + config.http_api.handler_prefix.strip("/")
        self.url: Final = self.http_url.replace("http", "ws", 1) + "/" + config.websocket.handler_prefix.strip("/")
        """Of the WebSocket endpoint."""

    def call(self, work: Callable[[ServerHandle], Any]) -> Any:
        """Run an async function in the server and wait for its result: `call(lambda api: api.history("news"))`."""
        return trio.from_thread.run(partial(work, self._api), trio_token=self._trio_token)

    def publish(self, channel: str, data: Any) -> StreamPosition:
        """Publish, and wait until it is told to subscribers."""
        position: StreamPosition = self.call(lambda api: api.publish(channel, data))
        return position


@contextmanager
def running_server(options: Mapping[str, Any] | None = None) -> Iterator[RunningServer]:
    """A server with `options` (what `config.json` would hold) on a free port, for as long as the block lives."""
    config = _config(options or {}, **{"http_server.port": "0", "http_server.address": "127.0.0.1"})
    started: queue.SimpleQueue[RunningServer | None] = queue.SimpleQueue()
    ended: list[outcome.Outcome[None]] = []
    stop = trio.Event()

    async def serve() -> None:
        async with open_server(config) as server:
            started.put(RunningServer(config, server, trio.lowlevel.current_trio_token()))
            await stop.wait()

    def run() -> None:
        ended.append(outcome.capture(trio.run, serve))
        started.put(None)

    thread = threading.Thread(target=run, name="broker", daemon=True)  # noqa: TID251 (the test has a loop of its own, or none)
    thread.start()
    server = started.get(timeout=_START)
    try:
        if server is None:
            ended.pop().unwrap()
            raise AssertionError("it ended before it began")
        yield server
    finally:
        if server is not None:
            with suppress(trio.RunFinishedError):
                server._trio_token.run_sync_soon(stop.set)
        thread.join()
    ended[0].unwrap()


@final
class MemoryServer(_Tokens):
    """A server without a socket: clients come in over memory streams, so that time may be virtual."""

    def __init__(self, config: Config, server: Server) -> None:
        self._config = config
        self._server = server
        self.api: Final = server.api

    def connect(self, **options: Any) -> AbstractAsyncContextManager[Client]:
        """A client of this server; `options` as in `broker.client.connect`."""
        path = self._config.websocket.handler_prefix.strip("/")
        return connect(f"ws://broker/{path}", dial=self._dial, **options)

    async def _dial(self) -> trio.abc.Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        self._server.doors.take_in_stream(theirs, self._server.sites[0])
        return ours


@asynccontextmanager
async def open_memory_server(options: Mapping[str, Any] | None = None, *, seed: int = 1) -> AsyncIterator[MemoryServer]:
    """A server with `options` in memory. Tokens are judged by a clock that goes with Trio's, and everything random
    comes from `seed`."""
    config = _config(options or {})
    began = trio.current_time()
    async with open_server(
        config,
        wall_clock=lambda: _EPOCH + trio.current_time() - began,
        rng=random.Random(seed),
        listen=False,
    ) as server:
        yield MemoryServer(config, server)
