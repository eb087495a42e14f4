"""A Redis of the load's own, which a shape may kill and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import attrs

__all__ = ["Redis", "running_redis"]

START_SECONDS = 10.0


@final
@attrs.frozen
class Redis:
    """Where it is, and what starts it again, with all that it has acknowledged: it writes that to a file first."""

    port: int
    pid: int
    argv: tuple[str, ...]

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    @contextmanager
    def again(self) -> Iterator[Redis]:
        """Started anew, in the same place, while the block lasts; it answers when the block begins."""
        with _process(self.argv, self.port) as process:
            yield attrs.evolve(self, pid=process.pid)


@contextmanager
def running_redis(free_port: Callable[[], int]) -> Iterator[Redis]:
    """
    Raises:
        RuntimeError: there is no `redis-server`, or it does not start.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("there is no redis-server in the PATH")
    with tempfile.TemporaryDirectory(prefix="benchmark-redis-") as folder:
        port = free_port()
        options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "yes"}
        options["appendfsync"] = "no"  # what was written survives the process, if not the machine
        argv = (program, *(str(part) for name, value in options.items() for part in (f"--{name}", value)))
        with _process(argv, port) as process:
            yield Redis(port, process.pid, argv)


@contextmanager
def _process(argv: tuple[str, ...], port: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("redis-server does not start")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.005)
            yield process
        finally:
            process.kill()


def _answers(port: int) -> bool:
    """Whether it has read what it keeps, and takes commands."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(16).startswith(b"+PONG")
    except OSError:
        return False
