"""WebSocket conversations: close codes, the closing handshake from both sides, control frames, peers that are slow."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from broker.protocol import codes
from tests.support.clock import seconds
from tests.support.peers import (
    INSECURE,
    NO_PINGS,
    WALL,
    House,
    RawClient,
    masked,
    open_house,
    options,
    secured,
    token,
)

pytestmark = pytest.mark.virtual_time

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(payload: bytes = b"", opcode: int = TEXT, *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    """One client frame, which may be wrong."""
    whole = bytearray(masked(payload, opcode))
    whole[0] = (0x80 if fin else 0) | rsv | opcode
    if not mask:
        return bytes((whole[0], len(payload))) + payload
    return bytes(whole)


async def all_of(stream: Any) -> bytes:
    came = b""
    while data := await stream.receive_some():
        came += data
    return came


async def closing(client: RawClient) -> bytes:
    """What the server sends until it ends the connection."""
    came, client.buffer = client.buffer, b""
    return came + await all_of(client.stream)


def close(code: int, reason: str = "") -> bytes:
    """A close frame of the server."""
    payload = code.to_bytes(2, "big") + reason.encode()
    return bytes((0x88, len(payload))) + payload


# ---- peers that break the rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"{}", mask=False), 1002),
        (frame(b"{}", rsv=0x40), 1002),
        (frame(b"{}", rsv=0x20), 1002),
        (frame(b"{}", rsv=0x10), 1002),
        (frame(b"{}", 3), 1002),
        (frame(b"{}", 11), 1002),
        (frame(b"", 0), 1002),
        (frame(b"{", fin=False) + frame(b"}"), 1002),
        (frame(b"", PING, fin=False), 1002),
        (frame(b"x" * 126, PING), 1002),
        (frame(b"\x03", CLOSE), 1002),
        (frame(b"\x03\xed", CLOSE), 1002),  # 1005
        (frame(b"\x03\xe8\xff", CLOSE), 1007),
        (frame(b"\xff"), 1007),
        (frame(b'"\xe2\x82', fin=False) + frame(b'"', 0), 1007),
        (frame(b"x" * 65537), 1009),
        (frame(b"x" * 65536, fin=False) + frame(b"x", 0), 1009),
        (frame(b"x" * 3_000_000), 1009),
        (frame(b"", fin=False) + frame(b"", 0, fin=False) * 2000, 1009),
    ],
)
async def test_who_breaks_the_rules_is_told_and_nobody_else_notices(sent: bytes, code: int) -> None:
    async with open_house(INSECURE) as house:
        other, client = await house.connected(), await house.connected()
        await client.stream.send_all(sent)
        with trio.fail_after(1):
            while client.closed is None:
                await client.arrived()
        assert client.closed[0] == code
        await client.leave()
        assert (await other.ask(rpc={}))["error"]["code"] == 108


async def test_a_peer_that_goes_on_sending_what_is_too_big_still_hears_why() -> None:
    """The rest is read and thrown away, for five seconds."""
    async with open_house(INSECURE) as house:
        client = await house.client(lockstep=True)
        await trio.testing.wait_all_tasks_blocked()  # the handshake has left
        came: list[bytes] = []

        async def read() -> None:
            came.append(await closing(client))

        with seconds(5, within=0.2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                with pytest.raises(trio.BrokenResourceError):
                    await send_for_ever(client, frame(b"x" * 100_000)[:1000])
        assert came == [close(1009)]


async def send_for_ever(client: RawClient, data: bytes) -> None:
    while True:
        await client.stream.send_all(data)
        await trio.sleep(0.1)


# ---- the closing handshake -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", b"\x88\x00"),
        (b"\x03\xe8", close(1000)),
        (b"\x03\xe9going away", close(1001)),
        (b"\x0f\xa0mine", close(4000)),
    ],
)
async def test_a_client_that_closes_is_answered_and_gone_at_once(sent: bytes, answered: bytes) -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        with seconds(0):
            await client.send_frame(sent, CLOSE)
            assert await closing(client) == answered
        assert house.server.node.registry.clients == {}


async def test_commands_before_a_close_are_carried_out_and_those_behind_it_are_not() -> None:
    async with open_house(INSECURE) as house:
        other, client = await house.connected(), await house.connected()
        await other.ask(subscribe={"channel": "a"})
        publish = [frame(b'{"id":2,"publish":{"channel":"a","data":%d}}' % n) for n in (1, 2)]
        await client.stream.send_all(publish[0] + frame(b"\x03\xe8", CLOSE) + publish[1])
        assert close(1000) in await closing(client)
        assert (await other.push())["pub"]["data"] == 1
        await other.nothing()


async def end(house: House, client: RawClient) -> None:
    house.server.node.registry.clients[client.hello["client"]].disconnect(codes.FORCE_DISCONNECT)


async def test_the_server_closes_and_the_client_answers() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        with seconds(2):
            await end(house, client)
            assert await client.stream.receive_some() == close(3503, "force disconnect")
            await trio.sleep(2)
            await client.send_frame(b"\x0d\xaf", CLOSE)
            assert await client.stream.receive_some() == b""


async def test_an_answer_that_has_come_already_counts() -> None:
    """It stands behind a command that was never read."""
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.stream.send_all(
            frame(b'{"id":5,"connect":{}}') + frame(b'{"id":6,"rpc":{}}') + frame(b"\x0d\xad", CLOSE)
        )
        with seconds(0):
            assert await closing(client) == close(3501, "bad request")


async def test_a_client_that_does_not_answer_has_five_seconds() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        with seconds(5):
            await end(house, client)
            assert await closing(client) == close(3503, "force disconnect")


async def test_what_comes_instead_of_an_answer_does_not_count() -> None:
    async with open_house(INSECURE) as house:
        other, client = await house.connected(), await house.connected()
        await other.ask(subscribe={"channel": "a"})
        await end(house, client)
        with seconds(5):
            for _ in range(40):
                await client.send_frame(b'{"id":2,"publish":{"channel":"a","data":1}}')
            assert await closing(client) == close(3503, "force disconnect")
        await other.nothing()


async def test_a_client_that_answers_with_nonsense_is_not_argued_with() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await end(house, client)
        assert await client.stream.receive_some() == close(3503, "force disconnect")
        await client.stream.send_all(b"\xff\xff\xff\xff")
        assert await client.stream.receive_some() == b""


async def test_a_client_that_only_goes_leaves_nothing() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.ask(subscribe={"channel": "a"})
        await client.leave()
        with seconds(0):
            await trio.testing.wait_all_tasks_blocked()
        assert house.server.doors.connections == set()
        assert house.server.node.registry.clients == {}


# ---- other frames ----------------------------------------------------------------------------------------------------


async def test_pings_are_answered_with_their_payload_also_between_fragments() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.stream.send_all(
            frame(b"", PING)
            + frame(b'{"id":2,', fin=False)
            + frame(b"payload", PING)
            + frame(b"", 0, fin=False)
            + frame(b'"rpc":{}}', 0)
            + frame(b"unasked", PONG)
        )
        came = await client.stream.receive_some()
        assert came.startswith(b"\x8a\x00\x8a\x07payload\x81")
        assert b'"id":2' in came


async def test_commands_come_in_text_or_binary_frames() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.send_frame(b'{"id":7,"rpc":{}}', BINARY)
        assert (await client.next())["id"] == 7


async def test_an_empty_message_is_a_bad_request() -> None:
    async with open_house(INSECURE) as house:
        client = await house.connected()
        await client.send_frame(b"")
        assert (await client.wait_closed())[0] == 3501


# ---- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [b"", frame(b'{"id":1,', fin=False), frame(b"unasked", PONG)], ids=["silence", "half a message", "a pong"]
)
async def test_a_connection_without_connect_has_ten_seconds(sent: bytes) -> None:
    async with open_house(INSECURE) as house:
        client = await house.client()
        with seconds(10):
            await client.stream.send_all(sent)
            while client.closed is None:
                await client._read()
        assert client.closed == (3502, "stale")


async def test_a_client_whose_connect_was_refused_has_five_seconds_to_leave_and_is_not_heard() -> None:
    async with open_house(secured()) as house:
        client = await house.client()
        with seconds(5):
            assert (await client.ask(connect={"token": token("alice", exp=int(WALL) - 60)}))["error"]["code"] == 109
            await client.send({"id": 5, "rpc": {}})
            while client.closed is None:
                await client._read()
        assert client.closed[0] == 1006
        assert client.units == []


# ---- slow peers ------------------------------------------------------------------------------------------------------

QUEUE = 20_000


async def test_a_reader_that_stops_is_cut_off_by_what_waits_and_nobody_else_feels_it() -> None:
    async with open_house(options(client={**NO_PINGS, "queue_max_size": QUEUE})) as house:
        slow, other = await house.client(lockstep=True), await house.connected()
        await slow.ask(connect={})
        for client in (slow, other):
            await client.ask(subscribe={"channel": "a"})
        with seconds(0):
            for n in range(30):
                assert (await house.api("publish", channel="a", data="x" * 1000 + str(n))) == {"result": {}}
            await trio.testing.wait_all_tasks_blocked()
        assert house.server.node.counters.server_disconnects[3008] == 1
        assert list(house.server.node.registry.clients) == [other.hello["client"]]
        assert len([await other.push() for _ in range(30)]) == 30


async def test_a_reader_that_stops_is_cut_off_after_a_second() -> None:
    async with open_house(options(client={**NO_PINGS, "queue_max_size": QUEUE})) as house:
        slow, other = await house.client(lockstep=True), await house.connected()
        await slow.ask(connect={})
        for client in (slow, other):
            await client.ask(subscribe={"channel": "a"})
        await house.api("publish", channel="a", data=1)
        with seconds(1):
            while len(house.server.node.registry.clients) == 2:
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.01)
        assert house.server.node.counters.server_disconnects[3009] == 1
        assert (await other.push())["pub"]["data"] == 1
        assert len(house.server.doors.connections) == 1


async def test_a_reader_that_is_only_slow_is_not_cut_off() -> None:
    async with open_house(options(client={**NO_PINGS, "queue_max_size": QUEUE})) as house:
        slow = await house.client(lockstep=True)
        await slow.ask(connect={})
        await slow.ask(subscribe={"channel": "a"})
        for n in range(20):
            await house.api("publish", channel="a", data=n)
            await trio.sleep(0.9)
            assert (await slow.push())["pub"]["data"] == n


async def test_pings_to_a_peer_that_does_not_read_end_it_too() -> None:
    async with open_house(options(client={"ping_interval": "10s", "pong_timeout": "5s"})) as house:
        slow = await house.client(lockstep=True)
        await slow.ask(connect={})
        with trio.fail_after(17):
            while house.server.doors.connections:
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.1)
        assert house.server.node.counters.server_disconnects[3009] == 1
