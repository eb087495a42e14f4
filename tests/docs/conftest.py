"""Guides are tried on a real daemon: the fixture of the other tests with real processes."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import StartBroker, broker_process
from tests.e2e.daemon import Daemon

__all__ = ["broker_process"]


@pytest.fixture
async def daemon(broker_process: StartBroker) -> Daemon:
    """What `make run` starts, on a port of its own."""
    return await broker_process(args=["--dev"])
