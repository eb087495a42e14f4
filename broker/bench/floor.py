"""The floor of a fan-out: one thread that does nothing but send the same bytes to every socket, one send each.

`python -m broker.bench.floor PORT` listens on 127.0.0.1 and plays the server of W3, W3p and W3s: whoever upgrades gets
canned replies and is a subscriber, whoever posts has its data sent to all of them. Nothing is parsed that the load
does not need, nothing is queued, nothing is joined.
"""

from __future__ import annotations

import select
import socket
import sys

_UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
_SUBSCRIBED = b'{"id":1,"connect":{"client":"0","version":"floor"}}\n{"id":2,"subscribe":{}}'
_ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n" + b'{"result":{}}'


def text_frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    return b"\x81\x7e" + size.to_bytes(2, "big") + payload


def send(sock: socket.socket, data: bytes) -> None:
    while True:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            room = select.poll()
            room.register(sock, select.POLLOUT)
            room.poll()
        if not data:
            return


def serve(door: socket.socket) -> None:
    """Serve for ever."""
    epoll = select.epoll()
    epoll.register(door, select.EPOLLIN)
    socks: dict[int, socket.socket] = {}
    subscribers: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == door.fileno():
                sock, _ = door.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                socks[sock.fileno()] = sock
                epoll.register(sock, select.EPOLLIN)
                continue
            sock = socks[descriptor]
            try:
                data = sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                epoll.unregister(descriptor)
                subscribers.pop(descriptor, None)
                socks.pop(descriptor).close()
            elif data.startswith(b"POST"):
                frame = text_frame(b'{"push":{"channel":"hot","pub":{' + data[data.index(b'"data":') :] + b"}}")
                for subscriber in subscribers.values():
                    send(subscriber, frame)
                send(sock, _ANSWERED)
            elif data.startswith(b"GET /health"):
                send(sock, _ANSWERED)
            elif data.startswith(b"GET"):
                send(sock, _UPGRADED)
            elif descriptor not in subscribers:
                subscribers[descriptor] = sock
                send(sock, text_frame(_SUBSCRIBED))


def main(port: int) -> None:
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.listen(4096)
        serve(door)


if __name__ == "__main__":
    main(int(sys.argv[1]))
