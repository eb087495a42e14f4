"""Connections to backends that are kept, on real sockets."""

from __future__ import annotations

import pytest
import trio

from broker.http1 import Pool
from broker.reader import open_stage

LONG = 32 << 20
"""Bytes that no socket takes at once."""


async def test_a_connection_is_used_again_after_a_body_that_had_to_be_sent_in_parts() -> None:
    accepted = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        while True:
            left = LONG
            head = b""
            while b"\r\n\r\n" not in head:
                data = await stream.receive_some()
                if not data:
                    return
                head += data
            left -= len(head.partition(b"\r\n\r\n")[2])
            while left:
                left -= len(await stream.receive_some(1 << 20))
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with trio.open_nursery() as nursery, open_stage() as stage:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        pool = Pool(f"http://127.0.0.1:{port}/", stage=stage, timeout=60.0, limit=1000, connections=1)
        for _ in range(2):
            answer = await pool.post(b"x" * LONG).wait()
            assert answer.body == b"ok"
        assert accepted == 1
        pool.close()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", [".example.com", "a\0b", "a" * 64])
async def test_a_name_that_tls_does_not_take_is_refused_before_anybody_asks(name: str) -> None:
    async with open_stage() as stage:
        with pytest.raises(ValueError, match="cannot be the name in a certificate"):
            Pool("https://localhost/", stage=stage, timeout=1.0, limit=1, connections=1, server_name=name)
