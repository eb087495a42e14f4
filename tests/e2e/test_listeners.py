"""Other ways to the same doors: TLS, a Unix socket, an internal port."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest
import trio
from trio_websocket import open_websocket_url, wrap_client_stream

from tests.e2e.conftest import StartBroker
from tests.e2e.daemon import API_KEY, PEER
from tests.e2e.http import parse, request
from tests.e2e.sdk import Sdk, start_program
from tests.support.certificates import make_certificate
from tests.support.ports import free_port


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    return make_certificate(tmp_path)


async def test_tls(broker_process: StartBroker, certificate: tuple[Path, Path]) -> None:
    """The API and a WebSocket over TLS, with files named in the configuration; health on a plain internal port."""
    cert, key = certificate
    inside = free_port()
    daemon = await broker_process(
        {
            "client": {"insecure": True},
            "http_server": {
                "internal_address": "127.0.0.1",
                "internal_port": str(inside),
                "tls": {"enabled": True, "cert_pem": str(cert), "key_pem": str(key)},
                "tls_external": True,
            },
        },
        health_port=inside,
    )
    context = ssl.create_default_context(cafile=str(cert))
    url = f"wss://127.0.0.1:{daemon.outside}/connection/websocket"
    async with open_websocket_url(url, ssl_context=context) as websocket:
        await websocket.send_message('{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"room"}}')
        lines = (await websocket.get_message()).split("\n")
        while len(lines) < 2:
            lines += (await websocket.get_message()).split("\n")
        assert [json.loads(line)["id"] for line in lines] == [1, 2]
        big = "x" * 60_000
        assert "result" in await daemon.api("publish", channel="room", data=big)
        assert json.loads(await websocket.get_message())["push"]["pub"]["data"] == big
    with pytest.raises(ConnectionError):
        await request(daemon.outside, "GET", "/")  # cleartext on the TLS port: no answer, and no harm


async def test_the_internal_port_has_the_api_and_the_external_one_the_clients(broker_process: StartBroker) -> None:
    inside = free_port()
    daemon = await broker_process(
        {
            "client": {"insecure": True},
            "http_server": {"internal_address": "127.0.0.1", "internal_port": str(inside)},
        },
        health_port=inside,
    )
    for path in ("/health", "/metrics"):
        assert (await request(inside, "GET", path)).status == 200
        assert (await request(daemon.outside, "GET", path)).status == 404
    key = {"X-API-Key": API_KEY}
    assert (await request(inside, "POST", "/api/info", key, b"{}")).status == 200
    assert (await request(daemon.outside, "POST", "/api/info", key, b"{}")).status == 404
    assert (await request(daemon.outside, "GET", "/connection/websocket")).status == 400
    assert (await request(inside, "GET", "/connection/websocket")).status == 404


@pytest.mark.skipif(bool(PEER), reason="ours alone")
async def test_a_unix_socket(broker_process: StartBroker, tmp_path: Path) -> None:
    path = tmp_path / "s"
    daemon = await broker_process({"client": {"insecure": True}, "http_server": {"unix_socket": str(path)}})
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert parse(b"".join([chunk async for chunk in stream])).status == 200
    async with await trio.open_unix_socket(path) as stream, trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, stream, "x", "/connection/websocket")
        await websocket.send_message('{"id":1,"connect":{}}')
        assert json.loads(await websocket.get_message())["connect"]["client"]
        await websocket.aclose()
    await daemon.stop()
    assert not path.exists()


@pytest.mark.parametrize("codec", ["json", "protobuf"])
@pytest.mark.parametrize("language", ["js", "python"])
async def test_the_sdks_over_tls(
    broker_process: StartBroker,
    certificate: tuple[Path, Path],
    nursery: trio.Nursery,
    language: str,
    codec: str,
) -> None:
    cert, key = certificate
    inside = free_port()
    tls = {"enabled": True, "cert_pem": cert.read_text(), "key_pem": key.read_text()}
    daemon = await broker_process(
        {
            "client": {"insecure": True},
            "http_server": {
                "internal_address": "127.0.0.1",
                "internal_port": str(inside),
                "tls": tls,
                "tls_external": True,
            },
        },
        health_port=inside,
    )
    trust = {"NODE_EXTRA_CA_CERTS": str(cert), "SSL_CERT_FILE": str(cert)}
    with start_program(language, trust) as program:
        sdk = Sdk(program, codec)
        nursery.start_soon(sdk.run)
        alice = await sdk.connected(f"wss://127.0.0.1:{daemon.outside}/connection/websocket")
        await alice.subscribe("room")
        await alice.publish("room", {"n": 1})
        assert (await alice.publication("room"))["data"] == {"n": 1}
        await sdk.reset()
        await sdk.aclose()
