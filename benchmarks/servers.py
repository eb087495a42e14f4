"""The servers under load: found by URL, or started here, pinned to a core, and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit

import attrs

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 30.0
STOP_SECONDS = 5.0
TOKEN_SECRET = "benchmark"

CONFIG: dict[str, Any] = {
    "client": {"insecure": True, "token": {"hmac_secret_key": TOKEN_SECRET}},
    "http_api": {"insecure": True},
    "health": {"enabled": True},
    "rpc": {"ping": {"enabled": True}},
    "log": {"level": "error"},
    "usage_stats": {"disabled": True},
}
"""What every server that is started here is given: no history, no presence, nothing to verify but tokens (W10)."""


@final
@attrs.frozen
class Server:
    """A server that runs, and how it is reached. `pids` are its processes; without them CPU and memory are unknown."""

    host: str
    port: int
    pids: tuple[int, ...] = ()
    path: str = "/connection/websocket"
    api_path: str = "/api"
    api_key: str = ""

    @classmethod
    def at(cls, url: str, pids: Sequence[int], api_key: str) -> Server:
        """The server at `url`: `http://host:port`, with a path in front of its endpoints where it has one.

        Raises:
            ValueError: the URL is no plain HTTP or WebSocket one.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "ws") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or ws:// address (TLS is not measured)")
        host = socket.gethostbyname(parts.hostname)
        prefix = parts.path.rstrip("/").removesuffix("/connection/websocket")
        return cls(host, parts.port or 80, tuple(pids), f"{prefix}/connection/websocket", f"{prefix}/api", api_key)

    @property
    def local(self) -> bool:
        return self.host.startswith("127.")

    def cpu_seconds(self) -> float:
        """User and system time that its processes have used; the sum of their CPU clocks, in nanosecond steps."""
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.pids)

    def resident(self) -> int:
        """Resident bytes of its processes."""
        page = resource.getpagesize()
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in self.pids)


@final
@attrs.frozen
class Candidate:
    """A server that can be started: `command` with `{port}` or `{config}`, a file that has the port too."""

    name: str
    command: str

    def argv(self, port: int, config: Path) -> list[str]:
        program, *rest = shlex.split(self.command)
        if os.sep in program:
            program = os.path.abspath(program)  # it starts in a folder of its own
        return [program, *(part.format(port=port, config=config) for part in rest)]


@final
@attrs.frozen
class Cores:
    """Which core the servers get and which the load; None leaves the choice to the system."""

    server: int | None
    load: int | None

    def pin_server(self) -> None:
        if self.server is not None:
            os.sched_setaffinity(0, {self.server})

    def pin_load(self) -> None:
        if self.load is not None:
            os.sched_setaffinity(0, {self.load})


def broker(python: str) -> Candidate:
    """The daemon of this checkout."""
    return Candidate("broker", f"{shlex.quote(python)} -m broker --http_server.port {{port}} -c {{config}}")


def yardstick(python: str, path: str) -> Candidate:
    """The existence proof of the daemon's shape, a script that takes a port."""
    return Candidate("yardstick", f"{shlex.quote(python)} {shlex.quote(path)} --http_server.port {{port}}")


def floor(python: str) -> Candidate:
    """A loop of bare sends (`benchmarks.floor`)."""
    return Candidate("floor", f"{shlex.quote(python)} -m benchmarks.floor {{port}}")


def by_command(text: str) -> Candidate:
    """Any other server: `COMMAND` or `NAME=COMMAND`.

    Raises:
        ValueError: nothing in it says the port.
    """
    name, separator, command = text.partition("=")
    if not separator or not name.isidentifier():
        name, command = Path(shlex.split(text)[0]).name, text
    if "{port}" not in command and "{config}" not in command:
        raise ValueError(f"{command!r} does not say where {{port}} or {{config}} goes")
    return Candidate(name, command)


@contextmanager
def running(candidate: Candidate, cores: Cores) -> Iterator[Server]:
    """Start a server on a free port, on its core, and stop it at the end.

    Raises:
        RuntimeError: it did not start; with the end of what it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, open(f"{folder}/log", "w+b") as log:
        port = _free_port()
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(CONFIG | {"http_server": {"address": "127.0.0.1", "port": port}}))
        process = subprocess.Popen(
            candidate.argv(port, config),
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=cores.pin_server,
        )
        try:
            _wait_ready(process, port)
            yield Server("127.0.0.1", port, (process.pid,))
            if process.poll() is not None:
                raise RuntimeError(f"{candidate.name} ended with status {process.returncode} under load")
        except BaseException as error:
            log.seek(0)
            for line in log.read().decode(errors="replace").splitlines()[-20:]:
                error.add_note(f"{candidate.name}: {line}")
            raise
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            process.wait()


def raise_file_limit() -> int:
    """Open as many files as the system lets us; servers started afterwards inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (1 << 20, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return wanted
        except (ValueError, OSError):
            continue
    return soft


def interpreter(python: str) -> str:
    """What `python` is and where it comes from, in one line: builds of one version differ by half in speed."""
    code = "import sys; print(sys.version, getattr(sys, '_base_executable', sys.executable))"
    try:
        text = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{python} does not run: {error}") from None
    return " ".join(text.split())


def _environment() -> dict[str, str]:
    names = ("BROKER_", "CENTRIFUGO_", "GOMAXPROCS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    path = [str(ROOT), environment.get("PYTHONPATH", "")]
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "GOMAXPROCS": "1"}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with status {process.returncode} before it was ready")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        finally:
            connection.close()
    raise RuntimeError(f"it was not ready within {START_SECONDS:.0f} s")
