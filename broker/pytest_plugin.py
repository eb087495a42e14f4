"""Fixtures for the tests of applications: `broker_server`, and with pytest-trio `broker_in_memory`.

Loaded by pytest wherever trio-broker is installed, so nothing of the server is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

try:
    from pytest_trio import trio_fixture
except ImportError:
    trio_fixture = None

__all__ = ["broker_config", "broker_server"]


@pytest.fixture
def broker_config() -> dict[str, Any]:
    """What `config.json` would hold. Override it in a `conftest.py`, a module or a class."""
    return {}


@pytest.fixture
def broker_server(broker_config: dict[str, Any]) -> Iterator[Any]:
    """A `broker.testing.RunningServer`: a broker on a port of this machine, for one test."""
    from broker.testing import running_server

    with running_server(broker_config) as server:
        yield server


if trio_fixture is None:

    @pytest.fixture
    def broker_in_memory() -> None:
        """Says what is missing."""
        pytest.fail("broker_in_memory is for tests on Trio: pip install pytest-trio", pytrace=False)

else:

    @trio_fixture  # type: ignore[untyped-decorator]
    async def broker_in_memory(broker_config: dict[str, Any]) -> AsyncIterator[Any]:
        """A `broker.testing.MemoryServer`: no sockets, and a clock that jumps to the next deadline."""
        from broker.testing import open_memory_server

        async with open_memory_server(broker_config) as server:
            yield server  # noqa: ASYNC119 (pytest-trio ends it)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a broker in memory run in virtual time."""
    for item in items:
        if trio_fixture is not None and "broker_in_memory" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=_run_in_virtual_time), append=False)


def _run_in_virtual_time(test: Callable[[], Coroutine[Any, Any, None]], **options: Any) -> None:
    import trio.testing

    trio.run(test, **{**options, "clock": trio.testing.MockClock(autojump_threshold=0)})
