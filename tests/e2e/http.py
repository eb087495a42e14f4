"""One HTTP/1.1 request on a connection of its own, by hand: tests see every byte, and trust no client of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, final

import attrs
import trio

from tests.support.patience import PATIENCE


@final
@attrs.frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def request(
    port: int, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """Send a request with `Connection: close` and read the answer to its end.

    Raises:
        OSError: nobody listens, or the connection broke.
    """
    lines = {"Host": f"127.0.0.1:{port}", "Connection": "close"} | dict(headers or {})
    if body or method == "POST":
        lines |= {"Content-Length": str(len(body))}
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            try:
                await stream.send_all(head.encode() + b"\r\n" + body)
                received = b"".join([chunk async for chunk in stream])
            except trio.BrokenResourceError as error:
                raise ConnectionError("broken connection") from error
    return parse(received, method)


def parse(received: bytes, method: str = "GET") -> Answer:
    """An answer from all bytes that a connection gave."""
    head, _, body = received.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    if not first.startswith("HTTP/1.1 "):
        raise ConnectionError(f"no HTTP answer: {received[:80]!r}")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    elif method != "HEAD" and "content-length" in headers:
        assert len(body) == int(headers["content-length"]), received
    return Answer(int(first.split()[1]), headers, body)


def _unchunked(body: bytes) -> bytes:
    result = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        result, body = result + body[:length], body[length + 2 :]
    return result
