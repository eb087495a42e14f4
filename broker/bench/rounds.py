"""Rounds: every server in turn, over and over, so that a machine's good and bad minutes hit all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import final

import attrs

from broker.bench.figures import Figures, Outcome, Settings
from broker.bench.histogram import Histogram
from broker.bench.load import Say
from broker.bench.local import Candidate, Cores, Tls, running
from broker.bench.process import Failed, run_load
from broker.bench.shapes import Shape
from broker.bench.target import Target

__all__ = ["Results", "run_round", "run_rounds"]


@final
@attrs.define
class Results:
    """The outcomes of one shape: server -> one per round that went well."""

    shape: Shape
    settings: Settings
    rounds: dict[str, list[Outcome]]
    failures: dict[str, str] = attrs.field(factory=dict)
    """Server -> what went wrong; it got no further turn."""

    def medians(self, server: str) -> Figures:
        """Column -> median over the rounds that have it."""
        rounds = [outcome.figures for outcome in self.rounds[server]]
        titles = dict.fromkeys(title for figures in rounds for title in figures)
        return {title: statistics.median(f[title] for f in rounds if title in f) for title in titles}

    def values(self, server: str) -> list[float]:
        """The column that counts, round by round."""
        return [o.figures[self.shape.figure] for o in self.rounds[server] if self.shape.figure in o.figures]

    def ratio(self, one: str, other: str) -> float | None:
        """The median of `one` over that of `other`, in the column that counts."""
        upper, lower = self.values(one), self.values(other)
        if not upper or not lower or not statistics.median(lower):
            return None
        return statistics.median(upper) / statistics.median(lower)

    def pairs(self, one: str, other: str) -> list[float]:
        """`one` over `other`, round by round."""
        return [up / low for up, low in zip(self.values(one), self.values(other), strict=False) if low]

    def latency(self, server: str) -> Histogram:
        """Of all rounds together."""
        merged = Histogram()
        for outcome in self.rounds[server]:
            merged.merge(outcome.latency)
        return merged


def run_rounds(
    shape: Shape,
    settings: Settings,
    servers: Sequence[Candidate | Target],
    cores: Cores,
    count: int,
    on_round: Callable[[str, int], Say] = lambda name, number: lambda what, share: None,
    tls: Tls | None = None,
    codec: str = "json",
    transport: str = "websocket",
    redis: str = "",
) -> Results:
    """Measure every server `count` times, a fresh process each time unless it is one that runs already.

    Args:
        on_round: told which server's turn it is; gives who is told how far the turn has come.
        tls, codec, transport, redis: of servers that are started.
    """
    results = Results(shape, settings, {server.name: [] for server in servers})
    for number in range(count):
        for server in servers:
            if server.name in results.failures:
                continue
            say = on_round(server.name, number)
            try:
                outcome = run_round(
                    shape, settings, server, cores, say, tls=tls, codec=codec, transport=transport, redis=redis
                )
            except (OSError, Failed, RuntimeError, ValueError) as error:
                results.failures[server.name] = "\n  ".join([str(error), *getattr(error, "__notes__", ())])
            else:
                results.rounds[server.name].append(outcome)
    return results


def run_round(
    shape: Shape,
    settings: Settings,
    server: Candidate | Target,
    cores: Cores,
    say: Say = lambda what, share: None,
    *,
    tls: Tls | None = None,
    codec: str = "json",
    transport: str = "websocket",
    redis: str = "",
) -> Outcome:
    """One turn of one server.

    Raises:
        OSError, RuntimeError, ValueError: it did not start, refused, hung up, or delivered something wrong.
    """
    if isinstance(server, Target):
        return run_load(shape, server, settings, cores.load, say)
    wanted = attrs.evolve(settings, stall=False) if server.simple else settings
    with running(
        server,
        cores.server,
        tls=tls,
        codec=codec,
        transport=transport,
        redis=redis,
        asked=shape.asked,
        backend_cores=cores.load,
        own_redis=shape.own_redis,
    ) as target:
        return run_load(shape, target, wanted, cores.load, say)
