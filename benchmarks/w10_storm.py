"""W10: connections arrive as fast as the server takes them, each with a token and one subscription."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket

from benchmarks.figures import Figures, Settings, rates, timed
from benchmarks.load import Load, connect, subscribe
from benchmarks.servers import TOKEN_SECRET, Server
from benchmarks.sockets import Audience, Subscriber

WARM_UP = 300


def storm(server: Server, settings: Settings) -> Figures:
    with Load(server) as load:
        audience = Audience()
        total = WARM_UP + settings.connections
        tokens = [_token(f"user {number}") for number in range(total)]

        def use(_: int, sock: socket.socket) -> None:
            load.poll.replace(Subscriber(sock, audience))

        def open_some(first: int, count: int) -> None:
            load.open_links(
                count,
                lambda number: [connect(tokens[first + number]), subscribe(settings.channel(first + number))],
                use,
            )

        open_some(0, WARM_UP)
        with timed(server) as clock:
            open_some(WARM_UP, settings.connections)
        return rates("connects", settings.connections, clock)


def _token(user: str) -> str:
    """A connection token that does not expire (HS256)."""
    parts = ({"typ": "JWT", "alg": "HS256"}, {"sub": user})
    signed = b".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return (signed + b"." + _base64url(hmac.digest(TOKEN_SECRET.encode(), signed, hashlib.sha256))).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
