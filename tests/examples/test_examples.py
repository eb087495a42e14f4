"""Every example runs, as it stands in its folder, and does what it is there to show."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.client import Client, Disconnected, ReplyError, StreamPosition, Unsubscribed, connect
from tests.e2e.daemon import PEER, Daemon, merged
from tests.e2e.http import request
from tests.e2e.sdk import NODE
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(PEER), reason="ours alone")]

HOME = Path(__file__).parents[2]
EXAMPLES = HOME / "examples"
JS = HOME / "tests/e2e/js"
SDK = JS / "node_modules/centrifuge/dist/centrifuge.js"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@asynccontextmanager
async def example(name: str, tmp_path: Path, **config: Any) -> AsyncIterator[Daemon]:
    """The daemon with an example's configuration, in its folder."""
    given = json.loads((EXAMPLES / name / "config.json").read_text())
    daemon = Daemon(tmp_path, merged(given, config), env={"PYTHONPATH": f"{EXAMPLES / name}{os.pathsep}{HOME}"})
    try:
        await daemon.ready()
        yield daemon
    finally:
        daemon.stop_sync()
    daemon.check_log()


@asynccontextmanager
async def program(command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """A program of an example, until the block ends."""
    process = await trio.lowlevel.open_process(
        command, cwd=folder, env={**os.environ, **(env or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def listening(port: int) -> None:
    """Wait until somebody listens there."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)  # nothing tells when a foreign process is ready
                continue
            await stream.aclose()
            return


def at(port: int) -> str:
    return f"ws://127.0.0.1:{port}/connection/websocket"


# ---- chat ---------------------------------------------------------------------------------------------------------


async def test_chat(tmp_path: Path) -> None:
    async with example("chat", tmp_path) as daemon:

        def enter(name: str) -> Any:
            return connect(at(daemon.port), data={"name": name})

        with pytest.raises(Disconnected, match="1 to 30"):
            async with enter(""):
                pass
        async with enter("Ada") as ada, enter("Bob") as bob, ada.subscribe("chat:lobby"):
            with pytest.raises(Unsubscribed) as refused:
                async with bob.subscribe("chat:staff"):
                    pass
            assert refused.value.code == 403
            async with bob.subscribe("chat:lobby") as heard:
                await ada.publish("chat:lobby", {"text": " hello ", "from": "Grace"})
                said = json.loads((await first_publication(heard)).data)
                assert (said["from"], said["text"]) == ("Ada", "hello")
                with pytest.raises(ReplyError, match="say something"):
                    await ada.publish("chat:lobby", {"text": " "})
                assert {json.loads(each.conn_info)["name"] for each in (await ada.presence("chat:lobby")).values()} == {
                    "Ada",
                    "Bob",
                }
                assert len((await ada.history("chat:lobby", limit=10)).publications) == 1
                await bob.rpc("clear", {"room": "lobby"})
                assert json.loads((await first_publication(heard)).data)["text"] == "Bob cleared the room"


async def first_publication(subscription: Any) -> Any:
    with trio.fail_after(PATIENCE):
        return await anext(aiter(subscription))


async def test_the_page_of_the_chat(tmp_path: Path) -> None:
    """A browser shows what was said before it came, and who is there."""
    page = re.sub(r'src="https://unpkg[^"]*"', 'src="centrifuge.js"', (EXAMPLES / "chat/index.html").read_text())
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text(page + WATCH)
    shutil.copy(SDK, tmp_path / "site/centrifuge.js")
    port = free_port()
    origins = {"allowed_origins": [f"http://127.0.0.1:{port}"]}
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    async with (
        example("chat", tmp_path, client=origins) as daemon,
        program(command, tmp_path / "site"),
        connect(at(daemon.port), data={"name": "Ada"}) as ada,
        ada.subscribe("chat:lobby"),
    ):
        await ada.publish("chat:lobby", {"text": "hello, <b>page</b>"})
        await listening(port)
        url = f"http://127.0.0.1:{port}/?name=Bob&server={at(daemon.port)}"
        await shows(url, "Ada: hello, <b>page</b>", "Here: Ada, Bob")


WATCH = """<script>
new MutationObserver(() => console.log(document.body.innerText))
  .observe(document.body, { childList: true, subtree: true, characterData: true });
</script>
"""


async def shows(url: str, *texts: str) -> None:
    """Open a page that has `WATCH` in it, and wait until it has shown all of `texts` to whoever looks at it."""
    process = await trio.lowlevel.open_process(
        [NODE, "browser.mjs", CHROMIUM, url], cwd=JS, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    seen = b""
    try:
        with trio.fail_after(PATIENCE):
            while not all(text.encode() in seen for text in texts):
                data = await process.stdout.receive_some()
                assert data, seen
                seen += data
        await process.stdin.aclose()  # which closes the browser
        await process.wait()
    finally:
        process.kill()
        await process.wait()
        await process.stdout.aclose()


# ---- answers ------------------------------------------------------------------------------------------------------


async def test_an_answer_survives_a_reload(tmp_path: Path) -> None:
    port = free_port()
    async with program([sys.executable, "main.py", str(port)], EXAMPLES / "ai_stream", {"PYTHONPATH": str(HOME)}):
        await listening(port)
        async with connect(at(port)) as page:
            asked = json.loads(await page.rpc("ask", "why?"))
            channel, start = asked["channel"], partial(position, asked)
            async with page.subscribe(channel, since=start()) as answer:
                begun = json.loads((await first_publication(answer)).data)["token"]
        async with connect(at(port)) as page, page.subscribe(channel, since=start()) as answer:
            with trio.fail_after(PATIENCE):
                words = await read_to_the_end(answer)
    assert words[0] == begun
    assert "".join(words) == "You asked: why? That is a good question, and here is a long answer to it. "


def position(asked: Mapping[str, Any]) -> Any:
    return StreamPosition(asked["offset"], asked["epoch"])


async def read_to_the_end(answer: Any) -> list[str]:
    words: list[str] = []
    async for publication in answer:
        data = json.loads(publication.data)
        if "done" in data:
            return words
        words.append(data["token"])
    raise AssertionError("the stream broke off")


# ---- FastAPI ------------------------------------------------------------------------------------------------------


async def test_a_fastapi_backend(tmp_path: Path) -> None:
    folder = EXAMPLES / "fastapi_backend"
    port = free_port()
    proxies = {
        "channel": {"proxy": {"subscribe": {"endpoint": f"http://127.0.0.1:{port}/broker/subscribe"}}},
        "rpc": {"proxy": {"endpoint": f"http://127.0.0.1:{port}/broker/rpc"}},
    }
    async with example("fastapi_backend", tmp_path, **proxies) as daemon:
        command = [sys.executable, "-m", "uvicorn", "main:api", "--port", str(port)]
        async with program(command, folder, {"BROKER_URL": f"http://127.0.0.1:{daemon.port}"}):
            await listening(port)
            assert (await request(port, "POST", "/token/mallory")).status == 404
            token = (await request(port, "POST", "/token/ada")).json()["token"]
            async with connect(at(daemon.port), token=token) as ada:
                await check_teams(ada)
            env = {**os.environ, "APP_URL": f"http://127.0.0.1:{port}", "BROKER_WEBSOCKET": at(daemon.port)}
            command = [sys.executable, "listen.py", "ada", "all is well"]
            with trio.fail_after(PATIENCE):
                heard = await trio.run_process(command, cwd=folder, env=env, capture_stdout=True)
            assert json.loads(heard.stdout) == {"report": "all is well", "from": "ada"}


async def check_teams(ada: Client) -> None:
    with pytest.raises(Unsubscribed) as refused:
        async with ada.subscribe("team:blue"):
            pass
    assert refused.value.code == 403
    async with ada.subscribe("team:red") as red:
        assert json.loads(await ada.rpc("report", {"all": "well"})) == {"thanks": "ada"}
        told = json.loads((await first_publication(red)).data)
        assert told == {"report": {"all": "well"}, "from": "ada"}
    with pytest.raises(ReplyError, match="no such method"):
        await ada.rpc("other")


async def test_the_program_with_a_broker_inside_ends_quietly() -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "main.py", str(free_port())],
        cwd=EXAMPLES / "ai_stream",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(PATIENCE):
        assert (await process.stdout.receive_some()).startswith(b"answering on port")
        process.send_signal(signal.SIGINT)
        assert await process.stderr.receive_some() == b""
        assert await process.wait() == 0
