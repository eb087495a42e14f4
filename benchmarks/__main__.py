"""`python -m benchmarks SHAPE`: start servers on a core of their own, load them in turn, print figures and ratios."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.candidates import by_command, interpreter, yardstick
from benchmarks.certificate import make_certificate
from broker.bench import (
    Candidate,
    Cores,
    Plan,
    Shape,
    add_load_arguments,
    add_result_arguments,
    daemon,
    files_of,
    floor,
    machine,
    make_console,
    raise_file_limit,
    run_plans,
    settings_of,
    shape_list,
    shapes_of,
)


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Start servers, load them in turn, and compare what they do per second of their own CPU time.\n"
        "A server that runs already is loaded by `broker bench SHAPE --url URL`.",
        epilog=f"shapes:\n{shape_list()}\n\nMethod and reading: docs/benchmarking.md",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("shape", nargs="+", metavar="SHAPE", help="one or several, or 'all'")
    which = parse.add_argument_group("servers")
    which.add_argument("--server", action="append", default=[], metavar="NAME", help="of those below, only these")
    which.add_argument("--compare", action="store_true", help="the broker, the yardstick and all peers in turn")
    which.add_argument("--yardstick", metavar="PATH", help="the yardstick's script")
    which.add_argument("--peer", action="append", default=[], metavar="[NAME=]CMD", help="{port} and {config} go in")
    which.add_argument("--python", default=sys.executable, help="the interpreter of broker, yardstick and floor")
    which.add_argument("--tls", action="store_true", help="over TLS (W2, W3p, W3s, W9; no yardstick, no floor)")
    which.add_argument("--redis", default="", metavar="ADDRESS", help="one that runs: the engine of broker and peers")
    which.add_argument("--server-core", type=int, metavar="N", help="default: the first core; -1 pins nothing")
    which.add_argument("--load-core", type=int, metavar="N", help="default: all others; -1 pins nothing")
    add_load_arguments(parse)
    add_result_arguments(parse)
    return parse


def main(arguments: list[str]) -> int:
    parse = parser()
    options = parse.parse_args(arguments)
    console = make_console()
    try:
        cores = _cores(options)
        plans: list[Plan] = [
            (shape, settings_of(shape, options), _servers(shape, options)) for shape in shapes_of(options.shape)
        ]
        about = _about(options)
    except (ValueError, OSError) as error:
        parse.error(str(error))
    here = about["machine"]
    console.print(f"{here['cpu']}, {here['cores']} cores, Linux {here['kernel']}", highlight=False)
    console.print(f"servers run on Python {about['python']}", highlight=False)
    if cores.server is None or not cores.load or cores.server in cores.load:
        console.print("[yellow]server and load are not on cores of their own: figures will be low and unsteady[/]")
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        _, well = run_plans(
            plans,
            cores,
            options.rounds,
            console,
            about=about,
            tls=make_certificate(Path(folder)) if options.tls else None,
            codec=options.codec,
            transport=options.transport,
            redis=options.redis,
            files=files_of(options),
        )
    return 0 if well else 1


def _servers(shape: Shape, options: argparse.Namespace) -> list[Candidate]:
    """Which servers a shape is run against, in the order of the command line."""
    whole_only = options.tls or options.codec != "json" or options.transport != "websocket" or options.namespace
    known = [daemon(options.python)]
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

    def can(candidate: Candidate) -> bool:
        return not candidate.simple or (not whole_only and (shape.simple or candidate.name == "floor"))

    return [candidate for candidate in known if candidate.name in wanted and can(candidate)]


def _cores(options: argparse.Namespace) -> Cores:
    """
    Raises:
        ValueError: a core is not there.
    """
    available = set(os.sched_getaffinity(0))
    for core in (options.server_core, options.load_core):
        if core is not None and core >= 0 and core not in available:
            raise ValueError(f"there is no core {core} here, only {sorted(available)}")
    apart = Cores.apart()
    server = apart.server if options.server_core is None else None if options.server_core < 0 else options.server_core
    load = apart.load if options.load_core is None else () if options.load_core < 0 else (options.load_core,)
    return Cores(server, load)


def _about(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "python": interpreter(options.python),
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
