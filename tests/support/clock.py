"""Virtual time for a whole test module: `pytestmark = pytest.mark.virtual_time` (tests/conftest.py sees to it)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import trio
import trio.testing

__all__ = ["run_in_virtual_time"]

_LONGEST = 4 * 3600.0
"""Virtual seconds: a test that waits for what never comes would go on with pings for ever."""


def run_in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]], **options: Any) -> None:
    """`trio.run` with a clock that jumps to the next deadline whenever every task waits: no test truly sleeps."""

    async def bounded() -> None:
        with trio.fail_after(_LONGEST):
            await test()

    trio.run(bounded, **{**options, "clock": trio.testing.MockClock(autojump_threshold=0)})
