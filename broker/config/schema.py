"""The keys that the options classes define, for everything that walks over a configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, final, get_args, get_origin

import attrs

__all__ = ["Key", "keys_of", "label", "values_at"]


@final
@attrs.frozen
class Key:
    """One key of a section.

    `section` is the class of a nested section, `item` that of the objects in a list; otherwise it is a leaf of the
    type `type`.
    """

    name: str
    type: Any
    section: type | None
    item: type | None

    @property
    def named(self) -> bool:
        """Whether the objects of the list go by their `name`."""
        return self.item is not None and "name" in keys_of(self.item)

    @property
    def many(self) -> bool:
        """Whether the leaf is a list of texts."""
        return self.item is None and get_origin(self.type) is tuple

    @property
    def mapping(self) -> bool:
        """Whether the leaf is a mapping of names to texts."""
        return get_origin(self.type) is dict


@cache
def keys_of(section: type) -> Mapping[str, Key]:
    """The keys of an options class, in the order in which they are written: a `name` first."""
    keys = {field.name: _key(field.name, field.type) for field in attrs.fields(attrs.resolve_types(section))}
    return {name: keys[name] for name in sorted(keys, key=lambda name: name != "name")}


def _key(name: str, annotation: Any) -> Key:
    item: Any = get_args(annotation)[0] if get_origin(annotation) is tuple else None
    return Key(
        name,
        annotation,
        section=annotation if attrs.has(annotation) else None,
        item=item if attrs.has(item) else None,
    )


def label(item: Any, index: int) -> str:
    """How an item of a list is shown in a path: by its name, or by its place where it has none."""
    name = item.get("name") if isinstance(item, Mapping) else getattr(item, "name", None)
    return f"[{name if isinstance(name, str) and name and name.isprintable() and len(name) < 100 else index}]"


def values_at(options: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All values at a dotted path of structured options, each with the path as users write it.

    `*` stands for the items of a list: `channel.namespaces.*.presence` gives `channel.namespaces[chat].presence`.
    """
    places: list[tuple[str, Any]] = [("", options)]
    for step in path.split("."):
        if step == "*":
            places = [(shown + label(item, index), item) for shown, items in places for index, item in enumerate(items)]
        else:
            places = [(f"{shown}.{step}" if shown else step, getattr(value, step)) for shown, value in places]
    yield from places
