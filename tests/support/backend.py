"""An application's backend for tests: a process of its own, made of nothing but the standard library.

What it answers is scripted: `answer` says how requests to a path are answered, `requests` gives those that came.
`serve` is what the process runs.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, final

import attrs

from tests.support.children import WITH_US

__all__ = ["Asked", "Backend", "open_backend"]

_ROOT = Path(__file__).parents[2]


@final
@attrs.frozen
class Asked:
    """A request that the backend got; names of headers in lower case. `connection` numbers TCP connections."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    def json(self) -> Any:
        return json.loads(self.body)


@final
class Backend:
    """The test's side."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self._tls = tls

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http{'s' if self._tls else ''}://{host}:{self.port}{path}"

    async def answer(self, path: str, result: Any = None, **how: Any) -> None:
        """From here on answer requests to `path`: with `result` as JSON, or as `how` says.

        Args:
            status, body, headers: another answer than JSON with 200.
            raw: the bytes of a whole answer, after which the connection closes.
            delay: seconds before the answer.
            close: close after so many answers, without a word to the client.
            silent: never answer.
        """
        if result is not None:
            how["body"] = json.dumps(result).encode()
        for key in ("body", "raw"):
            if key in how:
                how[key] = base64.b64encode(how[key]).decode()
        self._control("/_answer", json.dumps({"path": path, **how}).encode())

    async def requests(self, path: str) -> list[Asked]:
        """What was asked at `path` since the last call."""
        answer = json.loads(self._control("/_requests", path.encode()))
        return [Asked(path, each["headers"], base64.b64decode(each["body"]), each["connection"]) for each in answer]

    def _control(self, path: str, body: bytes) -> bytes:
        """Without Trio: no clock jumps meanwhile."""
        if self._tls is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self._tls)
        try:
            connection.request("POST", path, body)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def open_backend(*tls: Path) -> Iterator[Backend]:
    """The process, for as long as the block lives.

    Args:
        tls: its certificate and its key as PEM files; and the certificate of an authority, if clients have to show one
            that is signed by it, with what the test itself shows: its certificate, its key.
    """
    command = [*WITH_US, sys.executable, "-m", "tests.support.backend", *map(str, tls[:3])]
    ours: ssl.SSLContext | None = None
    if tls:
        ours = ssl.create_default_context()
        ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
        if len(tls) > 3:
            ours.load_cert_chain(*tls[3:])
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_ROOT) as process:
        assert process.stdout is not None
        try:
            yield Backend(int(process.stdout.readline()), ours)
        finally:
            process.kill()


@final
class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    answers: ClassVar[dict[str, dict[str, Any]]] = {}
    asked: ClassVar[dict[str, list[dict[str, Any]]]] = {}
    connections = 0

    def setup(self) -> None:
        super().setup()
        type(self).connections += 1
        self.number = self.connections
        self.answered = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/_answer":
            how = json.loads(body)
            self.answers[how.pop("path")] = how
            self.asked.clear()
            self._send(200, b"{}")
        elif self.path == "/_requests":
            self._send(200, json.dumps(self.asked.pop(body.decode(), [])).encode())
        else:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = {"headers": headers, "body": base64.b64encode(body).decode(), "connection": self.number}
            self.asked.setdefault(self.path, []).append(asked)
            self._answer(self.answers.get(self.path, {"status": 404}))

    do_GET = do_POST

    def _answer(self, how: dict[str, Any]) -> None:
        time.sleep(how.get("delay", 0))
        if how.get("silent"):
            self.rfile.read()  # until the other side gives up
            self.close_connection = True
        elif "raw" in how:
            self.wfile.write(base64.b64decode(how["raw"]))
            self.close_connection = True
        else:
            self._send(how.get("status", 200), base64.b64decode(how.get("body", "")), how.get("headers", {}))
            self.answered += 1
            if self.answered == how.get("close"):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def serve(tls: list[str]) -> None:
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls[:2])
        if tls[2:]:
            context.load_verify_locations(tls[2])
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1:])
