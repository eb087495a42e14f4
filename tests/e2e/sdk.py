"""Drives the official SDKs: one program per SDK (`js/driver.mjs`, `py/driver.py`), one vocabulary for the tests.

A test reads like a script: what a client does, and which event the SDK must then report.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import trio

from tests.support.children import WITH_US
from tests.support.patience import PATIENCE

HERE = Path(__file__).parent
NODE = shutil.which("node", path=Path(sys.executable).parent) or "node"
"""`make test` puts one beside our Python where the system has none that will do."""
PROGRAMS = {
    "js": [NODE, str(HERE / "js" / "driver.mjs")],
    "python": [sys.executable, str(HERE / "py" / "driver.py")],
}


class SdkError(Exception):
    """The SDK reported an error instead of a result; `code` is the server's, or the SDK's own."""

    def __init__(self, code: int | None, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@final
class Programs:
    """The programs with the SDKs in them. Each is started once, and tests use it one after another."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def get(self, language: str) -> subprocess.Popen[bytes]:
        if language not in self._running:
            self._running[language] = start_program(language)
        return self._running[language]

    def discard(self, language: str) -> None:
        """Do not use it again: it did not come to rest after a test."""
        _end(self._running.pop(language))

    def close(self) -> None:
        for language in list(self._running):
            self.discard(language)


def start_program(language: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    environ = {**os.environ, **(env or {})}
    return subprocess.Popen([*WITH_US, *PROGRAMS[language]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)


def _end(program: subprocess.Popen[bytes]) -> None:
    with program:  # closes the pipes: at the end of its input the program ends
        program.kill()


@final
class Sdk:
    """One of the SDKs, speaking one codec, for one test."""

    def __init__(self, program: subprocess.Popen[bytes], codec: str) -> None:
        assert program.stdin is not None
        assert program.stdout is not None
        self.protobuf = codec == "protobuf"
        self._ids = itertools.count(1)
        self._replies: dict[int, dict[str, Any]] = {}
        self._events: list[dict[str, Any]] = []
        self._followed: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._arrived = trio.Event()
        self._ended = False
        self._saying = trio.Lock()
        self._input = trio.lowlevel.FdStream(os.dup(program.stdin.fileno()))
        self._output = trio.lowlevel.FdStream(os.dup(program.stdout.fileno()))

    async def run(self) -> None:
        """Read what the program says, until `aclose`."""
        rest = b""
        with suppress(trio.ClosedResourceError):
            async for chunk in self._output:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in map(json.loads, lines):
                    if "id" in line:
                        self._replies[line["id"]] = line
                    elif (take := self._followed.get(line.get("client", ""))) is not None:
                        take(line)
                    else:
                        self._events.append(line)
                self._wake()
        self._ended = True
        self._wake()

    async def reset(self) -> None:
        """Disconnect all clients of this test and forget them."""
        await self.call("reset")

    async def aclose(self) -> None:
        await self._input.aclose()
        await self._output.aclose()

    async def client(self, url: str, name: str = "alice", **options: Any) -> Client:
        """Make a client, not yet connected. Options: token, data, headers, and ask_token for a token on demand."""
        await self.call("client", client=name, url=url, protobuf=self.protobuf, **options)
        return Client(self, name)

    async def connected(self, url: str, name: str = "alice", **options: Any) -> Client:
        """Make a client and connect it."""
        client = await self.client(url, name, **options)
        await client.connect()
        return client

    async def call(self, op: str, **args: Any) -> dict[str, Any]:
        identity = next(self._ids)
        async with self._saying:
            await self._input.send_all(json.dumps({"id": identity, "op": op, **args}).encode() + b"\n")
        with trio.fail_after(PATIENCE):
            while identity not in self._replies:
                await self._wait_line()
        reply = self._replies.pop(identity)
        if "error" in reply:
            raise SdkError(reply["error"].get("code"), reply["error"]["message"])
        return dict(reply["result"])

    async def event(self, **wanted: Any) -> dict[str, Any]:
        """Take the first event, arrived or to come, that has all these members."""
        try:
            with trio.fail_after(PATIENCE):
                while True:
                    for event in self._events:
                        if wanted.items() <= {key: _hashable(value) for key, value in event.items()}.items():
                            self._events.remove(event)
                            return event
                    await self._wait_line()
        except trio.TooSlowError:
            raise AssertionError(f"no event {wanted} among {self._events}") from None

    def follow(self, client: str, take: Callable[[dict[str, Any]], None]) -> None:
        """Call `take` with each event of one client, instead of keeping it for `event`."""
        self._followed[client] = take

    def seen(self, **wanted: Any) -> list[dict[str, Any]]:
        """The events that have arrived and that nobody took."""
        return [event for event in self._events if all(event.get(key) == value for key, value in wanted.items())]

    async def _wait_line(self) -> None:
        assert not self._ended, "the program of the SDK ended"
        await self._arrived.wait()

    def _wake(self) -> None:
        self._arrived.set()
        self._arrived = trio.Event()


@final
class Client:
    """One client inside an `Sdk`."""

    def __init__(self, sdk: Sdk, name: str) -> None:
        self._sdk = sdk
        self.name = name
        self.id = ""

    async def connect(self) -> dict[str, Any]:
        await self.start_connecting()
        connected = await self.event("connected")
        self.id = connected["client_id"]
        return connected

    async def start_connecting(self) -> None:
        await self._call("connect")

    async def disconnect(self) -> dict[str, Any]:
        await self._call("disconnect")
        return await self.event("disconnected")

    async def subscribe(self, channel: str, **options: Any) -> dict[str, Any]:
        """Subscribe and return what the SDK reports about it."""
        await self.start_subscribing(channel, **options)
        return await self.event("subscribed", channel=channel)

    async def start_subscribing(self, channel: str, **options: Any) -> None:
        await self._call("subscribe", channel=channel, **options)

    async def unsubscribe(self, channel: str) -> dict[str, Any]:
        await self._call("unsubscribe", channel=channel)
        return await self.event("unsubscribed", channel=channel)

    async def publish(self, channel: str, data: Any) -> None:
        await self._call("publish", channel=channel, data=data)

    async def publish_bytes(self, channel: str, data: bytes) -> None:
        await self._call("publish", channel=channel, hex=data.hex())

    async def presence(self, channel: str) -> dict[str, dict[str, Any]]:
        return dict((await self._call("presence", channel=channel))["clients"])

    async def presence_stats(self, channel: str) -> dict[str, int]:
        return await self._call("presence_stats", channel=channel)

    async def history(self, channel: str, **options: Any) -> dict[str, Any]:
        return await self._call("history", channel=channel, **options)

    async def rpc(self, method: str, data: Any) -> Any:
        return (await self._call("rpc", method=method, data=data)).get("data")

    async def event(self, event: str, **wanted: Any) -> dict[str, Any]:
        return await self._sdk.event(event=event, client=self.name, **wanted)

    def follow(self, take: Callable[[dict[str, Any]], None]) -> None:
        self._sdk.follow(self.name, take)

    async def publication(self, channel: str) -> dict[str, Any]:
        return await self.event("publication", channel=channel)

    def seen(self, event: str, **wanted: Any) -> list[dict[str, Any]]:
        return self._sdk.seen(event=event, client=self.name, **wanted)

    async def answer(self, question: str, value: Any, **wanted: Any) -> None:
        """Answer what the SDK asks the application for: `token_wanted` or `state_wanted`."""
        event = await self.event(question, **wanted)
        await self._sdk.call("answer", question=event["question"], value=value)

    async def refuse(self, question: str) -> None:
        event = await self.event(question)
        await self._sdk.call("answer", question=event["question"], refuse=True)

    async def _call(self, op: str, **args: Any) -> dict[str, Any]:
        return await self._sdk.call(op, client=self.name, **args)


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
