"""Commands about configuration files: genconfig, checkconfig, defaultconfig, defaultenv (server API §7.5)."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from broker.cli.parser import Parser, config_argument
from broker.config import ConfigError, Sources, as_tree, as_variables, file_tree, load, written_as

__all__ = ["COMMANDS"]


def _genconfig(argv: Sequence[str]) -> int:
    parser = Parser("genconfig", "Write a small configuration file with fresh secrets, for its owner only.")
    config_argument(parser, "where to write")
    path = parser.parse_args(argv).config
    tree = {
        "client": {"token": {"hmac_secret_key": secrets.token_urlsafe(64)}, "allowed_origins": []},
        "admin": {"enabled": False, "password": secrets.token_urlsafe(16), "secret": secrets.token_urlsafe(64)},
        "http_api": {"key": secrets.token_urlsafe(64)},
    }
    return _write_new(path, tree)


def _checkconfig(argv: Sequence[str]) -> int:
    parser = Parser("checkconfig", "Check a configuration file, as a start would. Silent when all is well.")
    config_argument(parser)
    parser.add_argument("-s", "--strict", action="store_true", help="unknown keys are errors, too")
    arguments = parser.parse_args(argv)
    try:
        loaded = load(Sources(file=arguments.config))
    except ConfigError as error:
        print("error validating config:", *error.problems, sep="\n  ")
        return 1
    if loaded.file_keys is None:
        print("config file not found")
        return 1
    print(*(f"warning: {line}" for line in loaded.advice), sep="\n", end="\n" if loaded.advice else "", file=sys.stderr)
    if arguments.strict and loaded.unknown_keys:
        print(f"unknown keys in config: {', '.join(loaded.unknown_keys)}")
        return 1
    return 0


def _defaultconfig(argv: Sequence[str]) -> int:
    parser = Parser("defaultconfig", "Write every option with its default, or with what a base file says.")
    config_argument(parser, "where to write")
    parser.add_argument("-b", "--base", type=Path, metavar="FILE", help="a configuration file to start from")
    parser.add_argument("-d", "--dry-run", action="store_true", help="print it instead")
    arguments = parser.parse_args(argv)
    try:
        tree = as_tree(load(Sources(file=arguments.base)).config)
        if arguments.dry_run:
            print(written_as(arguments.config)(tree), end="")
            return 0
    except ConfigError as error:
        return _fail(*error.problems)
    return _write_new(arguments.config, tree)


def _defaultenv(argv: Sequence[str]) -> int:
    parser = Parser("defaultenv", "Print every option as an environment variable, with its default.")
    parser.add_argument("-b", "--base", type=Path, metavar="FILE", help="a configuration file to start from")
    parser.add_argument("--base-non-zero-only", action="store_true", help="only what the base file sets")
    arguments = parser.parse_args(argv)
    try:
        config = load(Sources(file=arguments.base)).config
        only = (file_tree(arguments.base) if arguments.base else {}) if arguments.base_non_zero_only else None
    except ConfigError as error:
        return _fail(*error.problems)
    for line in as_variables(config, only):
        print(line)
    return 0


def _write_new(path: Path, tree: Mapping[str, Any]) -> int:
    """Write a file that must not be there yet, readable by its owner only: it holds secrets."""
    try:
        text = written_as(path)(tree)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except ConfigError as error:
        return _fail(*error.problems)
    except FileExistsError:
        return _fail(f"{path}: the file exists already")
    except OSError as error:
        return _fail(f"{path}: {error.strerror}")
    return 0


def _fail(*problems: str) -> int:
    for problem in problems:
        print(f"error: {problem}")
    return 1


COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = {
    "genconfig": _genconfig,
    "checkconfig": _checkconfig,
    "defaultconfig": _defaultconfig,
    "defaultenv": _defaultenv,
}
