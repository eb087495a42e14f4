"""The real daemon as a process: started on a free port, asked for its health, stopped by SIGTERM, its log read."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import trio

from tests.e2e.http import Answer, request
from tests.e2e.tokens import SECRET
from tests.support.children import WITH_US
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

API_KEY = "key of the tests"
STOP_SECONDS = 10.0
SETTLE_SECONDS = 20.0
"""Less than the time in which pings find out by themselves who has gone."""

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


@final
class Daemon:
    """One running server: its addresses, its API, its log. `command` starts another one, as `PEER` does.

    `outside` is the port for clients; `port`, where the API and `/health` are, is the same unless the test says so.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        health_port: int | None = None,
        port: int = 0,
        command: str = "",
    ) -> None:
        self.outside = port or free_port()
        self.port = health_port or self.outside
        self.config_file = folder / "config.json"
        self.config = merged(
            merged(BASE_CONFIG, {"http_server": {"address": "127.0.0.1", "port": self.outside}}), config
        )
        self.write_config(self.config)
        self._log_file = folder / "log"
        self._log_start = 0
        self._allowed: list[re.Pattern[str]] = []
        self._leaving = False
        template = command or PEER or f"{shlex.quote(sys.executable)} -m broker -c {{config}}"
        command = shlex.split(template.format(config=shlex.quote(str(self.config_file))))
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("BROKER_", "CENTRIFUGO_"))}
        with self._log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*WITH_US, *command, *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=folder,
                env=environ | dict(env or {}),
            )

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket(self) -> str:
        return f"ws://127.0.0.1:{self.outside}/connection/websocket"

    @property
    def log(self) -> list[str]:
        """The lines that this test brought about."""
        text = self._log_file.read_bytes()[self._log_start :].decode(errors="replace")
        return text.split("\n")[:-1]

    def begin_test(self) -> None:
        """What the log says from here on is this test's."""
        self._log_start = self._log_file.stat().st_size
        self._allowed.clear()

    def write_config(self, config: Mapping[str, Any] | str) -> None:
        """Replace the configuration file; a text goes in as it is."""
        self.config_file.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))

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

    async def gauges(self) -> dict[str, float]:
        """What the server counts right now."""
        text = (await self.get("/metrics")).body.decode()
        return {
            name: float(value) for name, value in re.findall(r"^centrifugo_node_num_(\w+) (\S+)$", text, re.MULTILINE)
        }

    def signal(self, number: signal.Signals) -> None:
        self._leaving = self._leaving or number in (signal.SIGTERM, signal.SIGINT)
        self.process.send_signal(number)

    async def exited(self) -> int:
        """Wait for the end of the process; its exit status."""
        with trio.fail_after(PATIENCE):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)

    async def wait_log(self, pattern: str, count: int = 1) -> list[str]:
        """The first `count` lines of the log that match, once they are there."""
        with trio.fail_after(PATIENCE):
            while True:
                found = [line for line in self.log if re.search(pattern, line)]
                if len(found) >= count:
                    return found
                await trio.sleep(0.01)

    async def ready(self) -> None:
        """Returns when `/health` answers."""
        with trio.move_on_after(PATIENCE):
            while self.process.poll() is None:
                try:
                    if (await self.get("/health")).status == 200:
                        return
                except OSError:
                    await trio.sleep(0.01)
        self.process.kill()
        self.process.wait()
        raise AssertionError("\n".join(["the server did not start", *self.log]))

    async def settle(self) -> None:
        """Nothing of the clients is left in the server, soon after they went."""
        if PEER or self._leaving or self.process.poll() is not None:
            return
        with trio.move_on_after(SETTLE_SECONDS):
            while await self._left():  # noqa: ASYNC110 (nobody tells us: it is another process)
                await trio.sleep(0.01)
        assert await self._left() == {}

    async def _left(self) -> dict[str, float]:
        return {name: count for name, count in (await self.gauges()).items() if count and name != "nodes"}

    async def stop(self) -> None:
        """SIGTERM, unless the test has sent it, and exit status 0 in time."""
        await trio.to_thread.run_sync(self.stop_sync)

    def stop_sync(self) -> None:
        """`stop` where no Trio runs."""
        if self.process.poll() is None and not self._leaving:
            self.signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        assert status == 0, self.log

    def check_log(self) -> None:
        """No line of level error or above, no traceback, that was not announced."""
        if not PEER:  # others may think differently about what is an error
            assert [line for line in self.log if _is_error(line) and not self._is_allowed(line)] == []

    def _is_allowed(self, line: str) -> bool:
        return any(pattern.search(line) for pattern in self._allowed)


@final
class DaemonPool:
    """Daemons that tests share, one per configuration; those unused for longest are stopped."""

    def __init__(self, folder: Path, most: int = 3) -> None:
        self._folder = folder
        self._most = most
        self._running: dict[str, Daemon] = {}
        self._started = 0

    async def get(self, config: Mapping[str, Any]) -> Daemon:
        key = json.dumps(config, sort_keys=True)
        daemon = self._running.pop(key, None)
        if daemon is None or daemon.process.poll() is not None:
            self._shrink(self._most - 1)
            self._started += 1
            folder = self._folder / str(self._started)
            folder.mkdir()
            daemon = Daemon(folder, config)
            await daemon.ready()
        self._running[key] = daemon
        return daemon

    def discard(self, daemon: Daemon) -> None:
        """Do not use it again: a test left something in it."""
        self._running = {key: other for key, other in self._running.items() if other is not daemon}
        daemon.process.kill()
        daemon.process.wait()

    def close(self) -> None:
        self._shrink(0)

    def _shrink(self, size: int) -> None:
        while len(self._running) > size:
            self._running.pop(next(iter(self._running))).stop_sync()


def _is_error(line: str) -> bool:
    try:
        level = json.loads(line).get("level", "")
    except (ValueError, AttributeError):
        return bool(re.search(r"\b(ERROR|CRITICAL|FATAL|ERR|FTL)\b|^Traceback", line))
    return level in ("error", "fatal", "critical", "panic")
