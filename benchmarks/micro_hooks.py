"""What one call of a hook costs the server: CPU time of this process per call, with 32 calls under way.

    python benchmarks/micro_hooks.py

The backend is a process of its own that answers every request with the same bytes at once.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import trio

from broker.hooks import Hook, Hooks, RpcEvent, RpcResult, with_python
from broker.hooks.backends import Backends
from broker.hooks.http import HttpCarrier
from broker.hooks.options import ProxyOptions
from broker.observe import Calls, Counters
from broker.values import Secret

CALLS = 20_000
IN_FLIGHT = 32
EVENT = RpcEvent(client="c" * 36, transport="websocket", protocol="json", user="42", method="sum", data=b'{"v":1}')
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n{"result":{"data":[3]}}'


def serve() -> None:
    """The backend: a thread per connection, and no parsing."""

    def answer(peer: socket.socket) -> None:
        while peer.recv(65536):
            peer.sendall(ANSWER)

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            peer, _ = listener.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=answer, args=(peer,), daemon=True).start()


async def measure(hook: Hook[RpcEvent, RpcResult]) -> tuple[float, float]:
    """Microseconds of CPU per call, and calls per second."""
    left = 0

    async def ask() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await hook(EVENT)

    for rounds in (1000, CALLS):  # the first one connects
        left = rounds
        cpu, began = time.process_time(), time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(ask)
    return (time.process_time() - cpu) / CALLS * 1e6, CALLS / (time.perf_counter() - began)


async def main(port: int) -> None:
    options = ProxyOptions(endpoint=Secret(f"http://127.0.0.1:{port}/rpc"))
    over_http: Hook[RpcEvent, RpcResult] = Hook("rpc", "default", HttpCarrier(options, RpcResult), 5.0, Calls())
    print("HTTP    %5.1f us CPU per call, %6.0f calls/s" % await measure(over_http))
    app = Hooks()

    @app.on.rpc("*")
    async def function(event: RpcEvent) -> RpcResult:
        return RpcResult(data=b"[3]")

    (in_process,) = with_python(Backends(), app, Counters().hooks).rpc.values()
    print("Python  %5.1f us CPU per call, %6.0f calls/s" % await measure(in_process))


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE) as backend:
            assert backend.stdout is not None
            try:
                trio.run(main, int(backend.stdout.readline()))
            finally:
                backend.kill()
