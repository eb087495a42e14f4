"""Layers of keys, one over the other, before they have types: nested mappings as files hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from broker.config.readers import (
    Raw,
    read_bool,
    read_duration,
    read_int,
    read_list,
    read_map,
    read_text,
)
from broker.config.schema import Key, keys_of, label
from broker.values import Duration, Pem, Secret

__all__ = ["SCALARS", "lay_under", "put", "unknown_keys", "unset_zeros"]

SCALARS: Final[Mapping[Any, Callable[[Raw], Any]]] = {
    str: read_text,
    bool: read_bool,
    int: read_int,
    Duration: read_duration,
    Secret: lambda raw: Secret(read_text(raw)),
    Pem: lambda raw: Pem(read_text(raw)),
}
"""How a leaf of each type is read."""


def unset_zeros(tree: dict[str, Raw], section: type) -> None:
    """Take out of a file's keys what is zero, empty or false: to Centrifugo that is the same as not set.

    What cannot be read stays, to be complained about later. Single objects become lists where a list belongs.
    """
    for key in keys_of(section).values():
        if key.name not in tree:
            continue
        raw = tree[key.name]
        if key.section is not None:
            if isinstance(raw, dict):
                unset_zeros(raw, key.section)
        elif key.item is not None:
            items = tree[key.name] = read_list(raw)
            for item in items:
                if isinstance(item, dict):
                    unset_zeros(item, key.item)
        elif _is_zero(key, raw):
            del tree[key.name]


def _is_zero(key: Key, raw: Raw) -> bool:
    try:
        if key.many:
            return not read_list(raw)
        if key.mapping:
            return not read_map(raw)
        return not SCALARS[key.type](raw)
    except ValueError:
        return False


def unknown_keys(tree: Mapping[str, Raw], section: type, path: str = "") -> Iterator[str]:
    """The paths of keys that no option goes by."""
    known = keys_of(section)
    for name, raw in tree.items():
        here = path + (name if name.isprintable() else ascii(name))
        if name not in known:
            yield here
        elif (below := known[name].section) is not None and isinstance(raw, Mapping):
            yield from unknown_keys(raw, below, f"{here}.")
        elif (item_type := known[name].item) is not None:
            for index, item in enumerate(read_list(raw)):
                if isinstance(item, Mapping):
                    yield from unknown_keys(item, item_type, f"{here}{label(item, index)}.")


def lay_under(tree: dict[str, Raw], base: Mapping[str, Raw]) -> None:
    """Add what `tree` does not say from `base`."""
    for name, raw in base.items():
        if isinstance(raw, Mapping):
            below = tree.setdefault(name, {})
            if isinstance(below, dict):
                lay_under(below, raw)
        else:
            tree.setdefault(name, raw)


def put(tree: dict[str, Raw], path: str, raw: Raw) -> None:
    """Set one key by its dotted path."""
    *sections, name = path.split(".")
    for section in sections:
        below = tree.setdefault(section, {})
        if not isinstance(below, dict):
            return  # the section itself is wrong, and is complained about
        tree = below
    tree[name] = raw
