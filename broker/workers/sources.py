"""Frozen sources of a configuration on their way to another process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.config import Sources

__all__ = ["as_data", "from_data"]


def as_data(frozen: Sources) -> dict[str, Any]:
    """What JSON can hold. The environment is not in it: the other process has the same, and what `.env` adds is."""
    return {
        "options": frozen.options,
        "flags": dict(frozen.flags),
        "environ": {name: text for name, text in frozen.environ.items() if name.startswith(("BROKER_", "CENTRIFUGO_"))},
        "development": frozen.development,
    }


def from_data(data: Mapping[str, Any]) -> Sources:
    """The reverse of `as_data`."""
    return Sources(file=None, dotenv=Path("/dev/null"), **data)
