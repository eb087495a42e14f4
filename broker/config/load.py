"""Loading: flag over environment over file over default, all problems at once (server API §1.1)."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

import attrs

from broker.config.advice import advice
from broker.config.dotenv import read_dotenv
from broker.config.env import Environment
from broker.config.errors import ConfigError
from broker.config.files import read_file
from broker.config.layers import lay_under, put, unknown_keys, unset_zeros
from broker.config.readers import Raw
from broker.config.root import Config
from broker.config.structure import structure
from broker.config.validate import check, with_pem_texts

__all__ = ["DEVELOPMENT", "Loaded", "Sources", "configure", "load", "reloader"]

DEVELOPMENT: Final[Mapping[str, Raw]] = {
    "http_server": {"address": "127.0.0.1"},
    "client": {
        "insecure": True,
        "allowed_origins": [
            f"{scheme}://{host}{port}"
            for scheme in ("http", "https")
            for host in ("localhost", "127.0.0.1", "[[]::1]")
            for port in ("", ":*")
        ],
    },
    "channel": {
        "without_namespace": {
            "presence": True,
            "join_leave": True,
            "history_size": 100,
            "history_ttl": "10m",
            "force_recovery": True,
        }
    },
    "sse": {"enabled": True},
    "http_stream": {"enabled": True},
    "sockjs": {"enabled": True},
    "uni_websocket": {"enabled": True},
    "uni_sse": {"enabled": True},
    "uni_http_stream": {"enabled": True},
    "http_api": {"insecure": True},
    "health": {"enabled": True},
    "prometheus": {"enabled": True},
    "dev": {"enabled": True},
}
"""Development settings: what holds with `--dev` where neither file, environment nor flag says otherwise.

Open to whoever can reach the port, so the port is on loopback, and only pages from this machine may connect.
"""


@final
@attrs.frozen(kw_only=True)
class Sources:
    """Where a configuration comes from. The same sources are read again for a reload, with the flags kept."""

    file: Path | None = Path("config.json")
    options: Mapping[str, Raw] | None = attrs.field(default=None, repr=False)
    """What a file would hold; given by programs, instead of one."""
    flags: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Texts by dotted path. A flag that was given counts even where it says zero."""
    environ: Mapping[str, str] = attrs.field(factory=lambda: os.environ, repr=False)
    dotenv: Path = Path(".env")
    development: bool = False

    def frozen(self) -> Sources:
        """What they say now: the same at any later time, and in any other process.

        Raises:
            ConfigError: a file cannot be read.
        """
        if self.options is not None:
            content: dict[str, Raw] | None = copy.deepcopy(dict(self.options))
        else:
            content = read_file(self.file) if self.file else None
        environ = {**read_dotenv(self.dotenv), **self.environ}
        return attrs.evolve(self, file=None, options=content, environ=environ, dotenv=_NOWHERE)


_NOWHERE: Final = Path(os.devnull)


@final
@attrs.frozen(kw_only=True)
class Loaded:
    """A valid configuration, and what its author should hear about."""

    config: Config
    sources: Sources
    """What it was made of, frozen."""
    file_keys: int | None
    """Sections in the file; None where there is no file."""
    unknown_keys: tuple[str, ...]
    unknown_env: tuple[str, ...]
    advice: tuple[str, ...]
    """What is insecure, or likely not meant."""

    @property
    def warnings(self) -> list[str]:
        """One line for each thing to be logged at start."""
        missing = (
            [] if self.file_keys is not None else ["config file not found, continue using environment and flag options"]
        )
        keys = [f"unknown key in configuration file: {key}" for key in self.unknown_keys]
        variables = [f"unknown var in environment: {name}" for name in self.unknown_env]
        return [*missing, *self.advice, *keys, *variables]


def load(sources: Sources, *, validate: bool = True) -> Loaded:
    """Read, type and validate. Without `validate` the keys have their types, and may ask for what is not there.

    Raises:
        ConfigError: with every bad key. Keys with a wrong type come first; rules between keys are checked when all
            have their types.
    """
    sources = sources.frozen()
    tree = copy.deepcopy(dict(sources.options or {}))
    file_keys = None if sources.options is None else len(sources.options)
    strangers = tuple(unknown_keys(tree, Config))
    unset_zeros(tree, Config)
    if sources.development:
        lay_under(tree, DEVELOPMENT)
    environment = Environment(sources.environ)
    environment.lay_over(tree, Config)
    for path, text in sources.flags.items():
        put(tree, path, text)
    config, problems = structure(tree)
    origins = environment.origins | {path: f"--{path}" for path in sources.flags}
    if problems := environment.problems + problems:
        raise ConfigError(_line(path, problem, origins) for path, problem in problems)
    if validate:
        config, problems = with_pem_texts(config)
        if problems := [*check(config), *problems]:
            raise ConfigError(_line(path, problem, origins) for path, problem in problems)
    return Loaded(
        config=config,
        sources=sources,
        file_keys=file_keys,
        unknown_keys=strangers,
        unknown_env=tuple(environment.unknown()),
        advice=tuple(advice(config)),
    )


def _line(path: str, problem: str, origins: Mapping[str, str]) -> str:
    origin = f" (from {origins[path]})" if path in origins else ""
    return f"{path}: {problem}{origin}"


def configure(options: Mapping[str, Any], *, flags: Mapping[str, str] | None = None) -> Config:
    """A configuration made by a program: `options` are what `config.json` would hold. The environment has no say, and
    unknown keys are errors.

    Raises:
        ConfigError: with every bad key.
    """
    loaded = load(Sources(file=None, options=options, flags=flags or {}, environ={}, dotenv=_NOWHERE))
    if loaded.unknown_keys:
        raise ConfigError(f"{key}: unknown key" for key in loaded.unknown_keys)
    return loaded.config


def reloader(sources: Sources, first: Loaded) -> Callable[[], Loaded]:
    """A function that reads the same sources again, for SIGHUP (server API §1.4).

    It is stricter than a start, since nobody watches: a file that was there must be there and not be empty (an editor
    may be at it), and a key that was not unknown at start must not be unknown now. It gives the whole new
    configuration or raises `ConfigError`.
    """

    def reload() -> Loaded:
        loaded = load(sources)
        if first.file_keys and not loaded.file_keys:
            raise ConfigError([f"{sources.file}: the file is {'gone' if loaded.file_keys is None else 'empty'}"])
        if new := [key for key in loaded.unknown_keys if key not in first.unknown_keys]:
            raise ConfigError(f"{key}: unknown key" for key in new)
        return loaded

    return reload
