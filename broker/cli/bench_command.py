"""`broker bench`: load a server and say what it did per second of its own CPU time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from broker import __version__
from broker.bench import (
    Candidate,
    Cores,
    Plan,
    Settings,
    Shape,
    Target,
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
from broker.cli.parser import Parser

__all__ = ["bench"]

_ABOUT: Final = """\
Load a server that speaks Centrifugo's contract, and say what it did per second of its own CPU time.

  broker bench w3 --floor                     this broker, started for it on a core of its own, beside bare sends
  broker bench w9 --url ws://localhost:8000 --api-key KEY --pid $(pgrep -o centrifugo)
                                              a server that runs already
  broker bench w3p --url ws://localhost:8000 --pid 4711 --compare ws://localhost:9000 --pid2 4712
                                              two servers, turn by turn
  broker bench w10 --url wss://localhost --ca ca.pem --token-secret SECRET --clients 2000 --duration 10

A server that is loaded by URL has to let clients subscribe to any channel, or --token-secret and --namespace have to
name what it takes. Every shape checks that nothing is lost, doubled or out of order; if something is, the status is 1.
"""


def bench(argv: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        shapes = shapes_of(options.shape)
        plans: list[Plan] = []
        targets = _targets(options)
        for shape in shapes:
            servers: list[Candidate | Target] = [*targets] or [daemon()]
            if options.floor and shape.has_floor:
                servers.append(floor())
            plans.append((shape, _settings(shape, options), servers))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    console = make_console()
    here = machine()
    console.print(f"{here['cpu']}, {here['cores']} cores, Linux {here['kernel']}", highlight=False)
    if options.floor and not any(shape.has_floor for shape in shapes):
        console.print("[yellow]no floor: only W3, W3p, W3s and W9 can be played by a loop of sends[/]")
    raise_file_limit()
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": here,
        "python": sys.version,
        "version": __version__,
        "command": ["broker", "bench", *argv],
    }
    _, well = run_plans(
        plans,
        Cores() if options.no_pin else Cores.apart(),
        options.rounds,
        console,
        about=about,
        codec=options.codec,
        transport=options.transport,
        files=files_of(options),
    )
    return 0 if well else 1


def _parser() -> Parser:
    parser = Parser("bench", _ABOUT, epilog=f"shapes:\n{shape_list()}\n  all   one after another")
    parser.add_argument("shape", nargs="+", metavar="SHAPE", help="one or several of those below")
    which = parser.add_argument_group("servers (without --url, a broker is started for each round)")
    _server(which, "", "")
    which.add_argument("--compare", metavar="URL2", help="another server; the two take turns")
    _server(which, "2", "of URL2: ")
    which.add_argument("--ca", metavar="FILE", default="", help="certificates to trust, for wss:// and https://")
    which.add_argument("--insecure", action="store_true", help="trust any certificate")
    which.add_argument("--floor", action="store_true", help="also measure a loop of bare sends (W3, W3p, W3s, W9)")
    which.add_argument("--no-pin", action="store_true", help="leave cores to the system")
    which.add_argument("--allow-remote", action="store_true", help="yes, load a machine other than this one")
    add_load_arguments(parser)
    add_result_arguments(parser)
    parser.set_defaults(rounds=3)
    return parser


def _server(group: argparse._ArgumentGroup, number: str, whose: str) -> None:
    if not number:
        group.add_argument("--url", help="ws://host:port, with a path where it has one; wss:// for TLS")
    group.add_argument(f"--api-url{number}", default="", metavar="URL", help=f"{whose}its HTTP API (/api there)")
    group.add_argument(f"--api-key{number}", default="", metavar="KEY", help=f"{whose}key of its HTTP API")
    group.add_argument(
        f"--token-secret{number}", default="", metavar="SECRET", help=f"{whose}HMAC secret for tokens of clients"
    )
    group.add_argument(
        f"--pid{number}",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help=f"{whose}its process, for CPU, memory",
    )


def _targets(options: argparse.Namespace) -> list[Target]:
    """The servers that run already.

    Raises:
        ValueError: an address cannot be loaded, or should not be.
    """
    if options.compare and not options.url:
        raise ValueError("--compare needs --url")
    found = []
    for url, number in ((options.url, ""), (options.compare, "2")):
        if url:
            target = Target.at(
                url,
                getattr(options, f"api_url{number}"),
                transport=options.transport,
                codec=options.codec,
                pids=getattr(options, f"pid{number}"),
                api_key=getattr(options, f"api_key{number}"),
                token_secret=getattr(options, f"token_secret{number}"),
                ca=options.ca,
                verify=not options.insecure,
            )
            if not target.local and not options.allow_remote:
                raise ValueError(f"{url} is not on this machine; say --allow-remote to load it all the same")
            found.append(target)
    if len(found) == 2 and found[0].name == found[1].name:
        raise ValueError("--compare needs another address than --url")
    return found


def _settings(shape: Shape, options: argparse.Namespace) -> Settings:
    settings = settings_of(shape, options)
    return attrs.evolve(settings, jwt=True) if options.token_secret else settings
