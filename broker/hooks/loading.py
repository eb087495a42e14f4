"""Importing the application's hooks, and importing them anew: `hooks = "package.module:attribute"`.

A reload takes the application's own modules out of `sys.modules` and imports them again, so that what they import of
each other is new as well. Calls under way go on with the old code. If the new code cannot be imported, the old modules
are put back, and nothing has changed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Final, final

import attrs

from broker.hooks.app import Hooks

__all__ = ["HooksError", "LoadedHooks", "load_hooks"]

_NOT_THEIRS: Final = frozenset({"site-packages", "dist-packages"})


class HooksError(Exception):
    """The application's hooks cannot be had, and why, in one line. The error of their code is its cause."""


@final
@attrs.frozen
class LoadedHooks:
    """What an import gave. `stamps` are the application's files with the times of their last change."""

    spec: str
    app: Hooks
    modules: Mapping[str, ModuleType] = attrs.field(repr=False)
    stamps: Mapping[Path, int] = attrs.field(repr=False)

    def stamps_now(self) -> dict[Path, int]:
        """The same as `stamps`, looked up again."""
        return {file: _stamp(file) for file in self.stamps}


def load_hooks(spec: str, old: LoadedHooks | None = None) -> LoadedHooks:
    """Import `package.module:attribute`, looked for from the working directory on; anew if there is an `old` one.

    Raises:
        HooksError: it cannot be imported, or is not a `Hooks`.
    """
    name, colon, attribute = spec.partition(":")
    if not colon or not name or not attribute:
        raise HooksError(f'hooks: not "package.module:attribute": "{spec}"')
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    taken = {each: sys.modules.pop(each) for each in (old.modules if old is not None else ()) if each in sys.modules}
    before = set(sys.modules)
    importlib.invalidate_caches()
    try:
        app = _imported(spec, name, attribute)
    except HooksError:
        for each in set(sys.modules) - before:
            if each in taken or each == name:
                del sys.modules[each]
        sys.modules.update(taken)
        raise
    modules = _theirs(name)
    files = {Path(module.__file__) for module in modules.values() if module.__file__ is not None}
    return LoadedHooks(spec, app, modules, {file: _stamp(file) for file in files})


def _imported(spec: str, name: str, attribute: str) -> Hooks:
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise HooksError(f'hooks: cannot import "{name}": {type(error).__name__}: {error}') from error
    app = getattr(module, attribute, None)
    if not isinstance(app, Hooks):
        raise HooksError(f'hooks: "{spec}" is not a broker.hooks.Hooks')
    return app


def _theirs(name: str) -> dict[str, ModuleType]:
    """The modules of the application: those that lie where its first one does, and nobody installed."""
    top = sys.modules[name.partition(".")[0]]
    roots = [Path(path) for path in getattr(top, "__path__", ())]
    root = roots[0].parent if roots else Path(top.__file__ or ".").parent
    found = {}
    for each, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or each.partition(".")[0] in {"broker", "__main__"}:
            continue
        path = Path(file)
        if path.is_relative_to(root) and not _NOT_THEIRS.intersection(path.parts):
            found[each] = module
    return found


def _stamp(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0  # an editor is about to put a new one there
