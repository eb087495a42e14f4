"""HTTP/1.1 as a client: one request, one answer, one connection. For key sets and other rare questions; many questions
to one backend go through a `Pool` (pool.py).

Nothing an answer says is followed: no redirects, no cookies, no other protocols. Everything is bounded: by a
deadline, by the bytes of the head, by the bytes of the body.
"""

from __future__ import annotations

import ssl
from typing import Final, Literal

import trio

from broker.http1.answer import AnswerReader, FetchError, Response
from broker.http1.target import Headers, Target

__all__ = ["fetch"]

_CHUNK: Final = 65_536


async def fetch(
    url: str,
    *,
    deadline: float,
    limit: int,
    method: Literal["GET", "POST"] = "GET",
    headers: Headers = (),
    body: bytes = b"",
    tls: ssl.SSLContext | None = None,
) -> Response:
    """Ask once and read the whole answer.

    The connection is closed at the end, also when this is cancelled.

    Args:
        url: `http://` or `https://`, ASCII, without user name.
        deadline: on Trio's clock; everything from the name's look-up to the last byte happens before it.
        limit: bytes that the answer's body may have.
        headers: beside `Host`, `Content-Length` and `Connection`, which are set here.
        tls: for `https`; by default certificates are checked against the system's.

    Raises:
        FetchError: refused, cut off, too slow, too large, or not HTTP.
        ValueError: `url` or `headers` are not what a request may hold.
    """
    target = Target.of(url)
    request = target.request(method, headers, body)
    with trio.move_on_at(deadline):
        try:
            stream = await target.open(tls)
            try:
                await stream.send_all(request)
                return await _read_response(stream, limit)
            finally:
                await trio.aclose_forcefully(stream)
        except (OSError, UnicodeError, trio.BrokenResourceError) as error:
            raise FetchError.of(target.host, error) from error
    raise FetchError(f"{target.host}: no answer in time")


async def _read_response(stream: trio.abc.ReceiveStream, limit: int) -> Response:
    reader = AnswerReader(limit)
    while not reader.complete:
        data = await stream.receive_some(_CHUNK)
        if data:
            reader.feed(bytes(data))
        else:
            reader.end()
    return reader.response()
