"""A SockJS session as a link: whose turn it is."""

from __future__ import annotations

import pytest

from broker.eager import begin, go_on
from broker.hub import TimerWheel
from broker.transports.sockjs.session import SessionLink

pytestmark = pytest.mark.virtual_time


class Taker:
    """Takes what the link was given."""

    def __init__(self, link: SessionLink) -> None:
        self._link = link
        self.taken: list[bytes | None] = []

    def readable(self) -> None:
        self.taken.append(self._link.receive())

    def crashed(self) -> None:
        raise AssertionError


async def test_a_turn_that_comes_before_the_task_that_was_to_wait_for_it() -> None:
    link = SessionLink(TimerWheel(), "", limit=1000, heartbeat=0, forget=lambda: None)
    taker = Taker(link)
    link.connection = taker  # type: ignore[assignment]
    delivery = link.deliver(b"frame")
    assert begin(delivery) == (False, None)
    link.resume()
    assert await go_on(delivery)
    assert taker.taken == [b"frame"]
