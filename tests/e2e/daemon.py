"""The real daemon as a process: started on a free port, asked for its health, stopped by SIGTERM, its log read."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import trio

from tests.e2e.http import Answer, request
from tests.e2e.tokens import SECRET

API_KEY = "key of the tests"
START_SECONDS = 20.0
STOP_SECONDS = 10.0

BASE_CONFIG: dict[str, Any] = {
    "client": {"token": {"hmac_secret_key": SECRET}},
    "http_api": {"key": API_KEY},
    "health": {"enabled": True},
    "prometheus": {"enabled": True},
    "usage_stats": {"disabled": True},
    "shutdown": {"timeout": f"{STOP_SECONDS:.0f}s"},
    "log": {"level": "info"},
}

PEER = os.environ.get("BROKER_E2E_PEER", "")
"""A command with `{config}` in it: another server of the same contract to run the tests against."""


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `more` laid over it, object by object."""
    result = dict(base)
    for key, value in more.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return result


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@final
class Daemon:
    """One running server. `start` and `stop` are for the fixture; tests use the addresses, `api` and the log.

    `outside` is the port for clients; `port`, where the API and `/health` are, is the same unless the test says so.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        env: Mapping[str, str],
        args: list[str],
        health_port: int | None,
    ) -> None:
        self.outside = free_port()
        self.port = health_port or self.outside
        self.config_file = folder / "config.json"
        self.log: list[str] = []
        self.process: trio.Process | None = None
        self._args = args
        self._env = dict(env)
        self._leaving = False
        self._allowed: list[re.Pattern[str]] = []
        self._log_ended = trio.Event()
        self._log_grew = trio.Event()
        server = {"address": "127.0.0.1", "port": self.outside}
        self.config = merged(merged(BASE_CONFIG, {"http_server": server}), config)
        self.write_config(self.config)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    def write_config(self, config: Mapping[str, Any] | str) -> None:
        """Replace the configuration file; a text goes in as it is."""
        text = config if isinstance(config, str) else json.dumps(config, indent=1)
        self.config_file.write_text(text)

    def allow_error(self, pattern: str) -> None:
        """Announce an ERROR line of the log that is meant to be there."""
        self._allowed.append(re.compile(pattern))

    async def api(self, method: str, **params: Any) -> dict[str, Any]:
        """Call the server API and return the whole reply object."""
        answer = await self.post(f"/api/{method}", params)
        assert answer.status == 200, answer
        return dict(answer.json())

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        """POST `body` (bytes as they are, anything else as JSON) with the API key unless a header says otherwise."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return await request(self.port, "POST", path, {"X-API-Key": API_KEY} | headers, data)

    async def get(self, path: str) -> Answer:
        return await request(self.port, "GET", path)

    async def gauge(self, name: str) -> float:
        """The sum over labels of one metric."""
        lines = (await self.get("/metrics")).body.decode().splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[{{ ]", line)]
        assert values, f"no metric {name}"
        return sum(values)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self._leaving = self._leaving or number in (signal.SIGTERM, signal.SIGINT)
        self.process.send_signal(number)

    async def wait_log(self, pattern: str) -> str:
        """The first line of the log that matches, now or later."""
        with trio.fail_after(10):
            while True:
                for line in self.log:
                    if re.search(pattern, line):
                        return line
                await self._log_grew.wait()

    async def wait_growth(self) -> None:
        """Wait for the next lines of the log."""
        await self._log_grew.wait()

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the process and return when `/health` answers."""
        template = PEER or f"{shlex.quote(sys.executable)} -m broker -c {{config}}"
        command = shlex.split(template.format(config=shlex.quote(str(self.config_file)), port=self.outside))
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("BROKER_", "CENTRIFUGO_"))}
        self.process = await trio.lowlevel.open_process(
            command + self._args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.config_file.parent,
            env=environ | self._env,
        )
        nursery.start_soon(self._read_log, self.process)
        with trio.move_on_after(START_SECONDS) as patience:
            while self.process.poll() is None:
                try:
                    if (await self.get("/health")).status == 200:
                        return
                except OSError:
                    await trio.sleep(0.01)
        await self._end(signal.SIGKILL)
        raise AssertionError("\n".join([f"the server did not start: {patience.cancelled_caught=}", *self.log]))

    async def settle(self) -> None:
        """Wait until clients, subscriptions and channels that the server counts are 0 again."""
        if PEER or self.process is None or self._leaving or self.process.poll() is not None:
            return
        with trio.fail_after(10):
            for what in ("clients", "subscriptions", "channels"):
                while await self.gauge(f"centrifugo_node_num_{what}"):  # noqa: ASYNC110  another process knows no Event
                    await trio.sleep(0.02)

    async def stop(self) -> None:
        """SIGTERM, exit status 0 in time, and no ERROR line that nobody announced."""
        await self._end(signal.SIGTERM)
        assert self.process is not None
        assert self.process.returncode == 0, self.log
        if not PEER:  # others may think differently about what is an error
            assert self.errors() == []

    def errors(self) -> list[str]:
        """Lines of level error and above, tracebacks included, that were not announced."""
        return [
            line for line in self.log if _is_error(line) and not any(pattern.search(line) for pattern in self._allowed)
        ]

    async def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        if self.process.poll() is None and not self._leaving:  # a second SIGTERM means: at once
            self.process.send_signal(number)
        with trio.move_on_after(STOP_SECONDS + 2):
            await self.process.wait()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        with trio.move_on_after(2):
            await self._log_ended.wait()

    async def _read_log(self, process: trio.Process) -> None:
        assert process.stderr is not None
        rest = b""
        async for chunk in process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            self.log += [line.decode(errors="replace") for line in lines]
            self._log_grew.set()
            self._log_grew = trio.Event()
        self._log_ended.set()


def _is_error(line: str) -> bool:
    try:
        level = json.loads(line).get("level", "")
    except (ValueError, AttributeError):
        return bool(re.search(r"\b(ERROR|CRITICAL|FATAL|ERR|FTL)\b|^Traceback", line))
    return level in ("error", "fatal", "critical", "panic")
