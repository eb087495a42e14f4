"""Fixtures for the client: a scripted server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from tests.client.scripted import ScriptedServer


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[ScriptedServer]:
    """No script is left unfinished when the test ends. Tests ask for `autojump_clock` too: pytest-trio wants it so."""
    server = ScriptedServer(nursery)
    async with server.finished():
        yield server
