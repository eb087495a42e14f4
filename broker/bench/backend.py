"""The application's backend of a load: `python backend.py PORT DELAY`, DELAY in seconds.

One epoll loop that answers every request after the same time, with what its path asks for. It reads no more of a
request than where it ends, so that it costs less than the servers that ask.
"""

from __future__ import annotations

import re
import socket
import sys
import time
from collections import deque
from typing import Final

from broker.bench.accepting import Accepting

__all__ = ["CONNECT", "RPC", "RPC_DATA"]

RPC: Final = "/rpc"
CONNECT: Final = "/connect"
RPC_DATA: Final = b"[3]"
"""What every RPC is answered with."""

_RESULTS: Final = {
    RPC.encode(): b'{"result":{"data":%b}}' % RPC_DATA,
    CONNECT.encode(): b'{"result":{"user":"42"}}',
}
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_ANSWERS: Final = {path: _HEAD % (len(body), body) for path, body in _RESULTS.items()}
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def answer_to(data: bytes) -> bytes | None:
    """The answer to a request; None while some of it is missing."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(data, 0, end)
    if length is not None and len(data) < end + 4 + int(length[1]):
        return None
    return _ANSWERS[data[: data.find(b" HTTP/")].partition(b" ")[2]]


def serve(door: socket.socket, delay: float) -> None:
    """Serve for ever."""
    accepting = Accepting(door)
    begun: dict[int, bytes] = {}
    due: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        left = max(due[0][0] - time.monotonic(), 0) if due else None
        for descriptor, sock, data in accepting.turn(left):
            if not data:
                begun.pop(descriptor, None)
                continue
            data = begun.pop(descriptor, b"") + data
            answer = answer_to(data)
            if answer is None:
                begun[descriptor] = data
            elif delay:
                due.append((time.monotonic() + delay, sock, answer))
            else:
                sock.send(answer)
        while due and due[0][0] <= time.monotonic():
            _, sock, answer = due.popleft()
            if sock.fileno() >= 0:
                sock.send(answer)


def main(port: int, delay: float) -> None:
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.listen(4096)
        print("ready", flush=True)
        serve(door, delay)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
