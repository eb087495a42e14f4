"""Real Redis for tests: servers of their own on ports of their own, and a clock that both sides share."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, final

import hiredis
import trio

__all__ = ["RedisClock", "RedisServer", "ask", "free_port", "running_redis"]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def ask(port: int, *command: Any, password: str = "") -> Any:
    """One command on a connection of its own; blocks for as long as the server takes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        if password:
            _exchange(sock, "AUTH", password)
        return _exchange(sock, *command)


def _exchange(sock: socket.socket, *command: Any) -> Any:
    reader = hiredis.Reader()
    sock.sendall(hiredis.pack_command(command))
    while (reply := reader.gets()) is False:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("Redis has closed the connection")
        reader.feed(data)
    return reply


@final
class RedisServer:
    """A `redis-server` in a folder of its own. What it keeps on disk stays there over a restart."""

    def __init__(self, folder: Path, *options: str, port: int = 0, command: Sequence[str] = ("redis-server",)) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = list(options)
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        base = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        save = [] if "--save" in self.options else ["--save", ""]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*self._command, *base, *save, *self.options], stdout=log, stderr=log)

    async def wait_ready(self) -> None:
        """Until it answers."""
        with trio.fail_after(10):
            while True:
                try:
                    answer = ask(self.port, "PING")
                except OSError:
                    answer = None
                if answer is not None and not str(answer).startswith("LOADING"):
                    return
                await _real_pause()

    def ask(self, *command: Any) -> Any:
        return ask(self.port, *command)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


async def _real_pause() -> None:
    await trio.to_thread.run_sync(time.sleep, 0.01)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        yield Path(name)


@asynccontextmanager
async def running_redis(*options: str) -> AsyncIterator[RedisServer]:
    """A server for as long as the block lives."""
    with _folder() as folder:
        server = RedisServer(folder, *options)
        server.start()
        try:
            await server.wait_ready()
            yield server
        finally:
            server.kill()


_AGE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
    local left = redis.call('PTTL', key)
    if left >= 0 then
        left = left - tonumber(ARGV[1])
        if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('DEL', key) end
    end
    if redis.call('TYPE', key).ok == 'zset' then
        for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
            redis.call('ZINCRBY', key, -tonumber(ARGV[1]) / 1000, member)
        end
    end
end
"""


@final
class RedisClock(trio.abc.Clock):
    """Real time; but where nothing is under way and somebody waits for a deadline, it jumps there, and everything in
    Redis ages by as much. Give it the `server` and `busy`, which tells whether something is under way."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.server: RedisServer | None = None
        self.busy: Callable[[], bool] = lambda: True

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return time.perf_counter() + self._ahead

    def deadline_to_sleep_time(self, deadline: float) -> float:
        left = deadline - self.current_time()
        if left <= 0 or left > 1e6 or self.server is None or self.busy():
            return max(left, 0.0)
        self.server.ask("EVAL", _AGE, 0, int(left * 1000) + 1)
        self._ahead += left
        return 0.0
