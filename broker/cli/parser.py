"""What all commands share in how they read their arguments."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import final

__all__ = ["Parser", "config_argument"]


@final
class Parser(argparse.ArgumentParser):
    """A parser of one command; of the root command where `name` is empty. Nothing may be abbreviated."""

    def __init__(self, name: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"broker {name}".rstrip(),
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )


def config_argument(parser: argparse.ArgumentParser, help_text: str = "configuration file: json, toml or yaml") -> None:
    """Add `-c/--config`, which defaults to `config.json` in the working directory."""
    parser.add_argument(
        "-c", "--config", type=Path, default=Path("config.json"), metavar="FILE", help=f"{help_text} (config.json)"
    )
