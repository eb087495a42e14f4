"""Fixtures for tests with real processes: the daemon, the official SDKs, a relay that cuts wires."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from tests.e2e.daemon import Daemon
from tests.e2e.relay import Relay
from tests.e2e.sdk import Sdk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


class StartBroker(Protocol):
    def __call__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        args: list[str] | None = None,
        health_port: int | None = None,
    ) -> Awaitable[Daemon]: ...


@pytest.fixture
async def broker_process(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[StartBroker]:
    """Starts the daemon with a configuration laid over `BASE_CONFIG`.

    At the end nothing of the clients is left in it, it ends well after SIGTERM, and its log is free of errors.
    """
    daemons: list[Daemon] = []

    async def start(
        config: Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        args: list[str] | None = None,
        health_port: int | None = None,
    ) -> Daemon:
        folder = tmp_path / f"broker{len(daemons)}"
        folder.mkdir()
        daemon = Daemon(folder, config or {}, env=env or {}, args=args or [], health_port=health_port)
        await daemon.start(nursery)
        daemons.append(daemon)
        return daemon

    yield start
    for daemon in daemons:
        await daemon.settle()
        await daemon.stop()


@pytest.fixture(params=["js-json", "js-protobuf", "python-json", "python-protobuf"])
async def sdk(request: pytest.FixtureRequest, broker_process: StartBroker, nursery: trio.Nursery) -> AsyncIterator[Sdk]:
    """Each official SDK with each codec. Ends before the daemon does."""
    program = Sdk(*request.param.split("-"))
    await program.start(nursery)
    yield program
    await program.stop()


@pytest.fixture
async def relay_to(nursery: trio.Nursery) -> Callable[[Daemon], Awaitable[Relay]]:
    """Starts a relay in front of a daemon."""

    async def start(daemon: Daemon) -> Relay:
        relay = Relay(nursery, daemon.port)
        await relay.start()
        return relay

    return start
