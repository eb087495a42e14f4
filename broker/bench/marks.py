"""Marks: how a publication is found again in what a server sends, whichever way the server packed it.

The load has to cost less than the server. So it reads no JSON while the clock runs: each publication's data carries a
mark with a key of fifteen digits, six for its channel and nine for its place in it, and nothing else is looked at.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["HIGHEST", "KEY", "MARK", "data_of", "find_keys", "key_of", "tail_of"]

MARK: Final = b'"#key":1'
"""Occurs once in each publication's data and nowhere else in the protocol; the key follows."""
KEY: Final = 15
HIGHEST: Final = 10**9
"""Publications of a channel."""

_WHOLE: Final = len(MARK) + KEY

find_keys: Final = re.compile(rb'"#key":1(\d{15})').findall


def key_of(channel: int, number: int) -> int:
    """The key of the publication `number` of a channel; `%015d` writes it."""
    return channel * HIGHEST + number


def data_of(size: int) -> bytes:
    """A template of publication data, `size` bytes long once `%015d` is filled with a key."""
    data = b'{%s%%015d,"pad":"%%s"}' % MARK
    spare = size - len(data % (0, b""))
    if spare < 0:
        raise ValueError(f"data of a publication needs at least {size - spare} bytes")
    return data.replace(b"%s", b"x" * spare)


def tail_of(data: bytes) -> bytes:
    """The end of `data` that may be the beginning of a mark."""
    end = data[1 - _WHOLE :]
    at = end.rfind(b'"#')
    if at < 0:
        return b'"' if end.endswith(b'"') else b""
    return end[at:]
