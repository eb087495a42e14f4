"""`python -m benchmarks.table`: measure every row of the table in docs/benchmarking.md, and write it.

What has been measured is kept in the file of `--json`, so a run that was interrupted goes on where it was; `--again`
measures anew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from benchmarks.candidates import by_command, interpreter, yardstick
from benchmarks.certificate import make_certificate
from benchmarks.rows import ROWS, Row
from broker.bench import SHAPES, Candidate, Cores, Tls, daemon, floor, machine, raise_file_limit, run_round, running

START = "start"


def main(arguments: list[str]) -> int:
    parse = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parse.add_argument("--json", type=Path, default=Path("table.json"), metavar="FILE", help="figures (table.json)")
    parse.add_argument("--markdown", type=Path, metavar="FILE", help="the table; without, it is only printed")
    parse.add_argument("--peer", metavar="NAME=CMD", help="{port} and {config} go in")
    parse.add_argument("--yardstick", metavar="PATH", help="the yardstick's script")
    parse.add_argument("--python", default=sys.executable, help="the interpreter of broker, yardstick and floor")
    parse.add_argument("--row", action="append", metavar="TEXT", help="only rows with that in their name")
    parse.add_argument("--rounds", type=int, metavar="N", help="of each row, instead of its own number")
    parse.add_argument("--small", action="store_true", help="tiny and unpinned: whether everything runs")
    parse.add_argument("--again", action="store_true", help="also what has been measured already")
    options = parse.parse_args(arguments)
    done: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    known = {"broker": daemon(options.python), "floor": floor(options.python)}
    if options.yardstick:
        known["yardstick"] = yardstick(options.python, str(Path(options.yardstick).resolve(strict=True)))
    if options.peer:
        known["peer"] = by_command(options.peer)
    raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        tls = make_certificate(Path(folder))
        for row in _wanted(ROWS, options):
            if row.name in done and not options.again:
                continue
            begin = time.monotonic()
            full = done.get(row.half_of, {}).get("medians", {})
            done[row.name] = _measure(row, known, tls, full, small=options.small)
            print(f"{row.name}: {time.monotonic() - begin:.0f} s  {json.dumps(done[row.name]['medians'])}", flush=True)
            options.json.write_text(json.dumps(done, indent=1) + "\n")
    if not options.row and (START not in done or options.again):
        done[START] = _start(known["broker"])
    peer = known["peer"].name if "peer" in known else "peer"
    done["about"] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "python": interpreter(options.python),
        "peer": peer,
    }
    options.json.write_text(json.dumps(done, indent=1) + "\n")
    table = "\n".join(_lines(done, peer)) + "\n"
    print(table)
    if options.markdown:
        options.markdown.write_text(table)
    return 1 if any(row.get("failures") for row in done.values()) else 0


def _wanted(rows: tuple[Row, ...], options: argparse.Namespace) -> Iterator[Row]:
    for row in rows:
        if options.row and not any(text.lower() in row.name.lower() for text in options.row):
            continue
        yield attrs.evolve(row, rounds=options.rounds) if options.rounds else row


def _measure(row: Row, known: dict[str, Candidate], tls: Tls, full: dict[str, float], *, small: bool) -> dict[str, Any]:
    """All rounds of a row, server by server in turn. `full`: what each did of the row that this one is half of."""
    figure = row.figure or SHAPES[row.shape].figure
    values: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    p99: dict[str, list[float]] = {}
    cores = Cores() if small else Cores.apart()
    for _, name in itertools.product(range(1 if small else row.rounds), row.servers):
        candidate = known.get(name.partition("/")[0])
        if candidate is None or name in failures:
            continue
        own = dict(row.variants.get(name, {}))
        shape = SHAPES[own.pop("shape", row.shape)]
        if row.half_of and name not in full:
            failures[name] = f"{row.half_of!r} has not been measured"
            continue
        half = {"rate": full[name] / 2} if row.half_of else {}
        settings = attrs.evolve(shape.defaults, **(row.settings | half | own))
        if small:
            settings = attrs.evolve(
                settings, connections=min(settings.connections, 20), seconds=0.5, rate=min(settings.rate, 2000.0)
            )
        try:
            outcome = run_round(shape, settings, candidate, cores, tls=tls if row.tls else None, codec=row.codec)
        except (OSError, RuntimeError, ValueError) as error:
            failures[name] = "\n".join([str(error), *getattr(error, "__notes__", ())])
            print(f"{row.name}: {name}: {failures[name]}", file=sys.stderr, flush=True)
            continue
        if figure in outcome.figures:
            values.setdefault(name, []).append(outcome.figures[figure])
        if "p99 ms" in outcome.figures:
            p99.setdefault(name, []).append(outcome.figures["p99 ms"])
    return {
        "figure": figure,
        "rounds": values,
        "medians": {name: statistics.median(some) for name, some in values.items()},
        "p99 ms": {name: statistics.median(some) for name, some in p99.items()},
        "failures": failures,
    }


def _start(candidate: Candidate) -> dict[str, Any]:
    """Seconds until `version` has answered, and until the daemon is ready; medians of five."""
    versions, ready = [], []
    python = candidate.command.split()[0].strip("'\"")
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run([python, "-m", "broker", "version"], check=True, stdout=subprocess.DEVNULL)
        versions.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        with running(candidate):
            ready.append(time.perf_counter() - begin)
    return {"version": statistics.median(versions), "ready": statistics.median(ready)}


def _lines(done: dict[str, Any], peer: str) -> Iterator[str]:
    about = done["about"]
    here = about["machine"]
    yield f"{about['date']}, {here['cpu']}, {here['cores']} cores, Linux {here['kernel']}, Python {about['python']}."
    yield ""
    yield f"| shape | figure | broker | {peer} | ratio | wanted | yardstick | ratio | wanted | further |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in ROWS:
        measured = done.get(row.name)
        if measured is None:
            continue
        medians = measured["medians"]
        ours = "broker" if "broker" in medians else next((name for name in medians if name.startswith("broker")), "")
        cells = [row.name, measured["figure"], _number(medians.get(ours))]
        for other, wanted in (("peer", row.of_peer), ("yardstick", row.of_yardstick)):
            cells += [_number(medians.get(other)), _ratio(medians.get(ours), medians.get(other)), wanted]
        further = [row.further] if row.further else []
        for name in medians:
            if name.startswith("broker/") and name != ours:
                ratio = _ratio(medians[name], medians.get(ours))
                further.append(f"{name.partition('/')[2]}: {_number(medians[name])}, ratio {ratio}")
        if "floor" in medians:
            further.append(f"floor {_number(medians['floor'])}, ratio {_ratio(medians.get(ours), medians['floor'])}")
        p99 = measured["p99 ms"]
        if measured["figure"] != "p99 ms" and ours in p99:
            further.append(" / ".join(f"p99 {p99[name]:.3g} ms" for name in (ours, "peer") if name in p99))
        further += [f"{name} failed" for name in measured["failures"]]
        yield f"| {' | '.join([*cells, '; '.join(further)])} |"
    if START in done:
        yield ""
        start = done[START]
        yield f"`broker version` {start['version']:.2f} s (≤ 0.3), daemon ready {start['ready']:.2f} s (≤ 1)."


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _ratio(upper: float | None, lower: float | None) -> str:
    return f"**{upper / lower:.2f}**" if upper is not None and lower else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
