"""A server without descriptors left looks away for a moment, says so now and then, and goes on (T16)."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest
import trio

from tests.e2e.conftest import StartBroker, broker_process
from tests.support.patience import PATIENCE

__all__ = ["broker_process"]

pytestmark = pytest.mark.e2e

LIMIT = 64
CLIENTS = 200


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def test_more_connections_than_descriptors(broker_process: StartBroker) -> None:
    daemon = await broker_process()
    daemon.allow_error("cannot accept connections")
    pid = daemon.process.pid
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    streams = [await trio.open_tcp_stream("127.0.0.1", daemon.outside) for _ in range(CLIENTS)]
    await daemon.wait_log("cannot accept connections")
    before, since = cpu_seconds(pid), trio.current_time()
    await daemon.wait_log("cannot accept connections", count=3)
    assert trio.current_time() - since > 1.5, "it complains once a second"
    assert cpu_seconds(pid) - before < 1, "in two seconds"

    for stream in streams[: CLIENTS - 10]:
        await stream.aclose()
    with trio.fail_after(PATIENCE):
        answer = await daemon.get("/health")
    assert answer.status == 200
    # those that waited were not lost
    last = streams[-1]
    await last.send_all(b"GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    with trio.fail_after(PATIENCE):
        assert re.match(rb"HTTP/1\.1 200 ", bytes(await last.receive_some()))
    for stream in streams[CLIENTS - 10 :]:
        await stream.aclose()
