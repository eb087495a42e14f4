"""The fault proxy: each fault does what it says, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from tests.faults.proxy import Arrivals, Link, Proxy, Way, open_proxy
from tests.support.patience import PATIENCE


@attrs.define
class Setting:
    """A server that records what it reads, and answers each chunk in upper case unless it is silent."""

    proxy: Proxy
    server_streams: list[trio.SocketStream]

    async def client(self) -> tuple[trio.SocketStream, Link]:
        """A connection through the proxy, and its link."""
        before = self.proxy.accepted
        older = set(self.proxy.links)
        stream = await trio.open_tcp_stream("127.0.0.1", self.proxy.port)
        # the server may have it before the proxy knows that it was let in
        await until(lambda: self.proxy.accepted > before and len(self.server_streams) == self.proxy.accepted)
        await until(lambda: not older.issuperset(self.proxy.links))
        return stream, self.proxy.links[-1]


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not true():  # noqa: ASYNC110 (sockets of the kernel: nobody tells us)
            await trio.sleep(0.001)


async def quiet(stream: trio.SocketStream) -> bool:
    """Nothing comes, for long enough that it would have."""
    with trio.move_on_after(0.05) as waited:
        await stream.receive_some()
    return waited.cancelled_caught


@asynccontextmanager
async def open_setting() -> AsyncIterator[Setting]:
    streams: list[trio.SocketStream] = []

    async def echo(stream: trio.SocketStream) -> None:
        streams.append(stream)
        try:
            async for chunk in stream:
                await stream.send_all(chunk.upper())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        async with open_proxy(listeners[0].socket.getsockname()[1]) as proxy:
            with trio.fail_after(PATIENCE):
                yield Setting(proxy, streams)
        nursery.cancel_scope.cancel()


async def test_everything_passes_and_ends_when_the_client_ends() -> None:
    async with open_setting() as given:
        stream, link = await given.client()
        async with stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"HELLO"
            assert link.said(b"Hel")
            assert not link.said(b"world")
            await until(lambda: link.passed == {Way.UP: 5, Way.DOWN: 5})
            await stream.send_eof()
            assert await stream.receive_some() == b""
        await until(lambda: given.proxy.links == [])


async def test_a_delay_is_a_delay_each_way() -> None:
    async with open_setting() as given:
        given.proxy.delay = 0.05
        stream, _ = await given.client()
        async with stream:
            began = trio.current_time()
            await stream.send_all(b"a")
            assert await stream.receive_some() == b"A"
            assert trio.current_time() - began >= 0.1


async def test_what_a_stopped_link_holds_back_passes_in_order() -> None:
    async with open_setting() as given:
        stream, link = await given.client()
        async with stream:
            link.stop(Way.UP)
            await stream.send_all(b"one")
            assert await quiet(stream)
            await stream.send_all(b"two")
            link.go()
            got = b""
            while len(got) < 6:
                got += await stream.receive_some()
            assert got == b"ONETWO"


async def test_a_black_hole_hides_even_that_an_end_has_gone() -> None:
    async with open_setting() as given:
        stream, link = await given.client()
        async with stream:
            link.stop()
            await trio.aclose_forcefully(given.server_streams[0])
            assert await quiet(stream)
            link.go()
            assert await stream.receive_some() == b""


async def test_a_cut_is_an_end_and_a_reset_is_a_reset() -> None:
    async with open_setting() as given:
        first, link = await given.client()
        async with first:
            link.cut()
            assert await first.receive_some() == b""
        second, link = await given.client()
        async with second:
            link.reset()
            with pytest.raises(trio.BrokenResourceError):
                await second.receive_some()


async def test_a_cut_in_the_middle_of_a_message() -> None:
    async with open_setting() as given:
        stream, link = await given.client()
        async with stream:
            link.cut_after(3, Way.DOWN)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"HEL"
            assert await stream.receive_some() == b""


async def test_half_a_close_leaves_the_other_direction_open() -> None:
    async with open_setting() as given:
        stream, link = await given.client()
        async with stream:
            await link.half_close(Way.DOWN)
            assert await stream.receive_some() == b""
            await stream.send_all(b"still here")
            await until(lambda: link.passed[Way.UP] == 10)


async def test_newcomers_are_refused_or_swallowed() -> None:
    async with open_setting() as given:
        given.proxy.arrivals = Arrivals.REFUSED
        async with await trio.open_tcp_stream("127.0.0.1", given.proxy.port) as refused:
            with pytest.raises(trio.BrokenResourceError):
                await refused.receive_some()
        given.proxy.stop()
        async with await trio.open_tcp_stream("127.0.0.1", given.proxy.port) as swallowed:
            assert await quiet(swallowed)
            given.proxy.go()
            assert await quiet(swallowed)
        assert given.server_streams == []


async def test_a_server_that_is_away_is_a_reset() -> None:
    async with open_setting() as given:
        given.proxy.target = 1
        async with await trio.open_tcp_stream("127.0.0.1", given.proxy.port) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_bytes_can_be_lost_on_the_way() -> None:
    def forgetful() -> Callable[[bytes], bytes]:
        return lambda chunk: chunk.replace(b"secret", b"")

    async with open_setting() as given:
        given.proxy.rewrites[Way.UP] = forgetful
        stream, _ = await given.client()
        async with stream:
            await stream.send_all(b"a secret")
            assert await stream.receive_some() == b"A "


async def test_links_go_on_in_another_order_than_they_stopped() -> None:
    async with open_setting() as given:
        streams = [(await given.client())[0] for _ in range(6)]
        arrived: list[int] = []

        async def read(number: int) -> None:
            await streams[number].receive_some()
            arrived.append(number)

        links = tuple(given.proxy.links)
        for link in links:
            link.stop()
        async with trio.open_nursery() as nursery:
            for number, stream in enumerate(streams):
                await stream.send_all(b"x")
                nursery.start_soon(read, number)
            await given.proxy.swizzle(0.01)
        assert sorted(arrived) == list(range(6))
        assert arrived != list(range(6))
        for stream in streams:
            await stream.aclose()
