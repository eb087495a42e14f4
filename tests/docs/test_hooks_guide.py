"""The application of docs/hooks.md, as it stands there: it runs, and it is reloaded."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import trio

from broker.client import Client, ReplyError, connect
from tests.e2e.daemon import Daemon

GUIDE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
(APP,) = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
IN_PROCESS, OVER_HTTP = re.findall(r"^```json\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


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
            with trio.fail_after(10):
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
            with trio.fail_after(10):
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
