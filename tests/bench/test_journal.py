"""A server that loses, doubles or reorders is found out."""

from __future__ import annotations

import random

import pytest

from broker.bench.journal import Journal, Wrong
from broker.bench.marks import key_of


def keys(*numbers: int, channel: int = 0) -> bytes:
    return b"".join(b"%015d" % key_of(channel, number) for number in numbers)


def posted(count: int, *, in_turn: bool = False, channel: int = 0) -> Journal:
    journal = Journal(channel)
    for _ in range(count):
        number = journal.post()
        if in_turn:
            journal.answered(number)
    return journal


def test_what_all_read_in_one_order_is_right() -> None:
    journal = posted(5, channel=7)
    first = journal.follow(0, keys(1, 0, 2, channel=7))
    second = journal.follow(0, keys(1, channel=7))
    second = journal.follow(second, keys(0, 2, 3, channel=7))
    first = journal.follow(first, keys(3, 4, channel=7))
    assert journal.follow(second, keys(4, channel=7)) == first
    journal.verify()


def test_a_lost_publication() -> None:
    journal = posted(5)
    journal.follow(0, keys(0, 1, 3, 4))
    with pytest.raises(Wrong, match=r"lost 1 publications, \[2\]"):
        journal.verify()


def test_a_publication_that_one_reader_lost() -> None:
    journal = posted(3)
    journal.follow(0, keys(0, 1, 2))
    with pytest.raises(Wrong, match=r"reads \[2\] where another read \[1\]"):
        journal.follow(journal.follow(0, keys(0)), keys(2))


def test_a_doubled_publication() -> None:
    journal = posted(3)
    journal.follow(0, keys(0, 1, 1, 2))
    with pytest.raises(Wrong, match="publication 1 came twice"):
        journal.verify()


def test_a_publication_that_came_before_one_that_had_been_answered() -> None:
    journal = posted(3, in_turn=True)
    journal.follow(0, keys(0, 2, 1))
    with pytest.raises(Wrong, match="2 came before 1"):
        journal.verify()


def test_publications_under_way_together_come_in_any_order() -> None:
    journal = Journal(0)
    first, second = journal.post(), journal.post()
    journal.answered(second)
    third = journal.post()
    journal.answered(first)
    journal.follow(0, keys(third, second, first))
    journal.verify()


def test_a_publication_of_another_channel() -> None:
    journal = posted(1, channel=2)
    journal.follow(0, keys(0, channel=3))
    with pytest.raises(Wrong, match="none of this channel"):
        journal.verify()


@pytest.mark.parametrize("seed", range(20))
def test_broken_logs_of_any_kind(seed: int) -> None:
    """Drop, double or swap somewhere in what a serial server sent: it never passes."""
    chance = random.Random(seed)
    journal = posted(50, in_turn=True)
    numbers = list(range(50))
    at = chance.randrange(49)
    broken = [
        numbers[:at] + numbers[at + 1 :],
        numbers[: at + 1] + numbers[at:],
        [*numbers[:at], at + 1, at, *numbers[at + 2 :]],
    ][seed % 3]
    journal.follow(0, keys(*broken))
    with pytest.raises(Wrong):
        journal.verify()
