"""The probe of `stall`, in a process of its own: `python -m broker.bench.probe TARGET`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time

import attrs

from broker.bench.histogram import Histogram
from broker.bench.opening import connect, request
from broker.bench.sockets import Sock, dialler
from broker.bench.target import TRANSPORTS, Target
from broker.bench.tokens import make_token
from broker.bench.wire import masked, wire_of

INTERVAL = 0.005
_PING = masked(b"", 0x89)
_PONG = b"\x8a\x00"


def watch(sock: Sock) -> Histogram:
    """Ping until the standard input says something; nothing is recorded if no ping is ever answered."""
    taken = Histogram()
    wire = wire_of("json")
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(sys.stdin, select.POLLIN)
    due, waiting, seen = time.perf_counter(), False, b""
    while True:
        now = time.perf_counter()
        if not waiting and now >= due:
            sock.sendall(_PING)
            waiting = True
        events = dict(poll.poll(1000 if waiting else max(due - now, 0) * 1000))
        if sock.fileno() in events:
            seen += sock.recv(65536)
            if not seen:
                return taken
            if wire.ping in seen:
                sock.sendall(wire.pong)
        now = time.perf_counter()
        if _PONG in seen:
            taken.record([now - due])
            due, waiting, seen = max(due + INTERVAL, now), False, b""
        if sys.stdin.fileno() in events:
            if waiting and taken.total:
                taken.record([now - due])
            return taken


def main(text: str) -> None:
    given = Target.from_json(json.loads(text))
    path = given.link.path.removesuffix(TRANSPORTS[given.transport]) + TRANSPORTS["websocket"]
    target = attrs.evolve(given, link=attrs.evolve(given.link, path=path), transport="websocket", codec="json")
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    with dialler(target, target.link)() as sock:
        sock.settimeout(10)
        sock.sendall(request(target, wire_of("json"), []))
        head = b""
        while b"\r\n\r\n" not in head and (part := sock.recv(65536)):
            head += part
        wire = wire_of("json")
        sock.sendall(wire.frame(connect(make_token("probe", target.token_secret) if target.token_secret else "")))
        print("begun", flush=True)
        taken = watch(sock)
    print(json.dumps(taken.as_json() if taken.total else None), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
