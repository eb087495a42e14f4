"""Frames as a client sends them, for tests: every bit can be wrong."""

from __future__ import annotations

from websockets.utils import apply_mask

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
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
