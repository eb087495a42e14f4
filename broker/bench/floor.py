"""The floor of a server: one thread that does nothing but receive and send what the load needs.

`python -m broker.bench.floor PORT CONFIG` listens on 127.0.0.1 and plays the server of W3, W3p and W3s: whoever
upgrades gets canned replies and is a subscriber, whoever posts has its data sent to all of them, one send each. Nothing
is parsed that the load does not need, nothing is queued, nothing is joined. If the configuration names a backend for
RPC (W12), later frames of a client go there as canned requests, on a connection of its own, and the answers back.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from broker.bench.accepting import Accepting
from broker.bench.backend import RPC, RPC_DATA

_UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
_CONNECTED = b'{"id":1,"connect":{"client":"0","version":"floor"}}'
_SUBSCRIBED = b'{"id":1,"connect":{"client":"0","version":"floor"}}\n{"id":2,"subscribe":{}}'
_QUESTION = b'{"client":"0","transport":"websocket","protocol":"json","encoding":"json","user":"","method":"b"}'
_ASK = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_ASK %= (RPC.encode(), len(_QUESTION), _QUESTION)
_ID_AT = slice(12, 14)
"""Of the two digits of its id in a client's frame; masked, as all loads mask in the same way."""
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


def reply_to(digits: bytes) -> bytes:
    """The answer to an RPC with this id, as it stands in the masked frame."""
    id = bytes((digits[0] ^ 0x21, digits[1] ^ 0x3D))
    return text_frame(b'{"id":%b,"rpc":{"data":%b}}' % (id, RPC_DATA))


def serve(door: socket.socket, backend: tuple[str, int] | None) -> None:
    """Serve for ever."""
    accepting = Accepting(door)
    links: dict[int, socket.socket] = {}  # client's descriptor -> its connection to the backend
    waiting: dict[int, tuple[socket.socket, bytes]] = {}  # that one's descriptor -> the client, and its reply
    subscribers: dict[int, socket.socket] = {}
    while True:
        for descriptor, sock, data in accepting.turn():
            if not data:
                subscribers.pop(descriptor, None)
            elif descriptor in waiting:
                client, reply = waiting.pop(descriptor)
                send(client, reply)
            elif descriptor in links:
                link = links[descriptor]
                waiting[link.fileno()] = sock, reply_to(data[_ID_AT])
                send(link, _ASK)
            elif data.startswith(b"POST"):
                frame = text_frame(b'{"push":{"channel":"hot","pub":{' + data[data.index(b'"data":') :] + b"}}")
                for subscriber in subscribers.values():
                    send(subscriber, frame)
                send(sock, _ANSWERED)
            elif data.startswith(b"GET /health"):
                send(sock, _ANSWERED)
            elif data.startswith(b"GET"):
                send(sock, _UPGRADED)
            elif backend is not None:
                link = links[descriptor] = socket.create_connection(backend)
                accepting.add(link)
                send(sock, text_frame(_CONNECTED))
            elif descriptor not in subscribers:
                subscribers[descriptor] = sock
                send(sock, text_frame(_SUBSCRIBED))


def main(port: int, config: Path) -> None:
    endpoint = urlsplit(json.loads(config.read_text())["rpc"].get("proxy", {}).get("endpoint", ""))
    backend = ("127.0.0.1", endpoint.port) if endpoint.port else None
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.listen(4096)
        serve(door, backend)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
