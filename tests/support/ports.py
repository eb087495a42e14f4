"""Ports for servers that have to be told where to listen."""

from __future__ import annotations

import itertools
import random
import socket
from typing import Final

__all__ = ["BUS", "free_port"]

BUS: Final = 10_000
"""Members of a Redis Cluster take a second port, so far above theirs."""

_FIRST: Final = 10_000
_COUNT: Final = 10_000
_offsets = itertools.count(random.randrange(_COUNT))


def free_port() -> int:
    """A port that nobody listens on, nor on the one `BUS` above, and that this process was not given before.

    Both are below those that the system chooses itself: no client and no listener that takes any gets them meanwhile.
    """
    while True:
        port = _FIRST + next(_offsets) % _COUNT
        if _is_free(port) and _is_free(port + BUS):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
