"""Pub/sub of one shard: what is subscribed, put back after every redial, and proof that it delivers.

Subscriptions of one turn of the loop leave in few commands. After a redial everything is subscribed again, and then
the hub is told which channels were away, so that it checks the positions of whoever holds one. Canaries, sent through
the command links whenever nothing was heard for a while, show that messages really arrive: a pub/sub link that is up
and silent is closed, and the node is not ready until one is heard. In a Cluster each master sends its own, always:
messages of the others arriving say nothing about it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from typing import Any, Final, final

import structlog
import trio

from broker.engines.redis.address import Shard
from broker.engines.redis.commands import Commands
from broker.engines.redis.line import Line, Where
from broker.engines.redis.link import Call, Link, ReplyError, Together, Wait, pack
from broker.hub import EngineUnavailable
from broker.reader import Stage

__all__ = ["PubSub"]

_log = structlog.get_logger("broker.engines.redis")

_BATCH: Final = 512
"""Channels of one command."""
_PROBE_INTERVAL: Final = 0.75
_SUSPICIOUS: Final = 2
"""Canaries of one server that were not heard, with which the node is not ready."""
_DEAF: Final = 2
"""Intervals on the same link with such a server, after which it is closed."""

Take = Callable[[str, bytes], Wait | None]


@final
class _Name(Call):
    """One name of a command that has a reply for each, but a single error for all. After an error nobody knows whose
    reply the next one is, so the link ends, and everything is asked for anew on the one after it."""

    __slots__ = ("_refused",)

    def __init__(self, refused: Callable[[ReplyError], EngineUnavailable]) -> None:
        super().__init__()
        self._refused = refused

    def settle(self, result: Any) -> None:
        if isinstance(result, ReplyError):
            self.fail(self._refused(result))
        else:
            super().settle(result)


def _nobody(*_: object) -> None:
    raise AssertionError("attach comes first")


@final
class PubSub:
    """Channels of one shard that this node hears. Names are those in Redis; values what the hub calls them."""

    def __init__(
        self,
        shard: Shard,
        commands: Commands,
        probe: bytes,
        where: Where,
        stage: Stage,
    ) -> None:
        self._channels: dict[bytes, str] = {}
        self._others: dict[bytes, Callable[[bytes], None]] = {}
        self._commands = commands
        self._probe = probe
        self._take: Take = _nobody
        self._interrupted: Callable[[Collection[str]], None] = _nobody
        self._batch: list[tuple[bytes, bytes, Call]] = []
        self._stage = stage
        self._heard = False
        self._before = 0  # calls on the link before the last canaries
        self._unheard: dict[bytes, int] = {}  # canaries, by the server that sends them
        self._patience = _DEAF
        self._was_up = False
        self._together: Together = nullcontext
        self.line = Line(
            shard,
            "pub/sub",
            where,
            self._restore,
            stage,
            on_message=self._on_message,
            together=lambda: self._together(),
        )

    def attach(
        self, take: Take, interrupted: Callable[[Collection[str]], None], together: Together = nullcontext
    ) -> None:
        """Tell, once and before anything is subscribed, whom to call: with each message of a channel, with the
        channels of which messages may be lost, and around messages that were read at once."""
        self._take, self._interrupted, self._together = take, interrupted, together

    @property
    def deaf(self) -> str:
        """Why messages may not arrive although the link is up; empty while there is no doubt."""
        link = self.line.link
        if link is None:
            return ""
        silent = [server.decode() for server, canaries in self._unheard.items() if canaries >= _SUSPICIOUS]
        return f"{link.server}: connected, and delivers nothing of {', '.join(silent)}" if silent else ""

    @property
    def waits(self) -> bool:
        """Whether a canary is on its way."""
        return bool(self._unheard)

    # ---- what is heard --------------------------------------------------------------------------------------------

    async def subscribe(self, name: bytes, channel: str) -> None:
        """From the return on, messages to `name` are taken as the channel's.

        Raises:
            EngineUnavailable: pub/sub is away, or went away meanwhile.
        """
        self.line.need()
        self._channels[name] = channel
        try:
            await self._change(b"SUBSCRIBE", name)
        except EngineUnavailable:
            self._channels.pop(name, None)
            raise

    async def unsubscribe(self, name: bytes) -> None:
        """Hear `name` no longer. Without a link there is nothing to tell Redis."""
        self._channels.pop(name, None)
        if self.line.link is not None:
            await self._change(b"UNSUBSCRIBE", name)

    def listen(self, name: bytes, received: Callable[[bytes], None]) -> Call:
        """Hear `name`, which is no channel, for good: from the answer to the call on. Synchronous."""
        self._others[name] = received
        return self._ask(b"SUBSCRIBE", name)

    def _refused(self, reply: ReplyError) -> EngineUnavailable:
        if self.line.link is not None:
            self.line.link.close(f"it refuses a subscription ({reply})")
        return EngineUnavailable(str(reply))

    async def _change(self, verb: bytes, name: bytes) -> None:
        await self._ask(verb, name).wait()

    def _ask(self, verb: bytes, name: bytes) -> Call:
        if not self._batch:
            self._stage.soon(self._send_batch)
        call = _Name(self._refused)
        self._batch.append((verb, name, call))
        return call

    def _send_batch(self) -> None:
        """Everything that was asked for in one turn, in its order."""
        batch, self._batch = self._batch, []
        link = self.line.link
        start = 0
        while start < len(batch):
            verb = batch[start][0]
            stop = start + 1
            while stop < len(batch) and stop - start < _BATCH and batch[stop][0] is verb:
                stop += 1
            part = batch[start:stop]
            start = stop
            calls = [call for _, _, call in part]
            try:
                if link is None:
                    raise EngineUnavailable(self.line.why)
                link.send(pack((verb, *(name for _, name, _ in part))), calls)
            except EngineUnavailable as error:
                for call in calls:
                    call.fail(EngineUnavailable(*error.args))

    def _on_message(self, name: bytes, data: bytes) -> Wait | None:
        self._heard = True
        channel = self._channels.get(name)
        if channel is not None:
            return self._take(channel, data)
        if name == self._probe:
            self._unheard.pop(data, None)
        elif name in self._others:
            self._others[name](data)
        return None

    # ---- the link comes and goes ----------------------------------------------------------------------------------

    async def _restore(self, link: Link) -> None:
        names = [*self._channels, *self._others, self._probe]
        calls = [Call() for _ in names]
        for start in range(0, len(names), _BATCH):
            stop = start + _BATCH
            link.send(pack((b"SUBSCRIBE", *names[start:stop])), calls[start:stop])
        for call in calls:
            reply = await call.wait()
            if isinstance(reply, ReplyError):
                raise EngineUnavailable(f"{link.server}: {reply}")
        self._patience = _DEAF
        self._before = 0
        if self._was_up:
            _log.info("subscribed again", server=link.server, channels=len(self._channels))
            self.doubt(lambda _: True)
        self._was_up = True

    def doubt(self, concerns: Callable[[bytes], bool]) -> None:
        """Messages to these names may be lost: whoever holds a position in their channels is checked."""
        channels = [channel for name, channel in self._channels.items() if concerns(name)]
        if channels:
            self._interrupted(channels)

    async def _listen(self) -> None:
        """Send canaries, and give a deaf link up."""
        while True:
            await trio.sleep(_PROBE_INTERVAL)
            self._send_canaries()
            link = self.line.link
            if link is None or not self.deaf:
                self._patience = _DEAF
                continue
            self._patience -= 1
            if self._patience <= 0:
                link.close("pub/sub delivers nothing")

    def _send_canaries(self) -> None:
        link = self.line.link
        if link is not None:
            if link.answered < self._before:
                return  # canaries come behind what was called before them, which has a deadline of its own
            self._before = link.called
        heard, self._heard = self._heard, False
        lines = self._commands.lines
        if heard and len(lines) == 1:
            self._unheard.clear()
            return
        unheard, self._unheard = self._unheard, {}
        for link in [line.link for line in lines if line.link is not None]:  # no canary, no verdict
            server = link.server.encode()
            try:
                link.start(b"PUBLISH", self._probe, server)
            except EngineUnavailable:
                continue
            self._unheard[server] = unheard.get(server, 0) + 1

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.line.run, name="redis pub/sub")
            nursery.start_soon(self._listen, name="redis canary")
