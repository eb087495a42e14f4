"""Fixtures for tests with real processes: the daemon, the official SDKs, a relay that cuts wires."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
import trio

from tests.e2e.cluster import ClusterPool
from tests.e2e.daemon import Daemon, DaemonPool
from tests.e2e.relay import Relay
from tests.e2e.sdk import Programs, Sdk


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


class GetBroker(Protocol):
    def __call__(self, config: Mapping[str, Any] | None = None) -> Awaitable[Daemon]: ...


class StartBroker(Protocol):
    def __call__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        health_port: int | None = None,
    ) -> Awaitable[Daemon]: ...


@pytest.fixture(scope="session")
def daemon_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonPool]:
    pool = DaemonPool(tmp_path_factory.mktemp("daemons"))
    yield pool
    pool.close()


@pytest.fixture
def key() -> str:
    """A word of this test alone: channels are named with it where a daemon is shared."""
    return uuid4().hex[:12]


@pytest.fixture
async def broker(daemon_pool: DaemonPool) -> AsyncIterator[GetBroker]:
    """Gives a daemon with a configuration laid over `BASE_CONFIG`. Other tests use the same one, before and after.

    At the end of the test nothing of its clients is left in the daemon, and the log is free of errors.
    """
    used: list[Daemon] = []

    async def get(config: Mapping[str, Any] | None = None) -> Daemon:
        daemon = await daemon_pool.get(config or {})
        daemon.begin_test()
        used.append(daemon)
        return daemon

    yield get
    for daemon in used:
        try:
            await daemon.settle()
            daemon.check_log()
        except BaseException:
            daemon_pool.discard(daemon)
            raise


@pytest.fixture
async def broker_process(tmp_path: Path) -> AsyncIterator[StartBroker]:
    """Starts a daemon of this test's own. At the end it is stopped by SIGTERM and exits with status 0 in time."""
    daemons: list[Daemon] = []

    async def start(config: Mapping[str, Any] | None = None, **more: Any) -> Daemon:
        folder = tmp_path / f"broker{len(daemons)}"
        folder.mkdir()
        daemon = Daemon(folder, config or {}, **more)
        daemons.append(daemon)
        await daemon.ready()
        return daemon

    yield start
    try:
        for daemon in daemons:
            await daemon.settle()
            await daemon.stop()
            daemon.check_log()
    finally:
        for daemon in daemons:
            daemon.process.kill()
            daemon.process.wait()


class GetNodes(Protocol):
    def __call__(self, config: Mapping[str, Any]) -> Awaitable[list[Daemon]]: ...


@pytest.fixture(scope="session")
def cluster_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterPool]:
    pool = ClusterPool(tmp_path_factory.mktemp("clusters"))
    yield pool
    pool.close()


@pytest.fixture
async def nodes(cluster_pool: ClusterPool) -> AsyncIterator[GetNodes]:
    """Gives three daemons over one Redis that know each other. As with `broker`, others use them before and after."""
    used: list[Daemon] = []

    async def get(config: Mapping[str, Any]) -> list[Daemon]:
        daemons = await cluster_pool.get(config)
        for daemon in daemons:
            daemon.begin_test()
        used.extend(daemons)
        return daemons

    yield get
    try:
        for daemon in used:
            await daemon.settle()
            daemon.check_log()
    except BaseException:
        cluster_pool.discard()
        raise


@pytest.fixture(scope="session")
def sdk_programs() -> Iterator[Programs]:
    programs = Programs()
    yield programs
    programs.close()


class GetSdk(Protocol):
    def __call__(self, language: str, codec: str) -> Awaitable[Sdk]: ...


@pytest.fixture
async def get_sdk(
    sdk_programs: Programs,
    broker: GetBroker,
    broker_process: StartBroker,
    nodes: GetNodes,
    nursery: trio.Nursery,
) -> AsyncIterator[GetSdk]:
    """Gives an SDK. At the end of the test its clients disconnect, before any daemon is looked at."""
    used: list[tuple[str, Sdk]] = []

    async def get(language: str, codec: str) -> Sdk:
        sdk = Sdk(sdk_programs.get(language), codec)
        nursery.start_soon(sdk.run)
        used.append((language, sdk))
        return sdk

    yield get
    for language, sdk in used:
        try:
            await sdk.reset()
        except BaseException:
            sdk_programs.discard(language)
            raise
        finally:
            await sdk.aclose()


@pytest.fixture(params=["js-json", "js-protobuf", "python-json", "python-protobuf"])
async def sdk(request: pytest.FixtureRequest, get_sdk: GetSdk) -> Sdk:
    """Each official SDK with each codec."""
    return await get_sdk(*request.param.split("-"))


@pytest.fixture
async def relay_to(nursery: trio.Nursery) -> Callable[[Daemon], Awaitable[Relay]]:
    """Starts a relay in front of a daemon."""

    async def start(daemon: Daemon) -> Relay:
        relay = Relay(nursery, daemon.outside)
        await relay.start()
        return relay

    return start
