"""`python -m benchmarks SHAPE`: load servers and print what they did per second of their own CPU time."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import report
from benchmarks.figures import Settings, Shape
from benchmarks.rounds import run_rounds
from benchmarks.servers import (
    Candidate,
    Cores,
    Server,
    broker,
    by_command,
    floor,
    interpreter,
    raise_file_limit,
    yardstick,
)
from benchmarks.shapes import SHAPES

MOST_CONNECTIONS = 100_000
MOST_SECONDS = 300.0
MOST_ROUNDS = 50
MOST_IN_FLIGHT = 1000
MOST_BYTES = 60_000
"""A whole publication has to fit into the 64 KiB that servers accept in one message."""


def parser() -> argparse.ArgumentParser:
    shapes = "\n".join(f"  {shape.name:5} {shape.about}" for shape in SHAPES.values())
    parse = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Load any Centrifugo-compatible server. Figures are per second of the server's CPU time.",
        epilog=f"shapes:\n{shapes}\n\nMethod and reading: docs/benchmarking.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("shape", nargs="+", choices=[*SHAPES, "all"], metavar="SHAPE", help="one or several, or 'all'")
    which = parse.add_argument_group("servers")
    which.add_argument("--server", action="append", default=[], metavar="NAME", help="of those below, only these")
    which.add_argument("--compare", action="store_true", help="the broker, the yardstick and all peers in turn")
    which.add_argument("--yardstick", metavar="PATH", help="the yardstick's script")
    which.add_argument("--peer", action="append", default=[], metavar="[NAME=]CMD", help="{port} and {config} go in")
    which.add_argument("--url", help="a server that runs already")
    which.add_argument("--server-pid", type=int, action="append", default=[], metavar="N", help="its process")
    which.add_argument("--api-key", default="", help="its HTTP API key")
    which.add_argument("--allow-remote", action="store_true", help="yes, load a machine other than this one")
    which.add_argument("--python", default=sys.executable, help="the interpreter of broker, yardstick and floor")
    how = parse.add_argument_group("load")
    how.add_argument("--rounds", type=_bounded(int, 1, MOST_ROUNDS), default=5)
    how.add_argument("--connections", type=_bounded(int, 1, MOST_CONNECTIONS), metavar="N")
    how.add_argument("--channels", type=_bounded(int, 0, MOST_CONNECTIONS), metavar="N", help="0: one per connection")
    how.add_argument("--size", type=_bounded(int, 40, MOST_BYTES), metavar="BYTES", help="data of a publication")
    how.add_argument("--seconds", type=_bounded(float, 0, MOST_SECONDS), help="of load in each round")
    how.add_argument("--in-flight", type=_bounded(int, 1, MOST_IN_FLIGHT), metavar="N", help="API requests")
    how.add_argument("--rate", type=_bounded(float, 1, 1e7), metavar="N", help="deliveries a second (W3p)")
    how.add_argument("--server-core", type=int, metavar="N", help="default: the first core; -1 pins nothing")
    how.add_argument("--load-core", type=int, metavar="N", help="default: the second core; -1 pins nothing")
    parse.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    return parse


def main(arguments: list[str]) -> int:
    parse = parser()
    options = parse.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        cores = _cores(options)
        shapes = list(SHAPES.values()) if "all" in options.shape else [SHAPES[name] for name in options.shape]
        plans = [(shape, _settings(shape, options), _servers(shape, options)) for shape in shapes]
        about = _about(options)
    except (ValueError, OSError) as error:
        parse.error(str(error))
    _introduce(about, cores, console)
    raise_file_limit()
    failed = False
    written: list[dict[str, Any]] = []
    for shape, settings, servers in plans:
        total = options.rounds * len(servers)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(shape.name, total=total)

            def on_round(name: str, number: int, task: Any = task, shape: Shape = shape) -> None:
                progress.update(task, description=f"{shape.name} round {number + 1} of {options.rounds}: {name}")

            results = run_rounds(shape, settings, servers, cores, options.rounds, on_round)
        report.show(results, console)
        for name, failure in results.failures.items():
            failed = True
            print(f"{shape.name}: {name}: {failure}", file=sys.stderr)
        written.append(report.as_json(results, about))
        if options.json:
            options.json.write_text(json.dumps(written, indent=1) + "\n")
    return 1 if failed else 0


def _servers(shape: Shape, options: argparse.Namespace) -> list[Candidate | Server]:
    """Which servers a shape is run against, in the order of the command line."""
    if options.url:
        server = Server.at(options.url, options.server_pid, options.api_key)
        if not server.local and not options.allow_remote:
            raise ValueError(f"{options.url} is not on this machine; say --allow-remote to load it all the same")
        found: list[Candidate | Server] = [server]
        if not options.compare:
            return found
    else:
        found = []
    known = [broker(options.python)] if not options.url else []
    if options.yardstick:
        known.append(yardstick(options.python, str(Path(options.yardstick).resolve(strict=True))))
    known += [by_command(text) for text in options.peer]
    if shape.has_floor:
        known.append(floor(options.python))
    names = {candidate.name: candidate for candidate in known}
    if len(names) < len(known):
        raise ValueError("two servers have the same name: say --peer NAME=CMD")
    for name in options.server:
        if name not in names and not (name == "floor" and not shape.has_floor):
            raise ValueError(f"--server {name}: there are {', '.join(names)}")
    wanted = set(options.server) if options.server else set(names) if options.compare else {"broker", "floor"}
    return [*found, *(candidate for candidate in known if candidate.name in wanted)]


def _settings(shape: Shape, options: argparse.Namespace) -> Settings:
    names = ("connections", "channels", "size", "seconds", "in_flight", "rate")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return attrs.evolve(shape.defaults, **given)


def _cores(options: argparse.Namespace) -> Cores:
    available = sorted(os.sched_getaffinity(0))
    default = (available[0], available[1]) if len(available) > 1 else (-1, -1)
    chosen = [default[at] if core is None else core for at, core in enumerate((options.server_core, options.load_core))]
    for core in chosen:
        if core >= 0 and core not in available:
            raise ValueError(f"there is no core {core} here, only {available}")
    server, load = (core if core >= 0 else None for core in chosen)
    return Cores(server, load)


def _about(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": report.machine(),
        "python": interpreter(options.python),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
    }


def _introduce(about: dict[str, Any], cores: Cores, console: Console) -> None:
    machine = about["machine"]
    console.print(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}", highlight=False)
    console.print(f"servers run on Python {about['python']}", highlight=False)
    if cores.server is None or cores.load is None or cores.server == cores.load:
        console.print("[yellow]server and load are not on cores of their own: figures will be low and unsteady[/]")
    else:
        console.print(f"server on core {cores.server}, load on core {cores.load}", highlight=False)


def _bounded(kind: type, least: float, most: float) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least:g} to {most:g}")
        return value

    parse.__name__ = kind.__name__
    return parse


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
