"""The page for newcomers: our own switch, used in development settings."""

from __future__ import annotations

from typing import final

import attrs


@final
@attrs.frozen(kw_only=True)
class DevOptions:
    """The `dev` section, which Centrifugo does not have."""

    enabled: bool = False
    """Serve the page on which one types in one tab and reads in another, at `/`."""
