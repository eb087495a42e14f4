"""Every line of the README's table of transports is typed, and shows what is published."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import trio

from tests.e2e.daemon import PEER, Daemon
from tests.e2e.sdk import NODE

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(PEER), reason="ours alone")]

HOME = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([\w -]+) \| `(/connection/\w+)` \| `(.*)`", re.MULTILINE)
ROWS = {path: line for _, path, line in ROW.findall((HOME / "README.md").read_text())}


def test_every_transport_has_a_line() -> None:
    names = ("websocket", "http_stream", "sse", "sockjs", "uni_websocket", "uni_sse", "uni_http_stream")
    assert list(ROWS) == [f"/connection/{name}" for name in names]
    assert all(path in line for path, line in ROWS.items())


@pytest.mark.parametrize("path", [path for path, line in ROWS.items() if line.startswith(("curl", "new WebSocket"))])
async def test_the_line(daemon: Daemon, path: str) -> None:
    line = ROWS[path].replace("localhost:8000", f"127.0.0.1:{daemon.port}")
    if line.startswith("curl"):
        command = ["bash", "-c", f"exec {line} --silent"]
    else:
        old_node = "globalThis.WebSocket ??= (await import('ws')).default;\n"  # before version 22
        command = [NODE, "--input-type=module", "--eval", old_node + line]
    process = await trio.lowlevel.open_process(command, cwd=HOME / "tests/e2e/js", stdout=subprocess.PIPE)
    assert process.stdout is not None
    shown = b""
    try:
        with trio.fail_after(15):
            while b'{"hello":{' not in shown and b'"id":2,"subscribe":{' not in shown:
                shown += await process.stdout.receive_some()
            await daemon.api("publish", channel="hello", data={"text": "for the table"})
            while b"for the table" not in shown:
                shown += await process.stdout.receive_some()
    finally:
        process.kill()
        await process.wait()
        await process.stdout.aclose()
