"""`python -m benchmarks.micro_frames`: microseconds of the code that every byte of a client goes through.

CPU time, best of five runs each. No sockets, no loop: what is left is the parser's own cost.
"""

from __future__ import annotations

import sys
import time
import timeit
from collections.abc import Callable

from websockets.utils import apply_mask

from broker.http1 import RequestReader, response
from broker.http1.request import parse_head
from broker.protocol.deflate import Inflater, compress_payload
from broker.protocol.handshake import handshake
from broker.protocol.websocket import FrameReader, text_frame

KEY = b"\x17\x2a\x00\xff"

API_HEAD = (
    b"POST /api/publish HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: python-httpx/0.28.1\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nX-API-Key: 0f1e2d3c4b5a\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
)
UPGRADE_HEAD = (
    b"GET /connection/websocket HTTP/1.1\r\nHost: localhost:8000\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/140.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: http://localhost:3000\r\n"
    b"Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)


def masked(payload: bytes, first: int = 0x81) -> bytes:
    """A text frame as a client sends it."""
    head = bytearray(text_frame(payload)[: -len(payload)])
    head[0] = first
    head[1] |= 0x80
    return bytes(head) + KEY + apply_mask(payload, KEY)


def microseconds(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call, timer=time.process_time)
    number, taken = timer.autorange()
    number = max(1, int(number * 0.1 / max(taken, 1e-9)))
    return min(timer.repeat(5, number)) / number * 1e6


def report(name: str, call: Callable[[], object], per: int = 1) -> None:
    print(f"{name:58} {microseconds(call) / per:9.2f}")


def reading(data: bytes, inflater: Inflater | None = None) -> Callable[[], None]:
    reader = FrameReader(1 << 20, inflater)

    def read() -> None:
        reader.feed(data)
        while reader.next_message() is not None:
            pass

    return read


def requests(data: bytes) -> Callable[[], None]:
    reader = RequestReader()

    def read() -> None:
        reader.feed(data)
        reader.next_head()
        reader.want_body(1 << 20)
        reader.next_request()

    return read


def fresh_heads() -> Callable[[], object]:
    """Heads that nobody remembers: more of them than the memo holds."""
    heads = [API_HEAD.replace(b"0f1e", b"%04x" % n) for n in range(4096)]
    turn = iter(heads)

    def parse() -> object:
        nonlocal turn
        for head in turn:
            return parse_head(head)
        turn = iter(heads)
        return None

    return parse


def main() -> None:
    print(f"{'Python ' + sys.version.split()[0]:58} {'us':>9}")
    small, large = b"x" * 100, b"x" * 65_536
    report("inbound text frame, 100 B, one per read", reading(masked(small)))
    report("inbound text frame, 1 KiB, one per read", reading(masked(b"x" * 1024)))
    report("inbound text frame, 64 KiB, one per read", reading(masked(large)))
    report("inbound text frames, 100 B, 20 per read, each", reading(masked(small) * 20), 20)
    report("inbound text frame, 100 B, cut in two", _in_two(masked(small)))
    packed = masked(compress_payload(b'{"id":1,"publish":{"channel":"news"}}' * 10, 1), 0xC1)
    report("inbound compressed frame, 370 B", reading(packed, Inflater(1 << 20)))
    report("outbound text frame, 100 B", lambda: text_frame(small))
    report("outbound text frame, 64 KiB", lambda: text_frame(large))
    report("compress 2 KiB, level 1", lambda: compress_payload(b"publication" * 186, 1))
    upgrade = parse_head(UPGRADE_HEAD).headers
    report("handshake, from headers to response", lambda: handshake("GET", upgrade))
    report("request head, 9 fields, new", fresh_heads())
    report("request head, 13 fields, upgrade", lambda: parse_head(UPGRADE_HEAD))
    report("request head, 9 fields, seen before", lambda: parse_head(API_HEAD))
    report("request with a body of 100 B, head seen before", requests(API_HEAD + small))
    report("response, 200 application/json", lambda: response(200, b'{"result":{}}'))


def _in_two(data: bytes) -> Callable[[], None]:
    reader = FrameReader(1 << 20)
    one, two = data[:50], data[50:]

    def read() -> None:
        for piece in (one, two):
            reader.feed(piece)
            while reader.next_message() is not None:
                pass

    return read


if __name__ == "__main__":
    main()
