"""Environment variables: `CENTRIFUGO_` or `BROKER_`, and the path of a key in capitals (server API §1.2).

`BROKER_` wins where both are set. An empty variable counts as unset; one that holds a zero does not, unlike in files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, final

import attrs

from broker.config.files import lower_keys
from broker.config.layers import unset_zeros
from broker.config.readers import Raw, read_list, read_map
from broker.config.schema import Key, keys_of, label

__all__ = ["PREFIXES", "Environment", "in_env"]

PREFIXES: Final = ("BROKER_", "CENTRIFUGO_")
"""In the order in which they win."""
_FOREIGN: Final = re.compile(r"CENTRIFUGO_VAR_|(?:CENTRIFUGO|BROKER)(?:_[A-Z0-9_]+)?_(?:PORT|SERVICE_)")
"""Texts for `${…}`, and what Kubernetes sets for a service of our name."""
_VARIABLE: Final = re.compile(r"\$\{(CENTRIFUGO_VAR_[^}]+)}")


@final
@attrs.define
class Environment:
    """Lays the variables over the keys of a file.

    `problems` are pairs of path and sentence; `origins` tells which variable a path took its value from.
    """

    _environ: Mapping[str, str]
    problems: list[tuple[str, str]] = attrs.field(factory=list, init=False)
    origins: dict[str, str] = attrs.field(factory=dict, init=False)
    _known: set[str] = attrs.field(factory=set, init=False)

    def lay_over(self, tree: dict[str, Raw], section: type, path: str = "", prefix: str = "") -> None:
        """Write what the environment says into `tree`, the keys of `section`."""
        for key in keys_of(section).values():
            here, name = path + key.name, prefix + key.name.upper()
            if key.section is not None:
                below = tree.get(key.name, {})
                if isinstance(below, dict):
                    self.lay_over(below, key.section, f"{here}.", f"{name}_")
                    if below:
                        tree[key.name] = below
            elif key.item is not None:
                self._objects(tree, key, key.item, here, name)
            else:
                self._leaf(tree, key, here, name)

    def unknown(self) -> list[str]:
        """Variables with our prefixes that name no key, sorted. Ask after `lay_over`."""
        ours = (name for name in self._environ if name.startswith(PREFIXES))
        return sorted(name for name in ours if name not in self._known and not _FOREIGN.match(name))

    def _leaf(self, tree: dict[str, Raw], key: Key, path: str, name: str) -> None:
        if text := self._take(path, name):
            tree[key.name] = text.split() if key.many else text
        if key.mapping and key.name in tree:
            try:
                texts = read_map(tree.pop(key.name))
                tree[key.name] = {each: self._expand(value) for each, value in texts.items()}
            except ValueError as error:
                self.problems.append((path, str(error)))

    def _objects(self, tree: dict[str, Raw], key: Key, item_type: type, path: str, name: str) -> None:
        items = read_list(tree.get(key.name))
        if text := self._take(path, name):
            if not key.named or text.startswith("["):
                items = self._from_json(text, item_type, path)
            else:
                known = [item.get("name") for item in items if isinstance(item, dict)]
                items += [{"name": each} for each in text.split() if each not in known]
            tree[key.name] = items
        if key.named:
            for index, item in enumerate(items):
                if isinstance(item, dict) and isinstance(item.get("name"), str):
                    self.lay_over(item, item_type, f"{path}{label(item, index)}.", f"{name}_{in_env(item['name'])}_")

    def _from_json(self, text: str, item_type: type, path: str) -> list[Raw]:
        try:
            items = lower_keys(json.loads(text))
        except (ValueError, RecursionError):
            items = None
        if not isinstance(items, list):
            self.problems.append((path, "not a JSON array"))
            return []
        for item in items:
            if isinstance(item, dict):
                unset_zeros(item, item_type)
        return items

    def _take(self, path: str, name: str) -> str:
        """The text of a variable, or nothing."""
        variables = [prefix + name for prefix in PREFIXES]
        self._known.update(variables)
        for variable in variables:
            if text := self._environ.get(variable):
                self.origins[path] = variable
                return text
        return ""

    def _expand(self, text: str) -> str:
        """Replace `${CENTRIFUGO_VAR_NAME}`."""

        def value(found: re.Match[str]) -> str:
            if found[1] not in self._environ:
                raise ValueError(f"the variable {found[1]} is not set")
            return self._environ[found[1]]

        return _VARIABLE.sub(value, text)


def in_env(name: str) -> str:
    """The part of a variable's name that stands for an item of a list."""
    return name.upper().replace(".", "_").replace("-", "_")
