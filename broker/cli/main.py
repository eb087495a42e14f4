"""Which command is meant, and how the root command is told what to do (server API §1.9, §7.5)."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from broker import PROTOCOL_VERSION, __version__
from broker.cli.flags import FLAGS, given_flags, with_values
from broker.cli.parser import Parser, config_argument

__all__ = ["run"]

_VERSION: Final = (
    f"trio-broker v{__version__} (Python version: {platform.python_version()}, Centrifugo contract: {PROTOCOL_VERSION})"
)
_HELP: Final = """\
A real-time messaging server, compatible with Centrifugo 6.9. Without a command it serves until SIGTERM;
SIGHUP reads the configuration again.

  broker --dev                     try it out: no tokens, no keys, this machine only, a page to play with
  broker genconfig                 write config.json with fresh secrets
  broker                           serve what ./config.json says
  broker -c prod.yaml -p 9000      another file, another port
  CENTRIFUGO_LOG_LEVEL=debug broker
                                   every option is an environment variable, too
"""
_COMMANDS_HELP: Final = """\
commands (each has its own --help):
  version         print the version
  bench           load a server and measure it
  genconfig       write a small configuration file with fresh secrets
  checkconfig     check a configuration file
  defaultconfig   write every option with its default to a file
  defaultenv      print every option as an environment variable
  gentoken        make a connection token (JWT) for a user
  gensubtoken     make a subscription token (JWT) for a user and a channel
  checktoken      check a connection token
  checksubtoken   check a subscription token

A flag wins over an environment variable, that over the file, that over the default. All options are those of
Centrifugo, see https://centrifugal.dev/docs/server/configuration; docs/configuration.md lists what differs.
"""


def run(argv: Sequence[str]) -> int:
    """Run one command line, without the name of the program.

    Returns:
        The exit status: 0, 1 for what went wrong, 2 for a command line that cannot be understood.
    """
    try:
        if argv and not argv[0].startswith("-"):
            return _run_command(argv[0], argv[1:])
        return _run_root(argv)
    except SystemExit as exit_:  # argparse, after --help or a complaint
        return exit_.code if isinstance(exit_.code, int) else 1


def _run_command(name: str, argv: Sequence[str]) -> int:
    command = _COMMANDS.get(name)
    if command is None:
        print(f'broker: unknown command "{name}", see broker --help', file=sys.stderr)
        return 2
    return command(argv)


# Each command imports what it needs when it runs: the options belong to the rooms of the server, and `version` must
# not wait for those.


def _version(argv: Sequence[str]) -> int:
    Parser("version", "Print the version.").parse_args(argv)
    print(_VERSION)
    return 0


def _config_command(name: str) -> Callable[[Sequence[str]], int]:
    def command(argv: Sequence[str]) -> int:
        from broker.cli import config_commands

        return config_commands.COMMANDS[name](argv)

    return command


def _token_command(name: str) -> Callable[[Sequence[str]], int]:
    def command(argv: Sequence[str]) -> int:
        from broker.cli import token_commands

        return token_commands.COMMANDS[name](argv)

    return command


def _bench(argv: Sequence[str]) -> int:
    from broker.cli.bench_command import bench

    return bench(argv)


_COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "version": _version,
    "bench": _bench,
    **{name: _config_command(name) for name in ("genconfig", "checkconfig", "defaultconfig", "defaultenv")},
    **{name: _token_command(name) for name in ("gentoken", "gensubtoken", "checktoken", "checksubtoken")},
}


def _run_root(argv: Sequence[str]) -> int:
    parser = Parser("", _HELP, epilog=_COMMANDS_HELP)
    parser.add_argument("--version", action="version", version=_VERSION, help="print the version")
    config_argument(parser)
    parser.add_argument("--dev", action="store_true", help="development settings, wherever nothing else is said")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for flag in FLAGS:
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        flag.add_to(groups[flag.group])
    arguments = vars(parser.parse_args(with_values(argv)))

    from broker.cli.daemon import serve

    return serve(arguments["config"], given_flags(arguments), development=arguments["dev"])
