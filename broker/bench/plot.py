"""A shape's results as one drawing: latency by percentile, and rate and latency over time, a line for each server."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final
from xml.etree import ElementTree as Tree

import attrs

from broker.bench.figures import Outcome
from broker.bench.histogram import PERCENTILES, Histogram
from broker.bench.report import title
from broker.bench.rounds import Results

__all__ = ["svg"]

Points = Sequence[tuple[float, float]]

_WIDTH: Final = 1120
_HEIGHT: Final = 560
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito: told apart by everybody."""
_LOWEST, _HIGHEST = PERCENTILES["p50"], PERCENTILES["p99.99"]


@final
@attrs.frozen
class _Axis:
    """What one direction of a panel means."""

    label: str
    ticks: Mapping[float, str]
    least: float
    most: float
    place: Callable[[float], float] = float
    """Value -> where it stands, on the scale of `least` and `most`."""

    def share(self, value: float) -> float:
        """From 0 to 1."""
        return (self.place(value) - self.least) / (self.most - self.least)


@final
@attrs.frozen
class _Panel:
    """A rectangle of the drawing, in pixels."""

    name: str
    left: float
    top: float
    width: float
    height: float

    def draw(self, parent: Tree.Element, across: _Axis, up: _Axis, lines: Mapping[str, Points]) -> None:
        """Frame, ticks, labels, and a line for each server that has points."""
        group = Tree.SubElement(parent, "g", {"class": self.name})
        bottom, right = self.top + self.height, self.left + self.width
        for value, text in across.ticks.items():
            x = self.left + across.share(value) * self.width
            _line(group, x, self.top, x, bottom)
            _text(group, x, bottom + 16, text, anchor="middle")
        for value, text in up.ticks.items():
            y = bottom - up.share(value) * self.height
            _line(group, self.left, y, right, y)
            _text(group, self.left - 6, y + 4, text, anchor="end")
        _text(group, self.left + self.width / 2, bottom + 34, across.label, anchor="middle")
        _text(group, self.left, self.top - 10, up.label, weight="bold")
        for number, (server, points) in enumerate(lines.items()):
            if points:
                places = (
                    f"{self.left + across.share(x) * self.width:.1f},{bottom - up.share(y) * self.height:.1f}"
                    for x, y in points
                )
                drawn = {"points": " ".join(places), "fill": "none", "stroke": _colour(number), "stroke-width": "2"}
                Tree.SubElement(Tree.SubElement(group, "polyline", drawn), "title").text = server
        if not any(lines.values()):
            middle = self.top + self.height / 2
            _text(group, self.left + self.width / 2, middle, "not measured", anchor="middle")


def svg(results: Results, about: Mapping[str, Any]) -> str:
    """The drawing, as the text of an SVG file.

    Latencies by percentile are those of all rounds together; what goes over time is of the round in the middle, by the
    column that counts.

    Args:
        about: where and when it was measured: `machine`, `date`.
    """
    names = [name for name, rounds in results.rounds.items() if rounds]
    root = Tree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {_HEIGHT}",
            "width": str(_WIDTH),
            "height": str(_HEIGHT),
            "font-family": "sans-serif",
            "font-size": "12",
        },
    )
    Tree.SubElement(root, "title").text = f"{title(results)}: {', '.join(names)}"
    Tree.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "white"})
    here = about["machine"]
    _text(root, 70, 30, title(results), size="16", weight="bold")
    _text(root, 70, 50, f"{here['cpu']}, {here['cores']} cores, Linux {here['kernel']}, {about['date']}", fill="#555")
    _legend(root, names)

    curves = {name: _curve(results.latency(name)) for name in names}
    steps = {name: _middle(results, name).timeline for name in names}
    rates = {name: [(row[0], row[1]) for row in rows] for name, rows in steps.items()}
    medians = {name: [(row[0], row[2]) for row in rows] for name, rows in steps.items()}
    seconds = _upwards("seconds since the load began", rates, part=0)
    _Panel("percentiles", 70, 120, 470, 380).draw(root, _percentiles(), _upwards("latency, ms", curves), curves)
    _Panel("rate", 640, 120, 440, 150).draw(root, seconds, _upwards("rate, a second", rates), rates)
    _Panel("latency", 640, 350, 440, 150).draw(root, seconds, _upwards("median latency, ms", medians), medians)
    Tree.indent(root)
    return Tree.tostring(root, encoding="unicode") + "\n"


def _curve(latency: Histogram) -> Points:
    """Percentile -> milliseconds, no further than there are values to tell percentiles apart."""
    if not latency.total:
        return []
    last = max(_LOWEST, min(_HIGHEST, 100 * (1 - 1 / latency.total)))
    between = [point for point in latency.curve() if _LOWEST < point[0] < last]
    return [(_LOWEST, 1000 * latency.percentile(_LOWEST)), *between, (last, 1000 * latency.percentile(last))]


def _middle(results: Results, name: str) -> Outcome:
    rounds = sorted(results.rounds[name], key=lambda outcome: outcome.figures.get(results.shape.figure, 0.0))
    return rounds[len(rounds) // 2]


def _percentiles() -> _Axis:
    """Each nine as wide as the one before."""

    def nines(percent: float) -> float:
        return -math.log10(1 - percent / 100)

    ticks = {percent: name for name, percent in PERCENTILES.items()}
    return _Axis("percentile", ticks, nines(_LOWEST), nines(_HIGHEST), nines)


def _upwards(label: str, lines: Mapping[str, Points], part: int = 1) -> _Axis:
    """From zero to a round number above all values, with ticks at round numbers."""
    highest = max((point[part] for points in lines.values() for point in points), default=0.0) or 1.0
    size = 10 ** math.floor(math.log10(highest / 4))
    step = size * next(factor for factor in (1, 2, 5, 10) if highest / 4 <= factor * size * (1 + 1e-9))
    count = math.ceil(highest / step - 1e-9)
    return _Axis(label, {n * step: _short(n * step) for n in range(count + 1)}, 0.0, count * step)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _legend(parent: Tree.Element, names: Sequence[str]) -> None:
    x = 70.0
    for number, name in enumerate(names):
        _line(parent, x, 74, x + 24, 74, stroke=_colour(number), width="3")
        _text(parent, x + 30, 78, name)
        x += 54 + 7.5 * len(name)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _line(
    parent: Tree.Element, x1: float, y1: float, x2: float, y2: float, stroke: str = "#ddd", width: str = "1"
) -> None:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    Tree.SubElement(parent, "line", {**ends, "stroke": stroke, "stroke-width": width})


def _text(
    parent: Tree.Element,
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: str = "12",
    weight: str = "normal",
    fill: str = "#222",
) -> None:
    looks = {"text-anchor": anchor, "font-size": size, "font-weight": weight, "fill": fill}
    Tree.SubElement(parent, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", **looks}).text = text
