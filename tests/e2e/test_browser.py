"""A page in headless Chromium: the SDK over WebSocket, and over SockJS where a proxy lets no WebSocket through."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.conftest import GetBroker
from tests.e2e.daemon import PEER
from tests.e2e.nginx import Nginx
from tests.e2e.sdk import HERE, NODE

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(bool(PEER), reason="SockJS is ours alone"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: .ci/debian"),
]

MODULES = HERE / "js" / "node_modules"
SCRIPTS = {
    "/centrifuge.js": MODULES / "centrifuge" / "dist" / "centrifuge.js",
    "/sockjs.js": MODULES / "sockjs-client" / "dist" / "sockjs.js",
}
PAGE = """<!DOCTYPE html><title>test</title>
<script src="/centrifuge.js"></script><script src="/sockjs.js"></script>
<script>
const tell = (event, more) => console.log(JSON.stringify({ event, ...more }));
const client = new Centrifuge(
  [
    { transport: 'websocket', endpoint: 'ws://PLACE/connection/websocket' },
    { transport: 'sockjs', endpoint: 'http://PLACE/connection/sockjs' },
  ],
  { sockjs: SockJS, sockjsOptions: { transports: ['WAY'] }, minReconnectDelay: 10, maxReconnectDelay: 100 },
);
client.on('connected', (context) => tell('connected', { transport: context.transport }));
const hello = client.newSubscription('CHANNEL');
hello.on('subscribed', () => tell('subscribed'));
hello.on('publication', (context) => tell('publication', { data: context.data }));
hello.subscribe();
client.connect();
</script>
"""


async def serve_page(page: str, stream: trio.SocketStream) -> None:
    async with stream:
        head = b""
        while b"\r\n\r\n" not in head:
            data = await stream.receive_some()
            if not data:
                return
            head += data
        path = head.split(b" ")[1].decode()
        body = SCRIPTS[path].read_bytes() if path in SCRIPTS else page.encode() if path == "/" else b""
        kind = "text/javascript" if path in SCRIPTS else "text/html"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n".encode()
        await stream.send_all(head + b"Connection: close\r\n\r\n" + body)


@pytest.mark.parametrize(
    ("blocked", "way", "transport"),
    [
        (False, "xhr-streaming", "websocket"),
        (True, "xhr-streaming", "sockjs-xhr-streaming"),
        (True, "eventsource", "sockjs-eventsource"),
        (True, "xhr-polling", "sockjs-xhr-polling"),
    ],
)
async def test_a_page(
    blocked: bool, way: str, transport: str, broker: GetBroker, nursery: trio.Nursery, tmp_path: Path, key: str
) -> None:
    daemon = await broker({"client": {"insecure": True, "allowed_origins": ["*"]}, "sockjs": {"enabled": True}})
    nginx = Nginx(tmp_path / "nginx", daemon.port, *(["proxy_set_header Upgrade"] if blocked else []))
    await nginx.ready()
    page = PAGE.replace("PLACE", f"127.0.0.1:{nginx.port}").replace("WAY", way).replace("CHANNEL", key)
    listeners = await nursery.start(partial(trio.serve_tcp, partial(serve_page, page), 0, host="127.0.0.1"))
    address = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
    process: Any = await trio.lowlevel.open_process(
        [NODE, str(HERE / "js" / "browser.mjs"), str(CHROMIUM), address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    lines = b""

    async def event(name: str) -> dict[str, Any]:
        nonlocal lines
        while True:
            while b"\n" not in lines:
                data = await process.stdout.receive_some()
                assert data, "the browser ended"
                lines += data
            line, _, lines = lines.partition(b"\n")
            if line.startswith(b"{") and (told := json.loads(line))["event"] == name:
                return dict(told)

    try:
        with trio.fail_after(30):
            assert (await event("connected"))["transport"] == transport
            await event("subscribed")
            await daemon.api("publish", channel=key, data={"text": "a\u2028b 100%"})
            assert (await event("publication"))["data"] == {"text": "a\u2028b 100%"}
            await process.stdin.aclose()  # closes the browser
            await process.wait()
    finally:
        process.terminate()
        await trio.aclose_forcefully(process.stdout)
        nginx.stop()
    nursery.cancel_scope.cancel()
