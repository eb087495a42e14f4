"""The client asks a real server on the loopback, which answers whatever bytes a test wants."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from broker.http1 import FetchError, Response, fetch

Answer = Callable[[trio.abc.Stream, bytes], Awaitable[None]]


class Server:
    """Reads one request per connection, then does what `answer` says. Counts connections that are still open."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[bytes] = []
        self.ended = trio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            request = b""
            try:
                while b"\r\n\r\n" not in request:
                    request += await stream.receive_some()
                self.requests.append(request)
                await self._answer(stream, request)
            except trio.BrokenResourceError:
                pass
        self.ended.set()


@asynccontextmanager
async def serving(answer: Answer | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server((lambda stream, _: stream.send_all(answer)) if isinstance(answer, bytes) else answer)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        wrapped = [trio.SSLListener(each, tls, https_compatible=True) if tls else each for each in listeners]
        await nursery.start(trio.serve_listeners, server.serve, wrapped)
        yield server
        nursery.cancel_scope.cancel()


async def get(url: str, *, limit: int = 1000, seconds: float = 5, tls: ssl.SSLContext | None = None) -> Response:
    return await fetch(url, deadline=trio.current_time() + seconds, limit=limit, tls=tls)


async def test_asks_and_reads_the_answer() -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Two: a\r\nx-two: b\r\n\r\nhello") as server:
        response = await get(server.url + "/keys?a=b%20c#fragment")
    assert response == Response(200, (("content-length", "5"), ("x-two", "a"), ("x-two", "b")), b"hello")
    assert server.requests == [
        f"GET /keys?a=b%20c HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n".encode()
    ]


async def test_posts_a_body_with_headers() -> None:
    async def echo(stream: trio.abc.Stream, request: bytes) -> None:
        while not request.endswith(b"payload"):
            request += await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with serving(echo) as server:
        response = await fetch(
            server.url,
            deadline=trio.current_time() + 5,
            limit=10,
            method="POST",
            headers=(("Content-Type", "application/json"),),
            body=b"payload",
        )
    assert (response.status, response.body) == (204, b"")
    head = server.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST / HTTP/1.1"
    assert head[-2:] == [b"Content-Type: application/json", b"Content-Length: 7"]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 No\r\nX: y\r\nContent-Length: 1\r\n\r\nb", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na and garbage", b"a"),
    ],
    ids=["chunked", "until-end", "empty", "continue", "early-hints", "second-answer", "garbage-after"],
)
async def test_finds_the_end_of_an_answer(answer: bytes, body: bytes) -> None:
    async with serving(answer) as server:
        response = await get(server.url)
    assert (response.status, response.body) == (200, body)
    assert ("link", "</a>") not in response.headers
    assert all(name not in ("x", "x-t") for name, _ in response.headers)


async def test_reads_answers_byte_by_byte() -> None:
    async def drip(stream: trio.abc.Stream, _: bytes) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc":
            await stream.send_all(bytes([byte]))

    async with serving(drip) as server:
        assert (await get(server.url)).body == b"abc"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "cut off"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "cut off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "cut off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "cut off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "not HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nPRI", "another protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", "head of the answer is too large"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "head of the answer is too large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"a" * 1001, "answer is too large"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 200_000, "answer is too large"),
    ],
)
async def test_refuses_what_is_no_answer(answer: bytes, why: str) -> None:
    async with serving(answer) as server:
        with pytest.raises(FetchError, match=why):
            await get(server.url)


async def test_does_not_follow_redirects() -> None:
    async with serving(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n") as server:
        assert (await get(server.url)).status == 302
    assert len(server.requests) == 1


async def test_gives_up_at_the_deadline_and_closes(autojump_clock: trio.testing.MockClock) -> None:
    async def silent(stream: trio.abc.Stream, _: bytes) -> None:
        await stream.receive_some()  # until the client closes

    async with serving(silent) as server:
        started = trio.current_time()
        autojump_clock.autojump_threshold = 0.02  # real sockets need real time to move
        with pytest.raises(FetchError, match="no answer in time"):
            await get(server.url, seconds=7)
        assert trio.current_time() - started == pytest.approx(7)
        await server.ended.wait()


async def test_closes_when_it_is_cancelled() -> None:
    asked = trio.Event()

    async def silent(stream: trio.abc.Stream, _: bytes) -> None:
        asked.set()
        await stream.receive_some()

    async with serving(silent) as server:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, server.url)
            await asked.wait()
            nursery.cancel_scope.cancel()
        await server.ended.wait()


async def test_tells_who_refuses() -> None:
    async with serving(b"") as server:
        pass
    with pytest.raises(FetchError, match=r"127\.0\.0\.1"):
        await get(server.url)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..b.example"])
async def test_a_name_that_is_none_is_an_error_of_the_fetch(host: str) -> None:
    with pytest.raises(FetchError):
        await get(f"http://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "file:///etc/passwd",
        "//host/",
        "http:///path",
        "http://user@host/",
        "http://user:secret@host/",
        "http://host/a b",
        "http://host/\r\nX: y",
        "http://host\\@other/",
        "http://hóst/",
        "http://host:port/",
        "http://host:99999/",
        "",
    ],
)
async def test_refuses_urls(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        await get(url)


@pytest.mark.parametrize("header", [("X\r\nY", "z"), ("X", "y\r\nZ: a"), ("X", "y\0"), ("X", "ü")])
async def test_refuses_headers_that_would_be_more_than_one(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="header"):
        await fetch("http://127.0.0.1:1/", deadline=trio.current_time() + 1, limit=1, headers=[header])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    return key, cert


async def test_speaks_tls_and_checks_the_certificate(certificate: tuple[Path, Path]) -> None:
    key, cert = certificate
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(cert, key)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
    async with serving(answer, server_tls) as server:
        url = f"https://127.0.0.1:{server.port}/"
        trusting = ssl.create_default_context(cafile=str(cert))
        assert (await get(url, tls=trusting)).body == b"secret"
        with pytest.raises(FetchError, match="certificate"):
            await get(url)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_end_as_an_answer_or_an_error(junk: bytes, cut: int) -> None:
    async def main() -> None:
        async def answer(stream: trio.abc.Stream, _: bytes) -> None:
            whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"
            await stream.send_all(whole[:cut] + junk)

        async with serving(answer) as server:
            try:
                response = await get(server.url)
            except FetchError:
                return
            assert 200 <= response.status <= 999

    trio.run(main)
