"""Configuration files: JSON, YAML and TOML, told apart by their extension (server API §1.1)."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from broker.config.errors import ConfigError
from broker.config.readers import Raw

__all__ = ["EXTENSIONS", "lower_keys", "read_file"]

_QUOTED: Final = re.compile(r"'[^']*'", re.DOTALL)


def _read_yaml(text: str) -> Raw:
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


_PARSERS: Final[Mapping[str, Callable[[str], Raw]]] = {
    ".json": json.loads,
    ".toml": tomllib.loads,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
}
EXTENSIONS: Final = tuple(_PARSERS)


def read_file(path: Path) -> dict[str, Raw] | None:
    """The keys of a file, in lower case; None where there is no file that can be read.

    Raises:
        ConfigError: the extension is unknown, or the text is not what it says.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ConfigError([f"{path}: unknown format; the name must end in {', '.join(EXTENSIONS)}"])
    try:
        text = path.read_text("utf-8-sig")
    except OSError:
        return None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text, at byte {error.start}"]) from None
    try:
        tree = parse(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError([f"{path}: {_place(error)}"]) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError([f"{path}: not an object with keys"])
    lowered: dict[str, Raw] = lower_keys(tree)
    return lowered


def _place(error: Exception) -> str:
    """What is wrong and where, without quoting the file: the line may hold a secret."""
    match error:
        case json.JSONDecodeError():
            return f"not JSON: {error.msg}, line {error.lineno}, column {error.colno}"
        case yaml.MarkedYAMLError(problem=str(problem), problem_mark=mark) if mark is not None:
            unquoted = _QUOTED.sub("'…'", problem)
            return f"not YAML: {unquoted}, line {mark.line + 1}, column {mark.column + 1}"
        case tomllib.TOMLDecodeError():
            return f"not TOML: {error}"
        case _:
            return f"cannot be read: {type(error).__name__}"


def lower_keys(raw: Any) -> Any:
    """Lower-case every key, and leave out what is null: both as Centrifugo reads its files."""
    match raw:
        case dict():
            return {str(key).lower(): lower_keys(value) for key, value in raw.items() if value is not None}
        case list():
            return [lower_keys(item) for item in raw]
        case _:
            return raw
