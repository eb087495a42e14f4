"""What a command line says about the load and its results; `broker bench` and `python -m benchmarks` share it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from broker.bench.figures import Settings
from broker.bench.files import Files
from broker.bench.shapes import SHAPES, Shape
from broker.bench.target import CODECS, TRANSPORTS

__all__ = ["add_load_arguments", "add_result_arguments", "files_of", "settings_of", "shape_list", "shapes_of"]

MOST_CONNECTIONS = 100_000
MOST_SECONDS = 300.0
MOST_ROUNDS = 50
MOST_IN_FLIGHT = 1000
MOST_BATCH = 1000
MOST_SUBSCRIPTIONS = 40
MOST_PROCESSES = 64
MOST_BYTES = 60_000
"""A whole publication has to fit into the 64 KiB that servers accept in one message."""
LEAST_BYTES = 48


def shape_list() -> str:
    """The shapes, a line each, for the help."""
    return "\n".join(f"  {shape.name:5} {shape.about}" for shape in SHAPES.values())


def shapes_of(names: list[str]) -> list[Shape]:
    """The shapes that are meant, whatever their case.

    Raises:
        ValueError: there is no such shape.
    """
    known = {name.lower(): shape for name, shape in SHAPES.items()}
    if "all" in names:
        return list(SHAPES.values())
    for name in names:
        if name.lower() not in known:
            raise ValueError(f"there is no shape {name}: say one of {', '.join(SHAPES)}")
    return [known[name.lower()] for name in names]


def add_load_arguments(parser: argparse.ArgumentParser) -> None:
    """How large a load is; each shape has defaults of its own."""
    how = parser.add_argument_group("load")
    add = how.add_argument
    add("--rounds", type=_bounded(int, 1, MOST_ROUNDS), metavar="N", default=5, help="of each server (5)")
    add(
        "--duration", "--seconds", dest="seconds", type=_bounded(float, 0, MOST_SECONDS), metavar="S", help="of a round"
    )
    add("--clients", "--connections", dest="connections", type=_bounded(int, 1, MOST_CONNECTIONS), metavar="N")
    add("--payload", "--size", dest="size", type=_bounded(int, LEAST_BYTES, MOST_BYTES), metavar="BYTES")
    add("--in-flight", type=_bounded(int, 1, MOST_IN_FLIGHT), metavar="N", help="API requests under way")
    add("--rate", type=_bounded(float, 1, 1e7), metavar="N", help="deliveries a second of a paced load")
    add("--batch", type=_bounded(int, 1, MOST_BATCH), metavar="N", help="publications in one API request")
    add("--channels", type=_bounded(int, 0, MOST_CONNECTIONS), metavar="N", help="0: one per connection")
    add("--subscriptions", type=_bounded(int, 0, MOST_SUBSCRIPTIONS), metavar="N", help="of each client (W11)")
    add("--flood", type=_bounded(int, 1, MOST_CONNECTIONS), metavar="N", help="clients that connect at once (W13)")
    add("--namespace", metavar="NAME", help="of all channels, to measure its options, such as history")
    add("--processes", type=_bounded(int, 1, MOST_PROCESSES), metavar="N", help="of subscribers (one per 15,000)")
    add("--stall", action="store_true", default=None, help="also look for the longest time without an answer")
    add("--codec", choices=CODECS, default="json", help="of the clients (json)")
    add("--transport", choices=[*TRANSPORTS], default="websocket", help="of the clients (websocket)")


def add_result_arguments(parser: argparse.ArgumentParser) -> None:
    """Where results go beside the terminal."""
    results = parser.add_argument_group("results")
    add = results.add_argument
    add("--json", type=_new_file, metavar="FILE", help="write every figure of every round there")
    add("--histogram", type=_new_file, metavar="FILE", help="write latencies as HdrHistogram's percentile distribution")
    add("--plot", type=_new_svg, metavar="FILE.svg", help="draw latency by percentile, rate and latency over time")


def files_of(options: argparse.Namespace) -> Files:
    """Where the command line wants results."""
    return Files(options.json, options.histogram, options.plot)


def settings_of(shape: Shape, options: argparse.Namespace) -> Settings:
    """The shape's own settings, but what the command line says."""
    given = {field.name: getattr(options, field.name, None) for field in attrs.fields(Settings)}
    return attrs.evolve(shape.defaults, **{name: value for name, value in given.items() if value is not None})


def _new_file(text: str) -> Path:
    """Complains before anything is measured."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _new_svg(text: str) -> Path:
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text} does not end with .svg")
    return _new_file(text)


def _bounded(kind: Callable[[str], Any], least: float, most: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least:g} to {most:g}")
        return value

    parse.__name__ = getattr(kind, "__name__", "value")
    return parse
