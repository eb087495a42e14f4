"""Frames as a client sends them, for tests: every bit can be wrong."""

from __future__ import annotations

from websockets.utils import apply_mask

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
LIMIT = 65_536
"""Bytes of one message, as Centrifugo has it by default."""
KEY = b"\x17\x2a\x00\xff"


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes | None = KEY, size: int = -1
) -> bytes:
    """One frame. `size` is what its header claims, if that is not the truth."""
    size = len(payload) if size < 0 else size
    masked = 0x80 if mask is not None else 0
    first = bytes([(0x80 if fin else 0) | rsv | opcode])
    if size < 126:
        head = first + bytes([masked | size])
    elif size < 65536:
        head = first + bytes([masked | 126]) + size.to_bytes(2, "big")
    else:
        head = first + bytes([masked | 127]) + size.to_bytes(8, "big")
    return head + (payload if mask is None else mask + apply_mask(payload, mask))


BROKEN: dict[str, tuple[bytes, int]] = {
    "unmasked text": (frame(TEXT, b"hello", mask=None), 1002),
    "unmasked ping": (frame(PING, mask=None), 1002),
    "rsv1 without deflate": (frame(TEXT, b"hello", rsv=0x40), 1002),
    "rsv2": (frame(TEXT, b"hello", rsv=0x20), 1002),
    "rsv3": (frame(BINARY, b"hello", rsv=0x10), 1002),
    "rsv on control": (frame(PING, rsv=0x40), 1002),
    **{f"opcode {opcode}": (frame(opcode, b"hello"), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "fragmented ping": (frame(PING, fin=False), 1002),
    "fragmented close": (frame(CLOSE, fin=False), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "long ping by 64 bits": (frame(PING, size=2**40), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "message in a message": (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
    "binary in a text": (frame(TEXT, b"a", fin=False) + frame(BINARY, b"b", fin=False), 1002),
    "continuation after the end": (
        frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b") + frame(CONTINUATION, b"c"),
        1002,
    ),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    **{
        f"close code {code}": (frame(CLOSE, code.to_bytes(2, "big")), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
    "close reason not text": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "not text": (frame(TEXT, b"\xff\xfe--"), 1007),
    "surrogate": (frame(TEXT, b"abc\xed\xa0\x80"), 1007),
    "cut character": (frame(TEXT, b"abcde\xe2\x82"), 1007),
    "not text, long": (frame(TEXT, b"x" * 300 + b"\xff"), 1007),
    "not text, at once in a fragment": (frame(TEXT, b"\xff", fin=False), 1007),
    "character never ends": (frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82"), 1007),
    "above the limit": (frame(TEXT, b"x" * (LIMIT + 1)), 1009),
    "above the limit by header alone": (frame(TEXT, size=LIMIT + 1), 1009),
    "lying length": (frame(TEXT, size=2**64 - 1), 1009),
    "sum above the limit": (frame(BINARY, b"x" * LIMIT, fin=False) + frame(CONTINUATION, size=1), 1009),
    "endless empty fragments": (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 2000, 1009),
}
"""Violations of the protocol without extensions, and the close code that each earns."""
