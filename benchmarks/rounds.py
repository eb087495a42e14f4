"""Rounds: every server in turn, over and over, so that a machine's good and bad minutes hit all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import final

import attrs

from benchmarks.figures import Figures, Settings, Shape
from benchmarks.load import calm
from benchmarks.servers import Candidate, Cores, Server, running


@final
@attrs.define
class Results:
    """The figures of one shape: server -> one entry per round that went well."""

    shape: Shape
    settings: Settings
    rounds: dict[str, list[Figures]]
    failures: dict[str, str] = attrs.field(factory=dict)
    """Server -> what went wrong; it got no further turn."""

    def medians(self, server: str) -> Figures:
        """Column -> median over the rounds that have it."""
        rounds = self.rounds[server]
        titles = dict.fromkeys(title for figures in rounds for title in figures)
        return {title: statistics.median(f[title] for f in rounds if title in f) for title in titles}

    def ratio(self, one: str, other: str) -> float | None:
        """The median of `one` over that of `other`, in the column that counts."""
        upper, lower = (self.medians(name).get(self.shape.figure) for name in (one, other))
        return upper / lower if upper is not None and lower else None


def run_rounds(
    shape: Shape,
    settings: Settings,
    servers: Sequence[Candidate | Server],
    cores: Cores,
    count: int,
    on_round: Callable[[str, int], None] = lambda name, number: None,
) -> Results:
    """Measure every server `count` times, a fresh process each time unless it is one that runs already."""
    results = Results(shape, settings, {name_of(server): [] for server in servers})
    cores.pin_load()
    for number in range(count):
        for server in servers:
            name = name_of(server)
            if name in results.failures:
                continue
            on_round(name, number)
            try:
                with calm():
                    figures = _round(shape, settings, server, cores)
            except (OSError, RuntimeError, ValueError) as error:
                results.failures[name] = "\n  ".join([str(error), *getattr(error, "__notes__", ())])
            else:
                results.rounds[name].append(figures)
    return results


def _round(shape: Shape, settings: Settings, server: Candidate | Server, cores: Cores) -> Figures:
    if isinstance(server, Server):
        return shape.measure(server, settings)
    with running(server, cores) as started:
        return shape.measure(started, settings)


def name_of(server: Candidate | Server) -> str:
    return server.name if isinstance(server, Candidate) else f"{server.host}:{server.port}"
