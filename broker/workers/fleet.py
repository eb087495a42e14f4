"""The workers that run, and what they say together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, final

import trio
from prometheus_client.core import Metric

from broker.config import Sources
from broker.observe import from_data, lasting, merged, of_worker, render
from broker.workers.sources import as_data
from broker.workers.talk import Gone, Talk

__all__ = ["Fleet"]

_ANSWER_SECONDS: Final = 1.0
_RELOAD_SECONDS: Final = 20.0
"""For every worker to import the application's hooks anew."""


@final
class Fleet:
    """`talks` are to those that serve. Its answers are the same, whichever worker passes the question on."""

    def __init__(self, count: int, sources: Sources) -> None:
        self.count = count
        self.sources = sources
        """What holds now: the sources of the start, or of the last reload that was taken."""
        self.talks: dict[int, Talk] = {}
        self.restarts = dict.fromkeys(range(1, count + 1), 0)
        self.complete = trio.Event()
        """Set when all serve for the first time."""
        self._one_change = trio.Lock()
        self._last: dict[int, list[Metric]] = {}
        self._ended: list[Metric] = []

    async def join(self, worker: int, talk: Talk, began_with: Sources) -> str:
        """Take in one that has begun to serve. Returns why it cannot be one of them, or nothing."""
        async with self._one_change:
            if began_with is not self.sources:  # a reload came meanwhile
                why = f"worker {worker} does not answer"
                with trio.move_on_after(_RELOAD_SECONDS):
                    why = (await talk.ask("prepare", sources=as_data(self.sources)))["error"]
                    await talk.ask("take")
                if why:
                    return why
            self.talks[worker] = talk
            if len(self.talks) == self.count:
                self.complete.set()
        return ""

    def ended(self, worker: int) -> None:
        """What it had counted goes on to count."""
        self.talks.pop(worker, None)
        self._ended = merged([self._ended, lasting(self._last.pop(worker, []))])

    async def unready(self) -> list[str]:
        """What keeps any of them from its work."""
        answers = await self._ask_all("state", _ANSWER_SECONDS)
        waits: dict[str, None] = {}
        for worker in self.restarts:
            if worker not in self.talks:
                waits[f"worker {worker}: it is not running"] = None
            elif worker not in answers:
                waits[f"worker {worker}: it does not answer"] = None
            else:
                waits |= dict.fromkeys(answers[worker]["unready"])
        return list(waits)

    async def metrics(self) -> bytes:
        """The metrics of all as Prometheus text; of one that does not answer, what it said last."""
        answers = await self._ask_all("metrics", _ANSWER_SECONDS)
        self._last |= {worker: from_data(answer["families"]) for worker, answer in answers.items()}
        each = [of_worker(families, worker) for worker, families in sorted(self._last.items())]
        return render(merged([*each, self._ended, self._own(answers)]))

    def _own(self, answers: Mapping[int, object]) -> Iterable[Metric]:
        up = Metric("centrifugo_worker_up", "Whether the worker answers.", "gauge")
        restarts = Metric("centrifugo_worker_restarts_count", "Starts of the worker after the first one.", "counter")
        for worker, count in self.restarts.items():
            up.add_sample(up.name, {"worker": str(worker)}, float(worker in answers))
            restarts.add_sample(restarts.name, {"worker": str(worker)}, count)
        return up, restarts

    async def reload(self, fresh: Sources) -> str:
        """Have every worker take `fresh`, or none. Returns why not, or nothing."""
        async with self._one_change:
            answers = await self._ask_all("prepare", _RELOAD_SECONDS, sources=as_data(fresh))
            problems = dict.fromkeys(str(answer["error"]) for answer in answers.values() if answer["error"])
            silent = [f"worker {worker} does not answer" for worker in self.talks if worker not in answers]
            if why := "; ".join([*problems, *silent]):
                return why
            self.sources = fresh
            await self._ask_all("take", _ANSWER_SECONDS)
        return ""

    async def _ask_all(self, what: str, seconds: float, **details: Any) -> dict[int, Mapping[str, Any]]:
        """The answers that came in time, of those that have not ended meanwhile."""
        answers: dict[int, Mapping[str, Any]] = {}
        asked = dict(self.talks)

        async def ask(worker: int, talk: Talk) -> None:
            with suppress(Gone):
                answers[worker] = await talk.ask(what, **details)

        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for worker, talk in asked.items():
                    nursery.start_soon(ask, worker, talk)
        return {worker: answer for worker, answer in answers.items() if self.talks.get(worker) is asked[worker]}
