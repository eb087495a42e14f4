"""The application of docs/hooks.md, as it stands there: it runs, and it is reloaded."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import trio

from broker.client import Client, ReplyError, connect
from tests.e2e.cluster import over_redis, wait_known
from tests.e2e.daemon import API_KEY, Daemon, merged
from tests.e2e.http import request
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.redis import running_redis

GUIDE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
APP, TOLD, FASTAPI = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
IN_PROCESS, OVER_HTTP, TOLD_OVER_HTTP = re.findall(r"^```json\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


COOKIE = {"Cookie": "42"}


async def refused(client: Client, channel: str, data: object) -> int | None:
    try:
        await client.publish(channel, data)
    except ReplyError as error:
        return error.code
    return None


async def test_the_application_in_python(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    daemon = Daemon(tmp_path, json.loads(IN_PROCESS))
    try:
        await daemon.ready()
        async with connect(daemon.websocket, headers=COOKIE) as client:
            with trio.fail_after(PATIENCE):
                async with client.subscribe("chat:news") as subscription:
                    assert json.loads(await client.rpc("announce", "hello")) == {"announced": True}
                    assert json.loads((await anext(subscription)).data) == {"text": "hello"}
                assert await refused(client, "chat:news", "x" * 2000) == 413

                (tmp_path / "app.py").write_text(APP.replace('"announced": True', '"announced": "anew"'))
                daemon.signal(signal.SIGHUP)
                await daemon.wait_log("configuration reloaded")
                assert json.loads(await client.rpc("announce", "hello")) == {"announced": "anew"}

                daemon.allow_error("the old one stays")
                (tmp_path / "app.py").write_text("this is no Python")
                daemon.signal(signal.SIGHUP)
                (line,) = await daemon.wait_log("the old one stays")
                assert 'cannot import \\"app\\": SyntaxError' in line
                assert json.loads(await client.rpc("announce", "hello")) == {"announced": "anew"}
        await daemon.settle()
        await daemon.stop()
        daemon.check_log()
    finally:
        daemon.process.kill()
        daemon.process.wait()


async def test_with_dev_a_saved_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    daemon = Daemon(tmp_path, json.loads(IN_PROCESS), args=["--dev"])
    try:
        await daemon.ready()
        (tmp_path / "app.py").write_text(APP.replace('"announced": True', '"announced": "anew"'))
        await daemon.wait_log("configuration reloaded")
        async with connect(daemon.websocket, headers=COOKIE) as client:
            with trio.fail_after(PATIENCE):
                assert json.loads(await client.rpc("announce", "hello")) == {"announced": "anew"}
        await daemon.settle()
        await daemon.stop()
        daemon.check_log()
    finally:
        daemon.process.kill()
        daemon.process.wait()


async def test_the_configuration_over_http(tmp_path: Path) -> None:
    """No backend is asked at start."""
    daemon = Daemon(tmp_path, json.loads(OVER_HTTP))
    try:
        await daemon.ready()
        await daemon.stop()
        daemon.check_log()
    finally:
        daemon.process.kill()
        daemon.process.wait()


ANYBODY = {"client": {"insecure": True}}
AT_ONCE = {"channel": {"state": {"vacated_event_delay": "1ms"}}}


async def test_the_functions_that_are_told(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(TOLD)
    daemon = Daemon(tmp_path, merged({**json.loads(IN_PROCESS), **ANYBODY}, AT_ONCE))
    try:
        await daemon.ready()
        with trio.fail_after(PATIENCE):
            async with connect(daemon.websocket) as watcher, watcher.subscribe("chat:log") as log:
                async with connect(daemon.websocket) as client, client.subscribe("chat:room-1"):
                    assert json.loads((await anext(log)).data) == {"chat:room-1": "occupied"}
                assert json.loads((await anext(log)).data) == {"left": "", "channel": "chat:room-1", "code": 0}
                assert json.loads((await anext(log)).data) == {"chat:room-1": "vacated"}
        await daemon.settle()
        await daemon.stop()
        daemon.check_log()
    finally:
        daemon.process.kill()
        daemon.process.wait()


async def open_backend(folder: Path, port: int, server: Daemon) -> trio.Process:
    (folder / "backend.py").write_text(FASTAPI)
    command = [sys.executable, "-m", "uvicorn", "backend:api", "--port", str(port), "--log-level", "warning"]
    environment = {**os.environ, "BROKER_URL": server.http, "BROKER_API_KEY": API_KEY}
    return await trio.lowlevel.open_process(command, cwd=folder, env=environment)


def telling(port: int) -> dict[str, Any]:
    config = json.loads(TOLD_OVER_HTTP.replace("127.0.0.1:3000", f"127.0.0.1:{port}"))
    return merged(merged(config, ANYBODY), AT_ONCE)


async def test_a_node_that_was_killed_occupies_nothing(tmp_path: Path) -> None:
    port = free_port()
    async with running_redis() as redis:
        daemons: list[Daemon] = []
        for name in ("stays", "dies"):
            folder = tmp_path / name
            folder.mkdir()
            daemons.append(Daemon(folder, over_redis(telling(port), redis.address)))
        stays, dies = daemons
        backend = await open_backend(tmp_path, port, stays)
        try:
            for daemon in daemons:
                await daemon.ready()
            await wait_known(daemons)
            with trio.fail_after(PATIENCE):
                async with connect(stays.websocket) as client, client.subscribe("chat:kept"):
                    await seen(port, occupied=["chat:kept"])
                    async with connect(dies.websocket) as other, other.subscribe("chat:lost"):
                        await seen(port, occupied=["chat:kept", "chat:lost"])
                        dies.process.kill()
                        assert await seen(port, occupied=["chat:kept"]) == []
        finally:
            backend.kill()
            await backend.wait()
            for daemon in daemons:
                daemon.process.kill()
                daemon.process.wait()


async def test_the_backend_that_is_told(tmp_path: Path) -> None:
    port = free_port()
    daemon = Daemon(tmp_path, telling(port))
    backend = await open_backend(tmp_path, port, daemon)
    try:
        await daemon.ready()
        with trio.fail_after(PATIENCE):
            assert await seen(port, occupied=[]) == []
            async with connect(daemon.websocket) as client, client.subscribe("chat:news"):
                assert await seen(port, occupied=["chat:news"]) == []
            unsubscribed, disconnected = await seen(port, occupied=[])
        assert (unsubscribed["channel"], unsubscribed["code"]) == ("chat:news", 0)
        assert disconnected["code"] == 3000
        await daemon.settle()
        await daemon.stop()
        daemon.check_log()
    finally:
        daemon.process.kill()
        daemon.process.wait()
        backend.kill()
        await backend.wait()


async def seen(port: int, occupied: list[str]) -> list[Any]:
    """Who has gone, once these channels are occupied."""
    while True:
        try:
            told = (await request(port, "GET", "/seen")).json()
        except (OSError, ValueError):  # it is about to start, or the server that it asks is
            told = {}
        if told.get("occupied") == occupied:
            return told["gone"]  # type: ignore[no-any-return]
        await trio.sleep(0.05)
