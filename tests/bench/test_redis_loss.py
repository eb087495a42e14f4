"""What W8 takes for lost, doubled or late, and what for lost with a word."""

from __future__ import annotations

import pytest

from broker.bench.journal import Wrong
from broker.bench.w8_redis_loss import Channel, Reader


@pytest.fixture
def channel() -> Channel:
    return Channel(0, "kept:0")


def taken(channel: Channel, *answers: bool) -> None:
    """Publications are posted, and the server takes them or not."""
    for answer in answers:
        number = channel.post()
        if answer:
            channel.taken.append(number)


def test_what_the_server_did_not_take_may_come_or_not(channel: Channel) -> None:
    taken(channel, True, False, False, True)
    without, within = Reader(channel), Reader(channel)
    for number in (0, 3):
        without.read(number)
    for number in (0, 1, 2, 3):
        within.read(number)
    for reader in (without, within):
        reader.end()
        assert (reader.lost, reader.behind) == (0, False)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0), (0, 2)])
def test_doubled_late_and_lost(channel: Channel, numbers: tuple[int, ...]) -> None:
    taken(channel, True, True, True)
    reader = Reader(channel)
    for number in numbers[:-1]:
        if number == 1 and reader.at < 0:
            reader.break_told()  # so that only what comes after it is wrong
        reader.read(number)
    with pytest.raises(Wrong):
        reader.read(numbers[-1])


def test_lost_at_the_end(channel: Channel) -> None:
    taken(channel, True, True)
    reader = Reader(channel)
    reader.read(0)
    assert reader.behind
    with pytest.raises(Wrong, match="1 publications were lost without a word"):
        reader.end()


def test_what_was_lost_before_a_break_that_was_told_is_counted_and_what_is_lost_after_it_is_wrong(
    channel: Channel,
) -> None:
    taken(channel, True, True, True)
    reader = Reader(channel)
    reader.read(0)
    reader.break_told()
    assert not reader.behind
    taken(channel, True, True, True)
    assert reader.behind
    reader.read(3)
    assert reader.lost == 2
    with pytest.raises(Wrong):
        reader.read(5)
