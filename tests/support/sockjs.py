"""A house with SockJS, and what its clients have in common."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, final

import trio

from tests.support.peers import Answer, House, open_house, options

PREFIX = "/connection/sockjs"
ALLOWED = "https://app.example"
CONNECT = {"id": 1, "connect": {}}


def with_sockjs(channel: Mapping[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    sockjs = {"enabled": True, **sections.pop("sockjs", {})}
    client = {"allowed_origins": [ALLOWED], **sections.pop("client", {})}
    return options(channel, sockjs=sockjs, client=client, **sections)


@final
class Polling:
    """One session of a client that polls."""

    def __init__(self, house: House, session: str = "abcdefgh", server: str = "000") -> None:
        self._house = house
        self.url = f"{PREFIX}/{server}/{session}"

    async def poll(self) -> str:
        """The next frame."""
        answer = await self._house.http("POST", f"{self.url}/xhr")
        assert answer.status == 200
        assert answer.body.endswith(b"\n")
        return answer.body[:-1].decode()

    async def units(self) -> list[dict[str, Any]]:
        """The next replies and pushes."""
        frame = await self.poll()
        assert frame[0] == "a", frame
        return [json.loads(line) for message in json.loads(frame[1:]) for line in message.split("\n")]

    async def send(self, *messages: str) -> Answer:
        return await self.send_raw(json.dumps(messages).encode())

    async def send_raw(self, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        return await self._house.http("POST", f"{self.url}/xhr_send", body, headers)

    async def command(self, **command: Any) -> None:
        assert (await self.send(json.dumps(command))).status == 204

    async def connect(self) -> None:
        assert await self.poll() == "o"
        await self.command(**CONNECT)
        assert "connect" in (await self.units())[0]


@final
class Streaming:
    """One request of a session of a client that streams: bytes as they come, out of their chunks."""

    def __init__(self, stream: Any, head: bytes, rest: bytes) -> None:
        self._stream = stream
        self._rest = rest
        self.head = head.decode()
        self.body = b""
        self.ended = False

    async def until(self, end: bytes) -> bytes:
        """The body up to and with `end`, which is taken out of it."""
        while end not in self.body:
            assert await self._read(), self.body
        found, _, self.body = self.body.partition(end)
        return found + end

    async def rest(self) -> bytes:
        """All of the body that is still to come."""
        while await self._read():
            pass
        assert self.ended, "torn"
        return self.body

    async def leave(self) -> None:
        await self._stream.aclose()

    async def _read(self) -> bool:
        while True:
            size, found, rest = self._rest.partition(b"\r\n")
            if found and len(rest) >= int(size, 16) + 2:
                data, self._rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
                self.ended = not data
                self.body += data
                return bool(data)
            came = await self._stream.receive_some()
            if not came:
                return False
            self._rest += came


async def stream(house: House, session: str, kind: str = "xhr_streaming", headers: str = "") -> Streaming:
    """Open a stream, and read its head."""
    connection = await house.open_stream()
    method = "GET" if kind == "eventsource" else "POST"
    await connection.send_all(
        f"{method} {PREFIX}/000/{session}/{kind} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{headers}\r\n".encode()
    )
    came = b""
    while b"\r\n\r\n" not in came:
        data = await connection.receive_some()
        assert data, came
        came += data
    head, _, rest = came.partition(b"\r\n\r\n")
    return Streaming(connection, head, rest)


async def quiet() -> None:
    """Whatever can happen without time has happened, also in tasks that wait for the same."""
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def open_sockjs(channel: Mapping[str, Any] | None = None, **sections: Any) -> AsyncIterator[House]:
    async with open_house(with_sockjs(channel, **sections)) as house:
        yield house
        await trio.sleep(6)  # sessions that nobody receives from end by themselves
        sockjs: Any = house.server.sites[0].folders[PREFIX]
        assert sockjs.sessions == {}
