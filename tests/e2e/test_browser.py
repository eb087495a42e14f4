"""A page in headless Chromium: the SDK over WebSocket, over what it falls back to where a proxy lets no WebSocket
through, and a listener without an SDK. The page comes from another origin than what it connects to."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import pytest
import trio

from tests.e2e.conftest import GetBroker
from tests.e2e.daemon import PEER
from tests.e2e.nginx import Nginx
from tests.e2e.sdk import HERE, NODE
from tests.support.patience import PATIENCE

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
CONFIG: Final = {
    "client": {"insecure": True, "allowed_origins": ["*"]},
    "sockjs": {"enabled": True},
    "http_stream": {"enabled": True},
    "sse": {"enabled": True},
    "uni_sse": {"enabled": True},
}
BLOCKED = "proxy_set_header Upgrade"
"""Without this line nginx lets no WebSocket through."""

HEAD = """<!DOCTYPE html><title>test</title>
<script src="/centrifuge.js"></script><script src="/sockjs.js"></script>
<script>
const tell = (event, more) => console.log(JSON.stringify({ event, ...more }));
</script>
"""
SDK_PAGE = """<script>
const endpoints = {
  websocket: 'ws://PLACE/connection/websocket',
  http_stream: 'http://PLACE/connection/http_stream',
  sse: 'http://PLACE/connection/sse',
  sockjs: 'http://PLACE/connection/sockjs',
};
const client = new Centrifuge(
  'WAYS'.split(' ').map((transport) => ({ transport, endpoint: endpoints[transport] })),
  {
    emulationEndpoint: 'http://PLACE/emulation',
    sockjs: SockJS,
    sockjsOptions: { transports: ['SOCKJS_WAY'] },
    minReconnectDelay: 10,
    maxReconnectDelay: 100,
  },
);
client.on('connected', (context) => tell('connected', { transport: context.transport }));
const hello = client.newSubscription('CHANNEL');
hello.on('subscribed', () => tell('subscribed'));
hello.on('publication', (context) => tell('publication', { data: context.data }));
hello.subscribe();
client.connect();
</script>
"""
LISTENER_PAGE = """<script>
const connect = encodeURIComponent(JSON.stringify({ subs: { 'CHANNEL': {} } }));
const source = new EventSource('http://PLACE/connection/uni_sse?cf_connect=' + connect);
source.onmessage = (message) => {
  const { connect, channel, pub } = JSON.parse(message.data);
  if (connect) tell('connected', { channels: Object.keys(connect.subs) });
  if (pub) tell('publication', { channel, data: pub.data });
};
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


@final
class Page:
    """What a page tells, in its order. Closing the input of the process closes the browser."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._lines = b""

    async def event(self, name: str) -> dict[str, Any]:
        while True:
            while b"\n" not in self._lines:
                data = await self._process.stdout.receive_some()
                assert data, "the browser ended"
                self._lines += data
            line, _, self._lines = self._lines.partition(b"\n")
            if line.startswith(b"{") and (told := json.loads(line))["event"] == name:
                return dict(told)


@asynccontextmanager
async def opened(page: str) -> AsyncIterator[Page]:
    """A page in a browser of its own."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(serve_page, page), 0, host="127.0.0.1"))
        address = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
        process: Any = await trio.lowlevel.open_process(
            [NODE, str(HERE / "js" / "browser.mjs"), str(CHROMIUM), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            with trio.fail_after(PATIENCE):
                yield Page(process)
                await process.stdin.aclose()
                await process.wait()
        finally:
            process.terminate()
            await trio.aclose_forcefully(process.stdout)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("blocked", "ways", "sockjs_way", "transport"),
    [
        (False, "websocket http_stream sse sockjs", "", "websocket"),
        (True, "websocket http_stream sse", "", "http_stream"),
        (True, "websocket sse", "", "sse"),
        (True, "websocket sockjs", "xhr-streaming", "sockjs-xhr-streaming"),
        (True, "websocket sockjs", "eventsource", "sockjs-eventsource"),
        (True, "websocket sockjs", "xhr-polling", "sockjs-xhr-polling"),
    ],
)
async def test_the_sdk(
    blocked: bool, ways: str, sockjs_way: str, transport: str, broker: GetBroker, tmp_path: Path, key: str
) -> None:
    daemon = await broker(CONFIG)
    nginx = Nginx(tmp_path / "nginx", daemon.port, *([BLOCKED] if blocked else []))
    try:
        await nginx.ready()
        text = HEAD + SDK_PAGE.replace("PLACE", f"127.0.0.1:{nginx.port}").replace("SOCKJS_WAY", sockjs_way)
        async with opened(text.replace("WAYS", ways).replace("CHANNEL", key)) as page:
            assert (await page.event("connected"))["transport"] == transport
            await page.event("subscribed")
            await daemon.api("publish", channel=key, data={"text": "a\u2028b 100%"})
            assert (await page.event("publication"))["data"] == {"text": "a\u2028b 100%"}
    finally:
        nginx.stop()


async def test_an_event_source(broker: GetBroker, tmp_path: Path, key: str) -> None:
    daemon = await broker(CONFIG)
    nginx = Nginx(tmp_path / "nginx", daemon.port, BLOCKED)
    try:
        await nginx.ready()
        text = HEAD + LISTENER_PAGE.replace("PLACE", f"127.0.0.1:{nginx.port}").replace("CHANNEL", key)
        async with opened(text) as page:
            assert (await page.event("connected"))["channels"] == [key]
            await daemon.api("publish", channel=key, data={"text": "a\u2028b 100%"})
            told = await page.event("publication")
            assert (told["channel"], told["data"]) == (key, {"text": "a\u2028b 100%"})
    finally:
        nginx.stop()
