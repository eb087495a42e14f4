"""Servers that are started for a round: pinned to a core, on a free port, and stopped at its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import attrs

import broker
from broker.bench import backend
from broker.bench.redis import Redis, running_redis
from broker.bench.target import TRANSPORTS, Target
from broker.bench.usage import pin

__all__ = ["CONFIG", "RPC_NAMESPACE", "Asked", "Candidate", "Cores", "Tls", "daemon", "floor", "free_port", "running"]

START_SECONDS = 30.0
STOP_SECONDS = 5.0
TOKEN_SECRET = "benchmark"
RPC_NAMESPACE = "backend"
"""Methods with this namespace are what a backend is asked about."""
_ROOT = Path(broker.__file__).resolve().parent.parent

CONFIG: dict[str, Any] = {
    "client": {"insecure": True, "token": {"hmac_secret_key": TOKEN_SECRET}},
    "http_api": {"insecure": True},
    "health": {"enabled": True},
    "rpc": {"ping": {"enabled": True}},
    "channel": {
        "namespaces": [
            {
                "name": "kept",
                "history_size": 1000,
                "history_ttl": "300s",
                "force_positioning": True,
                "force_recovery": True,
            }
        ]
    },
    "log": {"level": "error"},
    "usage_stats": {"disabled": True},
}
"""What a server that is started here is given: nothing to verify but tokens (W10), nothing to keep but in `kept:`."""


@final
@attrs.frozen
class Tls:
    """A certificate and its key, as files, with which servers are started; the certificate is what the load trusts."""

    certificate: Path
    key: Path

    def config(self) -> dict[str, Any]:
        pair = {"cert_pem": self.certificate.read_text(), "key_pem": self.key.read_text()}
        return {"tls": {"enabled": True, **pair}}


@final
@attrs.frozen
class Asked:
    """What servers that are started here ask a backend about, which is started with them and answers `delay` seconds
    after it was asked."""

    connect: bool = False
    """Whether about clients that connect, too; about RPC in any case."""
    delay: float = 0.0

    def config(self, port: int) -> dict[str, Any]:
        """Sections of the servers' configuration, for a backend at `port`."""
        base = f"http://127.0.0.1:{port}"
        proxy = {"endpoint": base + backend.RPC, "timeout": "30s"}
        client = CONFIG["client"]
        if self.connect:
            client = client | {
                "proxy": {"connect": {"enabled": True, "endpoint": base + backend.CONNECT, "timeout": "30s"}}
            }
        namespaces = [{"name": RPC_NAMESPACE, "proxy_enabled": True}]
        return {"client": client, "rpc": CONFIG["rpc"] | {"namespaces": namespaces, "proxy": proxy}}


@final
@attrs.frozen
class Candidate:
    """A server that can be started: `command` with `{port}` or `{config}`, a file that has the port too."""

    name: str
    command: str
    simple: bool = False
    """Whether it is no whole server: it connects, subscribes, publishes, and answers nothing else."""

    def argv(self, port: int, config: Path) -> list[str]:
        program, *rest = shlex.split(self.command)
        if os.sep in program:
            program = os.path.abspath(program)  # it starts in a folder of its own
        return [program, *(part.format(port=port, config=config) for part in rest)]


@final
@attrs.frozen
class Cores:
    """Which core the servers get and which the load; nothing leaves the choice to the system."""

    server: int | None = None
    load: tuple[int, ...] = ()

    @classmethod
    def apart(cls) -> Cores:
        """The first core for the server, all others for the load."""
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(first, tuple(others)) if others else cls()


def daemon(python: str = sys.executable, name: str = "broker") -> Candidate:
    """The daemon of this installation."""
    return Candidate(name, f"{shlex.quote(python)} -m broker --http_server.port {{port}} -c {{config}}")


def floor(python: str = sys.executable) -> Candidate:
    """A loop of bare sends (`broker.bench.floor`)."""
    return Candidate("floor", f"{shlex.quote(python)} -m broker.bench.floor {{port}} {{config}}", simple=True)


@contextmanager
def running(
    candidate: Candidate,
    core: int | None = None,
    *,
    tls: Tls | None = None,
    codec: str = "json",
    transport: str = "websocket",
    redis: str = "",
    asked: Asked | None = None,
    backend_cores: Sequence[int] = (),
    own_redis: bool = False,
) -> Iterator[Target]:
    """Start a server on a free port, on its core, and stop it at the end; and so the backend that it asks, if any.

    `redis` is the address of one that runs, which becomes its engine; with `own_redis` one is started for it.

    Raises:
        RuntimeError: it did not start; with the end of what it wrote.
    """
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        open(f"{folder}/log", "w+b") as log,
        _backend(asked, backend_cores) as sections,
        _redis(own_redis) as own,
    ):
        port = free_port()
        config = Path(folder) / "config.json"
        address = own.address if own is not None else redis
        config.write_text(json.dumps(_config(port, tls, transport, address) | sections))
        process = subprocess.Popen(
            candidate.argv(port, config),
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: pin(core),
        )
        try:
            _wait_ready(process, port, tls is not None)
            yield Target.at(
                f"{'https' if tls else 'http'}://127.0.0.1:{port}",
                name=candidate.name,
                pids=(process.pid,),
                token_secret=TOKEN_SECRET,
                codec=codec,
                transport=transport,
                ca=str(tls.certificate) if tls else "",
                redis=own,
            )
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


@contextmanager
def _redis(wanted: bool) -> Iterator[Redis | None]:
    if not wanted:
        yield None
        return
    with running_redis(free_port) as redis:
        yield redis


@contextmanager
def _backend(asked: Asked | None, cores: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Runs a backend, and gives the sections of a configuration that asks it."""
    if asked is None:
        yield {}
        return
    port = free_port()
    command = [sys.executable, str(Path(backend.__file__)), str(port), str(asked.delay)]
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it listens
            if cores:
                os.sched_setaffinity(process.pid, cores)
            yield asked.config(port)
        finally:
            process.kill()


def _config(port: int, tls: Tls | None, transport: str, redis: str) -> dict[str, Any]:
    server: dict[str, Any] = {"address": "127.0.0.1", "port": port}
    if tls is not None:
        server |= tls.config()
    config = CONFIG | {"http_server": server}
    if transport != "websocket" and transport in TRANSPORTS:
        config[transport] = {"enabled": True}
    if redis:
        config["engine"] = {"type": "redis", "redis": {"address": redis}}
    return config


def _environment() -> dict[str, str]:
    names = ("BROKER_", "CENTRIFUGO_", "GOMAXPROCS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    path = [str(_ROOT), environment.get("PYTHONPATH", "")]
    return environment | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "GOMAXPROCS": "1"}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait_ready(process: subprocess.Popen[bytes], port: int, tls: bool) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # here it is only asked whether it is there
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with status {process.returncode} before it was ready")
        connection = (
            http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
            if tls
            else http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        )
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        finally:
            connection.close()
    raise RuntimeError(f"it was not ready within {START_SECONDS:.0f} s")
