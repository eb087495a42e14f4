"""The Autobahn suite against the handshake and frames (T01). Where it cannot run, `websockets` is the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from websockets.frames import Close, Frame, Opcode

from tests.e2e.autobahn import suite
from tests.e2e.autobahn.echo import serve
from tests.protocol.frames import CLOSE, CONTINUATION, PING, TEXT, frame
from tests.support.judge import Judge

FRAMES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
DEFLATE = ["12.1.1", "12.1.7", "12.1.13", "12.1.18", "13.1.9", "13.2.3", "13.7.3"]
"""12 and 13 are 216 cases of 1,000 messages each: these have small and large ones, fragments, and all that we agree to.
Offers that we decline (13.3 to 13.6 want a smaller window from us) are in tests/protocol/test_deflate.py."""

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


@pytest.fixture
async def echo_port(nursery: trio.Nursery) -> AsyncIterator[int]:
    listeners = await nursery.start(trio.serve_tcp, serve, 0)
    yield listeners[0].socket.getsockname()[1]
    nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def wstest() -> Path:
    try:
        return trio.run(suite.install)
    except suite.Unavailable as error:
        pytest.skip(str(error))


async def test_frames(wstest: Path, echo_port: int, tmp_path: Path) -> None:
    report = await suite.fuzz(wstest, tmp_path, echo_port, FRAMES)
    assert len(report) == 247
    assert {case: each for case, each in report.items() if not _good(each)} == {}


async def test_deflate(wstest: Path, echo_port: int, tmp_path: Path) -> None:
    report = await suite.fuzz(wstest, tmp_path, echo_port, DEFLATE)
    assert len(report) == len(DEFLATE)
    assert {case: each for case, each in report.items() if not _good(each)} == {}


def _good(case: dict[str, str]) -> bool:
    return case["behavior"] in GOOD and case["behaviorClose"] in GOOD


# ---- websockets as judge --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deflate", [False, True])
async def test_a_strict_peer_is_content(echo_port: int, deflate: bool) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", echo_port) as stream:
        peer = Judge(stream, deflate=deflate)
        response = await peer.open()
        assert ("Sec-WebSocket-Extensions" in response.headers) is deflate
        client = peer.protocol
        for size in (0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20):
            client.send_text(b"x" * size)
            assert await peer.talk(1) == [Frame(Opcode.TEXT, b"x" * size)]
            client.send_binary(bytes(size))
            assert await peer.talk(1) == [Frame(Opcode.BINARY, bytes(size))]
        client.send_text("é".encode()[:1], fin=False)
        client.send_ping(b"between")
        client.send_continuation("é".encode()[1:], fin=True)
        assert await peer.talk(2) == [Frame(Opcode.PONG, b"between"), Frame(Opcode.TEXT, "é".encode())]
        client.send_close(4000, "enough")
        assert await peer.wait_closed() == 4000
        assert client.close_rcvd == Close(4000, "")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"x", mask=None), 1002),
        (frame(TEXT, b"x", rsv=0x40), 1002),
        (frame(3), 1002),
        (frame(PING, fin=False), 1002),
        (frame(CONTINUATION), 1002),
        (frame(TEXT, size=1 << 25), 1009),
        (frame(CLOSE, b"\x03\xee"), 1002),
        (frame(CLOSE, b"\x03\xe8"), 1000),
        (frame(CLOSE), 1005),
    ],
)
async def test_a_strict_peer_gets_the_close_code(echo_port: int, data: bytes, code: int) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", echo_port) as stream:
        peer = Judge(stream)
        await peer.open()
        await peer.pour(data)
        assert await peer.wait_closed() == code
