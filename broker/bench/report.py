"""Results as tables for people and as JSON for machines."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from broker.bench.rounds import Results

__all__ = ["as_json", "machine", "show", "title"]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {"cpu": models[0] if models else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release()}


def title(results: Results) -> str:
    """The shape and how large it was."""
    return f"{results.shape.name}: {results.shape.about} ({_settings(results)})"


def show(results: Results, console: Console) -> None:
    """Medians per server, then the servers pair by pair."""
    names = [name for name, rounds in results.rounds.items() if rounds]
    if not names:
        return
    medians = {name: results.medians(name) for name in names}
    columns = list(dict.fromkeys(column for figures in medians.values() for column in figures))
    figure = results.shape.figure
    columns.sort(key=lambda column: column != figure)
    count = max(len(results.rounds[name]) for name in names)
    table = Table(title=title(results), title_justify="left")
    table.add_column(f"median of {count}" if count > 1 else "")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for column in columns:
        cells = [_number(medians[name][column]) if column in medians[name] else "" for name in names]
        table.add_row(column, *cells, style="bold" if column == figure else None)
        if column == figure and count > 1:
            ranges = [results.values(name) for name in names]
            table.add_row("  from – to", *(f"{_number(min(v))} – {_number(max(v))}" if v else "" for v in ranges))
    console.print(table)
    for one, other in itertools.combinations(names, 2):
        if (ratio := results.ratio(one, other)) is not None:
            better = "" if results.shape.more_is_better else " (less is better)"
            pairs = ", ".join(f"{pair:.2f}" for pair in results.pairs(one, other))
            rounds = f"   round by round: {pairs}" if count > 1 else ""
            console.print(f"  {one} / {other}: [bold]{ratio:.2f}[/]{better}{rounds}", highlight=False)


def as_json(results: Results, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, with what is needed to repeat it."""
    names = list(results.rounds)
    return {
        **about,
        "shape": results.shape.name,
        "settings": attrs.asdict(results.settings),
        "figure": results.shape.figure,
        "rounds": {name: [outcome.as_json() for outcome in rounds] for name, rounds in results.rounds.items()},
        "failures": results.failures,
        "medians": {name: results.medians(name) for name in names},
        "ratios": {f"{one}/{other}": results.ratio(one, other) for one, other in itertools.combinations(names, 2)},
    }


def _settings(results: Results) -> str:
    settings, defaults = results.settings, results.shape.defaults
    parts = [f"{settings.connections:,} connections"] if settings.connections else []
    if results.shape.name.startswith(("W1", "W3", "W4", "W6", "W7", "W9")):
        parts.append(f"{settings.size} B")
    if results.shape.name.startswith(("W3s", "W9")):
        parts.append(f"{settings.in_flight} in flight")
    parts += [f"namespace {settings.namespace}"] if settings.namespace else []
    if settings.subscriptions != defaults.subscriptions:
        parts.append(f"{settings.subscriptions} subscriptions each")
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _lines(path: str) -> Iterator[str]:
    try:
        yield from Path(path).read_text().splitlines()
    except OSError:
        return
