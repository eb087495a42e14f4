"""HTTP/2 by ALPN over TLS, with curl as the client."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.conftest import StartBroker
from tests.e2e.daemon import API_KEY, PEER, Daemon
from tests.support.certificates import make_certificate
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(bool(PEER), reason="an option of our own")


async def start(broker_process: StartBroker, folder: Path, *, http2: bool) -> Daemon:
    cert, key = make_certificate(folder)
    internal = free_port()
    return await broker_process(
        {
            "client": {"insecure": True},
            "sockjs": {"enabled": True},
            "sse": {"enabled": True},
            "http_stream": {"enabled": True},
            "http_server": {
                "tls": {"enabled": True, "cert_pem": str(cert), "key_pem": str(key)},
                "tls_external": True,
                "internal_port": str(internal),
                "http2": {"enabled": http2},
            },
            "http_api": {"external": True},
        },
        health_port=internal,
    )


async def curl(daemon: Daemon, path: str, *more: str) -> tuple[str, str]:
    """The version of HTTP that was spoken, and the body."""
    url = f"https://127.0.0.1:{daemon.outside}{path}"
    options = ["-sk", "--http2", "-m", str(PATIENCE), "-w", "\n%{http_version}"]
    result = await trio.run_process(["curl", *options, *more, url], capture_stdout=True)
    body, _, version = result.stdout.decode().rpartition("\n")
    return version, body


async def test_curl_gets_http_2_where_it_is_on(broker_process: StartBroker, tmp_path: Path) -> None:
    daemon = await start(broker_process, tmp_path, http2=True)
    assert await curl(daemon, "/connection/sockjs") == ("2", "Welcome to SockJS!\n")
    assert (await curl(daemon, "/connection/sockjs", "--http1.1"))[0] == "1.1"
    publish = ("-H", f"X-API-Key: {API_KEY}", "-d", json.dumps({"channel": "news", "data": "x" * 100_000}))
    version, answer = await curl(daemon, "/api/publish", *publish)
    assert (version, json.loads(answer)) == ("2", {"result": {}})

    process: Any = await trio.lowlevel.open_process(
        ["curl", "-skN", "--http2", f"https://127.0.0.1:{daemon.outside}/connection/sockjs/0/abc/eventsource"],
        stdout=subprocess.PIPE,
    )
    with trio.fail_after(PATIENCE):
        assert b"data: o" in await read_until(process, b"data: o\r\n\r\n")
        commands = [{"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "a"}}]
        body = json.dumps([json.dumps(command) for command in commands])
        await curl(daemon, "/connection/sockjs/0/abc/xhr_send", "-d", body)
        await read_until(process, b"subscribe")
        publish = ("-H", f"X-API-Key: {API_KEY}", "-d", json.dumps({"channel": "a", "data": "hello"}))
        await curl(daemon, "/api/publish", *publish)
        await read_until(process, b"hello")
    process.kill()
    await process.wait()
    await process.stdout.aclose()


@pytest.mark.parametrize("path", ["/connection/sse", "/connection/http_stream"])
async def test_a_stream_over_http_2(broker_process: StartBroker, tmp_path: Path, path: str) -> None:
    daemon = await start(broker_process, tmp_path, http2=True)
    commands = '{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"a"}}'
    process: Any = await trio.lowlevel.open_process(
        ["curl", "-skN", "--http2", f"https://127.0.0.1:{daemon.outside}{path}", "-d", commands],
        stdout=subprocess.PIPE,
    )
    with trio.fail_after(PATIENCE):
        came = await read_until(process, b'"subscribe"')
        hello = json.loads(re.search(rb"{.*}", came)[0])["connect"]  # type: ignore[index]
        publish = {"id": 3, "publish": {"channel": "a", "data": "hello"}}
        sent = {"node": hello["node"], "session": hello["session"], "data": json.dumps(publish)}
        assert await curl(daemon, "/emulation", "-d", json.dumps(sent)) == ("2", "")
        await read_until(process, b"hello")
        answer = await curl(daemon, "/api/disconnect", "-H", f"X-API-Key: {API_KEY}", "-d", '{"user": ""}')
        assert answer[0] == "2"
        await read_until(process, b"force disconnect")
        assert await process.wait() == 0  # the stream ended as it should
    await process.stdout.aclose()


async def read_until(process: Any, end: bytes) -> bytes:
    came = b""
    while end not in came:
        data = await process.stdout.receive_some()
        assert data, came
        came += data
    return came


async def test_http_1_1_where_it_is_off(broker_process: StartBroker, tmp_path: Path) -> None:
    daemon = await start(broker_process, tmp_path, http2=False)
    assert await curl(daemon, "/connection/sockjs") == ("1.1", "Welcome to SockJS!\n")
