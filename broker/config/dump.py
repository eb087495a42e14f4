"""A configuration written out: as a file in each format, and as environment variables. Secrets are written, too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from broker.config.env import PREFIXES, in_env
from broker.config.errors import ConfigError
from broker.config.files import read_file
from broker.config.layers import unset_zeros
from broker.config.readers import Raw
from broker.config.root import Config
from broker.config.schema import Key, keys_of
from broker.durations import format_duration
from broker.values import Duration, Secret

__all__ = ["as_tree", "as_variables", "file_tree", "written_as"]

Tree = Mapping[str, Any]


def as_tree(options: Any) -> dict[str, Any]:
    """Typed options as a file holds them."""
    section: type = type(options)
    return {key.name: _plain(key, getattr(options, key.name)) for key in keys_of(section).values()}


def _plain(key: Key, value: Any) -> Any:
    if key.section is not None:
        return as_tree(value)
    if key.item is not None:
        return [as_tree(item) for item in value]
    if key.many:
        return [_text(item) for item in value]
    if key.mapping:
        return {name: _text(text) for name, text in value.items()}
    return format_duration(value) if key.type is Duration else _text(value)


def _text(value: Any) -> Any:
    """Secrets and PEM as plain texts, everything else as it is."""
    if isinstance(value, Secret):
        return value.reveal()
    return str(value) if isinstance(value, str) else value


def written_as(path: Path) -> Callable[[Tree], str]:
    """How the file's extension wants a tree written.

    Raises:
        ConfigError: the extension is unknown.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ConfigError([f"{path}: unknown format; the name must end in {', '.join(_WRITERS)}"])
    return writer


def _json(tree: Tree) -> str:
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _yaml(tree: Tree) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _toml(tree: Tree) -> str:
    return "\n".join(_toml_lines(tree, "")).lstrip("\n") + "\n"


def _toml_lines(tree: Tree, path: str) -> Iterator[str]:
    tables = {name: value for name, value in tree.items() if isinstance(value, dict)}
    arrays = {name: value for name, value in tree.items() if _is_array_of_tables(value)}
    for name, value in tree.items():
        if name not in tables and name not in arrays:
            yield f"{_toml_key(name)} = {_toml_value(value)}"
    for name, table in tables.items():
        here = f"{path}{_toml_key(name)}"
        yield f"\n[{here}]"
        yield from _toml_lines(table, f"{here}.")
    for name, items in arrays.items():
        here = f"{path}{_toml_key(name)}"
        for item in items:
            yield f"\n[[{here}]]"
            yield from _toml_lines(item, f"{here}.")


def _is_array_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _toml_key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").isalnum() else _toml_value(name)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_WRITERS: Final[Mapping[str, Callable[[Tree], str]]] = {
    ".json": _json,
    ".toml": _toml,
    ".yaml": _yaml,
    ".yml": _yaml,
}


def file_tree(path: Path) -> dict[str, Raw]:
    """What a file says that is not zero; nothing where there is no file.

    Raises:
        ConfigError: the file cannot be read.
    """
    tree = read_file(path) or {}
    unset_zeros(tree, Config)
    return tree


def as_variables(config: Config, only: Tree | None = None) -> list[str]:
    """The configuration as sorted `CENTRIFUGO_…=value` lines for a shell or a `.env` file.

    Args:
        config: what to write.
        only: where given, a tree of keys to write; all others are left out.
    """
    return sorted(_variables(config, PREFIXES[-1], only))


def _variables(options: Any, prefix: str, only: Tree | None) -> Iterator[str]:
    section: type = type(options)
    for key in keys_of(section).values():
        if only is not None and key.name not in only:
            continue
        value = getattr(options, key.name)
        name = prefix + key.name.upper()
        below = None if only is None else only[key.name]
        if key.section is not None:
            yield from _variables(value, f"{name}_", below)
            continue
        yield f"{name}={_variable(key, value)}"
        if key.named:
            kept = [None] * len(value) if below is None else below
            for item, only_of_item in zip(value, kept, strict=False):  # the environment may have added items
                yield from _variables(item, f"{name}_{in_env(item.name)}_", only_of_item)


_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r"})


def _variable(key: Key, value: Any) -> str:
    plain = _plain(key, value)
    if key.named:
        plain = " ".join(item["name"] for item in plain)
    elif key.item is not None or key.mapping:
        plain = json.dumps(plain)
    elif key.many:
        plain = " ".join(plain)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, int) or key.type is Duration:
        return str(plain)
    return f'"{plain.translate(_ESCAPES)}"'
