"""The three nodes of docs/deploy/compose.yaml, as processes: its variables, its Redis, its nginx."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from broker.client import Backoff, connect
from tests.e2e.conftest import StartBroker
from tests.e2e.daemon import PEER
from tests.e2e.http import request
from tests.e2e.nginx import MAIN, NGINX
from tests.e2e.tokens import SECRET, token
from tests.support.children import WITH_US
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.redis import RedisServer

pytestmark = pytest.mark.skipif(bool(PEER), reason="ours alone")

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
NODES = ("node1", "node2", "node3")


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    command = COMPOSE["services"]["redis"]["command"]
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        server = RedisServer(Path(name), *command[1:])
        server.start()
        try:
            trio.run(server.wait_ready)
            yield server
        finally:
            server.kill()


@contextmanager
def nginx_before(folder: Path, ports: dict[str, int]) -> Iterator[int]:
    """nginx with the configuration that is mounted; gives its port."""
    (mounted,) = [volume.split(":")[0] for volume in COMPOSE["services"]["nginx"]["volumes"]]
    port = free_port()
    site = (DEPLOY / mounted).read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    for name, at in ports.items():
        assert f"{name}:8000" in site
        site = site.replace(f"{name}:8000", f"127.0.0.1:{at}")
    folder.mkdir()
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, site=site))
    assert NGINX is not None, "install nginx: .ci/debian"
    process = subprocess.Popen(
        [*WITH_US, NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        assert process.poll() is None
        process.terminate()
        process.wait(10)


def variables(node: str, redis: RedisServer) -> dict[str, str]:
    given: dict[str, str] = COMPOSE["services"][node]["environment"] | {"BROKER_SHUTDOWN_DRAIN_WINDOW": "1s"}
    secrets = {"TOKEN_SECRET": SECRET, "API_KEY": "key of the tests"}
    filled = {name: re.sub(r"\$\{(\w+):\?.*\}", lambda found: secrets[found[1]], v) for name, v in given.items()}
    return {name: value.replace("redis:6379", redis.address) for name, value in filled.items()}


async def test_the_nodes_of_the_compose_file(redis: RedisServer, broker_process: StartBroker, tmp_path: Path) -> None:
    """One conversation across them, which goes on when a node leaves: nobody misses anything."""
    nodes = {name: await broker_process(env=variables(name, redis)) for name in NODES}
    first = nodes["node1"]
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        port = stack.enter_context(nginx_before(tmp_path / "nginx", {name: at.port for name, at in nodes.items()}))
        assert await status_of_api(port) == 404  # inside only
        got: dict[int, list[bytes]] = {n: [] for n in range(6)}
        ready = trio.Event()

        async def read(n: int) -> None:
            url = f"ws://127.0.0.1:{port}/connection/websocket"
            async with (
                connect(url, token=token(f"u{n}"), backoff=Backoff(0.05, 0.5)) as client,
                client.subscribe("chat:room") as room,
            ):
                await room.next_event()
                got[n].append(b"")
                if all(got.values()):
                    ready.set()
                while len(got[n]) < 21:
                    got[n].append((await anext(room)).data)

        for n in got:
            nursery.start_soon(read, n)
        with trio.fail_after(PATIENCE):
            await ready.wait()
            assert [(await nodes[name].gauges())["clients"] for name in NODES] == [2, 2, 2]
            for n in range(20):
                if n == 10:
                    nodes["node3"].signal(signal.SIGTERM)
                await first.api("publish", channel="chat:room", data=n)
            while any(len(seen) < 21 for seen in got.values()):  # noqa: ASYNC110 (the last of them)
                await trio.sleep(0.01)
        assert all(seen[1:] == [str(n).encode() for n in range(20)] for seen in got.values())


async def status_of_api(port: int) -> int:
    with trio.fail_after(PATIENCE):
        while True:
            try:
                return (await request(port, "POST", "/api/publish", {}, b"{}")).status
            except OSError:  # nginx is not there yet
                await trio.sleep(0.01)
