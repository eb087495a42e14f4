"""Rounds on a terminal: progress while they run, a table at the end, and what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from broker.bench import report
from broker.bench.figures import Settings
from broker.bench.files import Files
from broker.bench.load import Say
from broker.bench.local import Candidate, Cores, Tls
from broker.bench.rounds import Results, run_rounds
from broker.bench.shapes import Shape
from broker.bench.target import Target

__all__ = ["Plan", "make_console", "run_plans"]

Plan = tuple[Shape, Settings, Sequence[Candidate | Target]]
"""A shape, its settings, and against whom."""


def make_console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160)


def run_plans(
    plans: Sequence[Plan],
    cores: Cores,
    rounds: int,
    console: Console,
    *,
    about: Mapping[str, Any],
    files: Files,
    tls: Tls | None = None,
    codec: str = "json",
    transport: str = "websocket",
    redis: str = "",
) -> tuple[list[Results], bool]:
    """Run all of them; their results, and whether everything went well."""
    all_results: list[Results] = []
    for shape, settings, servers in plans:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(shape.name, total=rounds * len(servers))

            def on_round(name: str, number: int, shape: Shape = shape, servers: Any = servers, task: Any = task) -> Say:
                done = number * len(servers) + [server.name for server in servers].index(name)
                title = f"{shape.name} round {number + 1} of {rounds}: {name}"

                def say(what: str, share: float) -> None:
                    progress.update(task, description=f"{title}, {what}", completed=done + share)

                progress.update(task, description=title, completed=done)
                return say

            results = run_rounds(
                shape,
                settings,
                servers,
                cores,
                rounds,
                on_round,
                tls=tls,
                codec=codec,
                transport=transport,
                redis=redis,
            )
        report.show(results, console)
        for name, failure in results.failures.items():
            print(f"{shape.name}: {name}: {failure}", file=sys.stderr)
        all_results.append(results)
        files.write(all_results, about, len(plans))
    return all_results, not any(results.failures for results in all_results)
