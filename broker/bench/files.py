"""Results as files: all figures as JSON, latencies as percentile distributions, drawings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import attrs

from broker.bench.plot import svg
from broker.bench.report import as_json
from broker.bench.rounds import Results

__all__ = ["Files"]


@final
@attrs.frozen
class Files:
    """Where results go beside the terminal."""

    json: Path | None = None
    histogram: Path | None = None
    """One file for each shape and server; where there are several, their names are put into the file's."""
    plot: Path | None = None
    """One file for each shape."""

    def write(self, all_results: Sequence[Results], about: Mapping[str, Any], shapes: int) -> None:
        """Write what has been measured so far; called after each shape.

        Args:
            shapes: how many there will be.
        """
        results = all_results[-1]
        shape = [results.shape.name] if shapes > 1 else []
        if self.json is not None:
            self.json.write_text(json.dumps([as_json(each, about) for each in all_results]) + "\n")
        if self.histogram is not None:
            for name, rounds in results.rounds.items():
                server = [name] if len(results.rounds) > 1 else []
                if rounds:
                    _named(self.histogram, *shape, *server).write_text(results.latency(name).text())
        if self.plot is not None and any(results.rounds.values()):
            _named(self.plot, *shape).write_text(svg(results, about), encoding="utf-8")


def _named(path: Path, *parts: str) -> Path:
    """`latency.hgrm`, `W3`, `floor` -> `latency-W3-floor.hgrm`."""
    words = [re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in parts]
    return path.with_name("-".join([path.stem, *words]) + path.suffix)
