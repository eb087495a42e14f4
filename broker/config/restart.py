"""What a reload does not change: options that are read once, at the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from broker.config.root import Config

__all__ = ["after_reload", "waits_for_restart"]

_RELOADED: Final = frozenset({"client", "channel", "rpc", "proxies", "hooks"})
"""Sections from which the rules of sessions are made (broker/rules.py), but for:"""
_AT_START: Final = frozenset(
    f"client.{name}"
    for name in (
        "allowed_origins",
        "connection_limit",
        "connection_rate_limit",
        "queue_max_size",
        "user_id_http_header",
    )
)


def waits_for_restart(running: Config, fresh: Config) -> list[str]:
    """Paths of the options that differ in `fresh`, and that the process goes on with as it was started."""
    return [
        path
        for path in _differences("", running, fresh)
        if path.partition(".")[0] not in _RELOADED or path in _AT_START
    ]


def after_reload(running: Config, fresh: Config) -> Config:
    """What a process that was started with `running` goes by once it has taken `fresh`."""
    at_start = {path.partition(".")[2] for path in _AT_START}
    client = attrs.evolve(fresh.client, **{name: getattr(running.client, name) for name in at_start})
    return attrs.evolve(running, **{name: getattr(fresh, name) for name in _RELOADED} | {"client": client})


def _differences(path: str, one: Any, other: Any) -> Iterator[str]:
    """Leaves, by their paths and never by their values: those may be secret."""
    if one == other:
        return
    if attrs.has(type(one)) and type(one) is type(other):
        for field in attrs.fields(type(one)):
            here = f"{path}.{field.name}" if path else field.name
            yield from _differences(here, getattr(one, field.name), getattr(other, field.name))
    else:
        yield path
