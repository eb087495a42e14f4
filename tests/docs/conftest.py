"""Guides are tried on what `make run` starts: one daemon with development settings, on a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.daemon import Daemon

SWITCHED_ON = {"sockjs": {"enabled": True}}
"""What guides say how to switch on."""


@pytest.fixture(scope="session")
def development_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path_factory.mktemp("development"), SWITCHED_ON, args=["--dev"])
    yield daemon
    daemon.stop_sync()


@pytest.fixture
async def daemon(development_daemon: Daemon) -> AsyncIterator[Daemon]:
    await development_daemon.ready()
    development_daemon.begin_test()
    yield development_daemon
    await development_daemon.settle()
    development_daemon.check_log()
