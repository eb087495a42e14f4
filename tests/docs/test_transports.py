"""Every line of the README's table of transports works as it stands, with development settings."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import trio

from tests.e2e.daemon import PEER, Daemon
from tests.e2e.sdk import NODE
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(PEER), reason="ours alone")]

HOME = Path(__file__).parents[2]
TABLE = re.split(r"^## ", (HOME / "README.md").read_text().partition("\n## Ways in\n")[2], flags=re.MULTILINE)[0]
LINES = re.findall(r"^\| .* \| `((?:curl|new) .*)`(?:, as above)? \|$", TABLE, re.MULTILINE)
NAMES = ("http_stream", "sse", "uni_sse", "uni_http_stream", "uni_websocket", "sockjs")
PRELUDE = """
import { Centrifuge } from 'centrifuge';
import SockJS from 'sockjs-client';
import EventSource from 'eventsource';
import ws from 'ws';
globalThis.WebSocket ??= ws;
"""
SHOW = """
if (it instanceof Centrifuge) { it.on('connected', (ctx) => console.log('"connect"', ctx.transport)); it.connect(); }
"""


def command(line: str, port: int) -> tuple[list[str], Path]:
    line = line.replace("localhost:8000", f"127.0.0.1:{port}")
    if line.startswith("curl"):
        return ["bash", "-c", f"exec {line}"], HOME
    program = f"{PRELUDE}const it = {line};{SHOW}"
    return [NODE, "--input-type=module", "--eval", program], HOME / "tests" / "e2e" / "js"


def test_there_is_a_line_for_each() -> None:
    assert len(LINES) == len(NAMES) + 1
    assert all(any(f"/{name}" in line for line in LINES) for name in NAMES)


CONNECTED = re.compile(rb'"connect"')
SUBSCRIBED = re.compile(rb'"hello":\{|"id":2,"subscribe":\{')


async def more(process: trio.Process) -> bytes:
    assert process.stdout is not None
    data: bytes = await process.stdout.receive_some()
    assert data, "it ended"
    return data


@pytest.mark.parametrize("line", LINES)
async def test_line(daemon: Daemon, line: str) -> None:
    words, folder = command(line, daemon.outside)
    process = await trio.lowlevel.open_process(words, cwd=folder, stdout=subprocess.PIPE)
    assert process.stdout is not None
    came = b""
    try:
        with trio.fail_after(PATIENCE):
            while not (SUBSCRIBED if "hello" in line else CONNECTED).search(came):
                came += await more(process)
            if "hello" in line:
                await daemon.api("publish", channel="hello", data={"text": "for the table"})
                while b"for the table" not in came:
                    came += await more(process)
    finally:
        process.kill()
        await process.wait()
        await process.stdout.aclose()
