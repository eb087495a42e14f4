"""An echo server over the broker's own handshake and frames: the smallest thing that a WebSocket suite can talk to."""

from __future__ import annotations

from collections import deque
from typing import final

import trio

from broker.http1 import RequestReader
from broker.protocol.deflate import Inflater, compress_payload
from broker.protocol.handshake import HandshakeError, handshake
from broker.protocol.websocket import (
    Close,
    FrameReader,
    Ping,
    WebSocketError,
    binary_frame,
    close_frame,
    compressed_frame,
    pong_frame,
    text_frame,
)

LIMIT = 1 << 24


@final
class Kinds:
    """Which messages are text, in their order: an echo has to know, and the broker's reader does not tell."""

    def __init__(self) -> None:
        self._buffer = b""
        self._text: deque[bool] = deque()

    def feed(self, data: bytes) -> None:
        buffer = self._buffer + data
        while len(buffer) >= 2:
            size, head = buffer[1] & 127, 6
            if size > 125:
                head = 8 if size == 126 else 14
                size = int.from_bytes(buffer[2 : head - 4], "big")
            if len(buffer) < head + size:
                break
            if buffer[0] & 15 in (1, 2):
                self._text.append(buffer[0] & 15 == 1)
            buffer = buffer[head + size :]
        self._buffer = buffer

    def next_is_text(self) -> bool:
        return self._text.popleft()


async def serve(stream: trio.abc.Stream) -> None:
    """One connection, from its first byte to its last."""
    try:
        async with stream:
            await _serve(stream)
    except trio.BrokenResourceError:
        return  # a fuzzer goes when it has seen enough


async def _serve(stream: trio.abc.Stream) -> None:
    requests = RequestReader()
    while (head := requests.next_head()) is None:
        data = await stream.receive_some(65_536)
        if not data:
            return
        requests.feed(bytes(data))
    try:
        agreed = handshake(head.method, head.headers, deflate=True)
    except HandshakeError as error:
        await stream.send_all(b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % error.status)
        return
    await stream.send_all(agreed.response)

    frames, kinds = FrameReader(LIMIT, Inflater(LIMIT) if agreed.deflate else None), Kinds()
    data = requests.take_rest()
    while True:
        frames.feed(data)
        kinds.feed(data)
        out: list[bytes] = []
        try:
            while (message := frames.next_message()) is not None:
                if isinstance(message, bytes):
                    text = kinds.next_is_text()
                    if agreed.deflate:
                        out.append(compressed_frame(compress_payload(message, 1), binary=not text))
                    else:
                        out.append(text_frame(message) if text else binary_frame(message))
                elif isinstance(message, Ping):
                    out.append(pong_frame(message.payload))
                elif isinstance(message, Close):
                    out.append(close_frame(message.code, ""))
        except WebSocketError as error:
            out.append(close_frame(error.code, error.reason))
        await stream.send_all(b"".join(out))
        if frames.closed:
            return
        data = bytes(await stream.receive_some(65_536))
        if not data:
            return
