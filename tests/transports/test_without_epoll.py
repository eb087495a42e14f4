"""Systems without epoll: the same connections, each on a stream with a reading task of its own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio

from broker.tls import TlsOptions, listener_context
from broker.transports import Listening, bind_tcp, door
from broker.values import Pem
from tests.support.certificates import make_certificate
from tests.support.http2 import Http2Client
from tests.support.peers import open_house, options
from tests.transports.test_sockets import open_street, read_all

pytestmark = [pytest.mark.virtual_time(idle=0.01), pytest.mark.e2e]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_clients_are_served(tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HAS_EPOLL", False)
    async with open_street(tls, tmp_path) as street:
        alice, bob = await street.client(), await street.client()
        for client in (alice, bob):
            assert (await client.ask(subscribe={"channel": "chat"}))["subscribe"] == {}
        await alice.ask(publish={"channel": "chat", "data": "x" * 50_000})
        for client in (alice, bob):
            assert (await client.push())["pub"]["data"] == "x" * 50_000
        await street.others_are_served()
        await street.vanish(bob, rude=not tls)
        stream = await street.stream()
        await stream.send_all(b"GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 404")
        await stream.aclose()


async def test_http_2_by_alpn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "HAS_EPOLL", False)
    cert, key = make_certificate(tmp_path)
    tls = listener_context(TlsOptions(cert_pem=Pem(cert.read_text()), key_pem=Pem(key.read_text())), http2=True)
    trusting = ssl.create_default_context(cafile=str(cert))
    trusting.set_alpn_protocols(["h2"])
    async with open_house(options(sse={"enabled": True})) as house:
        sock = bind_tcp("127.0.0.1", 0)
        acceptor = house.server.doors.listen(Listening(sock, house.server.sites[0], tls, http2=True))
        plain = await trio.open_tcp_stream("127.0.0.1", sock.getsockname()[1])
        stream = trio.SSLStream(plain, trusting, server_hostname="127.0.0.1")
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == "h2"
        client = Http2Client(stream)
        id = await client.send("POST", "/connection/sse", b'{"id":1,"connect":{}}')
        await client.until(id, b'"connect"')
        await trio.aclose_forcefully(stream)
        acceptor.stop()
