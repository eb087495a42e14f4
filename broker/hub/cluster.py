"""The nodes of a cluster: who is there, what is told to all of them, and what is asked of them.

Every node announces itself every 3 s and is forgotten after 7 s of silence, or at once when it says that it leaves; a
newcomer is answered at once, so that it knows the others without waiting. The engine carries the messages and may
lose, repeat and reorder them: commands and announcements mean the same when they come twice, an announcement that
comes after its node's goodbye is none, and a question is answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, final

import attrs
import structlog
import trio

from broker.eager import begin, go_on, own_task
from broker.hub.control import (
    Answer,
    ControlCommand,
    ControlMessage,
    Leaving,
    NodeInfo,
    NodeMetrics,
    Question,
)
from broker.hub.control_codec import NotUnderstood, decode, encode
from broker.hub.ports import Controller, EngineUnavailable
from broker.observe import Counters

__all__ = ["Cluster", "Handler", "Reply", "Survey"]

_log = structlog.get_logger("broker.hub")

ANNOUNCE_EVERY: Final = 3.0
FORGET_AFTER: Final = 7.0
SURVEY_SECONDS: Final = 1.0
_TICK: Final = 1.0
_MOST_NODES: Final = 1000
_MOST_ANSWERS_AT_ONCE: Final = 256
_REMEMBERED_QUESTIONS: Final = 4096
"""Bounds on what anybody who reaches the engine can make this node keep or do."""
_LONGEST_ANSWER: Final = 8 << 20
"""Bytes. Redis cuts off who is 32 MB behind with its messages, and that would be the node that asks."""

INTERNAL_ERROR: Final = 1
NO_SUCH_OP: Final = 3


@final
@attrs.frozen
class Reply:
    """What a node says to a question; a `code` other than 0 says why it has no answer."""

    code: int = 0
    data: bytes = b""


@final
@attrs.frozen
class Survey:
    """The replies by node, and the nodes of which none came in time; those that left meanwhile are in neither."""

    replies: Mapping[str, Reply]
    missing: frozenset[str]


Handler = Callable[[bytes], Coroutine[Any, Any, Reply]]
"""Says `await own_task()` before it waits."""


@final
@attrs.define(eq=False)
class _Asked:
    """A question that is out: who has not answered yet, who never will, and what the others said."""

    open: set[str]
    silent: set[str] = attrs.field(factory=set)
    replies: dict[str, Reply] = attrs.field(factory=dict)
    done: trio.Event = attrs.field(factory=trio.Event)

    def take(self, node: str, reply: Reply) -> None:
        """`node` answered."""
        if node in self.open:
            self.replies[node] = reply
            self._closed(node)

    def gave_up(self, node: str) -> None:
        """Nothing was heard of `node` for long."""
        if node in self.open:
            self.silent.add(node)
            self._closed(node)

    def left(self, node: str) -> None:
        """`node` said goodbye: there is nothing that it could tell."""
        self._closed(node)

    def _closed(self, node: str) -> None:
        self.open.discard(node)
        if not self.open:
            self.done.set()


@final
@attrs.define
class _Other:
    info: NodeInfo
    heard: float


@final
class Cluster:
    """This node among the others. `handlers` answer questions, by `op`, also those of this node itself."""

    def __init__(
        self,
        uid: str,
        controller: Controller,
        *,
        describe: Callable[[], NodeInfo],
        carry_out: Callable[[ControlCommand], None],
        counters: Counters,
        nursery: trio.Nursery,
    ) -> None:
        self.uid = uid
        self.handlers: dict[str, Handler] = {}
        self._controller = controller
        self._describe = describe
        self._carry_out = carry_out
        self._counters = counters
        self._nursery = nursery
        self._others: dict[str, _Other] = {}
        self._left: dict[str, float] = {}  # who said goodbye, and when
        self._asked: dict[int, _Asked] = {}
        self._last_question = 0
        self._answering = 0
        self._answered: dict[tuple[str, int], None] = {}
        self._unheard = False
        self._leaving = self._closed = False
        self._told: NodeMetrics | None = None
        controller.attach(uid, self.received)

    # ---- who is there ---------------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeInfo]:
        """All nodes as they last described themselves, this one first."""
        return [self._describe(), *(other.info for other in self._others.values())]

    def knows(self, node: str) -> bool:
        """Whether `node` is this one or one of the others."""
        return node == self.uid or node in self._others

    async def run(self) -> None:
        """Announces this node and forgets those that are silent, until it is cancelled."""
        announce = trio.current_time()
        while True:
            if trio.current_time() >= announce:
                heard = await self._announce()
                announce = trio.current_time() + (ANNOUNCE_EVERY if heard else _TICK)
            due = trio.current_time() + _TICK
            await trio.sleep_until(due)
            self._forget_the_silent(trio.current_time() - due)

    async def leave(self) -> None:
        """Tell the others. The caller sets a deadline. From here on this node does not announce itself."""
        self._leaving = True
        with suppress(EngineUnavailable):
            await self._send(Leaving())  # else they will notice by themselves

    def close(self) -> None:
        """Hear nothing any more: the engine lives for a moment longer than the tasks of the hub."""
        self._closed = True

    async def _announce(self, to: str = "") -> bool:
        if self._leaving:
            return True
        info = self._describe()
        metrics = info.metrics
        if metrics is self._told and not to:
            info = attrs.evolve(info, metrics=None)  # all but newcomers have them
        try:
            await self._send(info, to)
        except EngineUnavailable as error:
            if not self._unheard:
                self._unheard = True
                _log.warning("other nodes do not hear of this one", error=str(error))
            return False
        self._unheard = False
        if not to:
            self._told = metrics
        return True

    def _forget_the_silent(self, late: float) -> None:
        """`late`: seconds for which this process did not come to run, and could not have heard anybody."""
        now = trio.current_time()
        for uid, other in list(self._others.items()):
            if late > _TICK:
                other.heard += late
            if other.heard < now - FORGET_AFTER:
                del self._others[uid]
                for asked in tuple(self._asked.values()):
                    asked.gave_up(uid)
        for uid, since in list(self._left.items()):
            if since < now - FORGET_AFTER:
                del self._left[uid]

    def _goodbye(self, uid: str) -> None:
        if len(self._left) < _MOST_NODES:
            self._left[uid] = trio.current_time()
        self._others.pop(uid, None)
        for asked in tuple(self._asked.values()):
            asked.left(uid)

    def _met(self, info: NodeInfo) -> None:
        if info.uid in self._left:
            return  # sent before its goodbye
        other = self._others.get(info.uid)
        if other is None:
            if len(self._others) >= _MOST_NODES:
                self._counters.control_ignored["too many nodes"] += 1
                return
            self._others[info.uid] = _Other(info, trio.current_time())
            self._nursery.start_soon(self._announce, info.uid)
            return
        other.heard = trio.current_time()
        other.info = attrs.evolve(info, metrics=other.info.metrics) if info.metrics is None else info

    # ---- what is told and asked -----------------------------------------------------------------------------------

    async def tell(self, command: ControlCommand) -> None:
        """Have every other node carry `command` out.

        Raises:
            EngineUnavailable: nobody was told.
        """
        await self._send(command)

    async def survey(self, op: str, data: bytes = b"", *, seconds: float = SURVEY_SECONDS) -> Survey:
        """Ask every node, this one included. What has not come within `seconds` is missing.

        Raises:
            EngineUnavailable: nobody was asked.
        """
        replies = {self.uid: await self._reply(op, data)}
        asked = await self._ask(op, data, self._others, "", seconds)
        return Survey(replies | asked.replies, frozenset(asked.open | asked.silent))

    async def ask(self, node: str, op: str, data: bytes = b"", *, seconds: float = SURVEY_SECONDS) -> Reply | None:
        """Ask one node; None if it does not answer in time, or is not known.

        Raises:
            EngineUnavailable: it was not asked.
        """
        if node == self.uid:
            return await self._reply(op, data)
        if node not in self._others:
            return None
        return (await self._ask(op, data, (node,), node, seconds)).replies.get(node)

    async def _ask(self, op: str, data: bytes, nodes: Iterable[str], to: str, seconds: float) -> _Asked:
        """Also where nobody is known: an engine that is away must not look like a cluster of one."""
        await own_task()
        self._counters.actions["survey"] += 1
        self._last_question += 1
        id = self._last_question
        asked = self._asked[id] = _Asked(set(nodes))
        try:
            with trio.move_on_after(seconds):
                await self._send(Question(id, op, data), to)
                if asked.open:
                    await asked.done.wait()
        finally:
            del self._asked[id]
        return asked

    async def _send(self, message: ControlMessage, to: str = "") -> None:
        await self._controller.publish_control(encode(self.uid, message), to)
        self._counters.sent["control"] += 1

    # ---- what comes -----------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """The engine calls this for every control message. Synchronous; whatever the bytes are, it does not raise."""
        if self._closed:
            return
        self._counters.received["control"] += 1
        try:
            sender, message = decode(data)
        except NotUnderstood as error:
            self._counters.control_ignored[error.why] += 1
            return
        if sender == self.uid:
            return
        match message:
            case NodeInfo(uid=uid):
                if uid == sender:
                    self._met(message)
                else:
                    self._counters.control_ignored["garbage"] += 1
            case Leaving():
                self._goodbye(sender)
            case Question():
                self._begin_answer(sender, message)
            case Answer(id, code, answer):
                asked = self._asked.get(id)
                if asked is not None:
                    asked.take(sender, Reply(code, answer))
            case _:
                self._carry_out(message)

    def _begin_answer(self, sender: str, question: Question) -> None:
        key = (sender, question.id)
        if key in self._answered:
            self._counters.control_ignored["repeated"] += 1
        elif self._answering >= _MOST_ANSWERS_AT_ONCE:
            self._counters.control_ignored["too many questions"] += 1
        else:
            self._answered[key] = None
            if len(self._answered) > _REMEMBERED_QUESTIONS:
                del self._answered[next(iter(self._answered))]
            self._answering += 1
            work = self._reply(question.op, question.data)
            _, reply = begin(work)  # at once: what was asked first is done first
            self._nursery.start_soon(
                self._answer, sender, question, reply if isinstance(reply, Reply) else work, name="answer to a node"
            )

    async def _answer(self, sender: str, question: Question, reply: Reply | Coroutine[Any, Any, Reply]) -> None:
        try:
            with trio.move_on_after(SURVEY_SECONDS):
                given = reply if isinstance(reply, Reply) else await go_on(reply)
                if len(given.data) > _LONGEST_ANSWER:
                    _log.warning("an answer to a node is too long", op=question.op, bytes=len(given.data))
                    given = Reply(INTERNAL_ERROR)
                await self._send(Answer(question.id, given.code, given.data), sender)
        except EngineUnavailable:
            pass  # who asks waits no longer than it has to
        finally:
            self._answering -= 1

    async def _reply(self, op: str, data: bytes) -> Reply:
        handler = self.handlers.get(op)
        if handler is None:
            return Reply(NO_SUCH_OP)
        try:
            return await handler(data)
        except EngineUnavailable:
            return Reply(INTERNAL_ERROR)
        except Exception:  # questions come from outside: one must not end the node
            _log.exception("a question of a node could not be answered", op=op)
            return Reply(INTERNAL_ERROR)
