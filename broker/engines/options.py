"""Which engine keeps history and presence."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class EngineOptions:
    """The `engine` section, without the settings of engines that are not in this version."""

    type: str = "memory"
