"""The rules of recovery by themselves: whatever an engine answers, and in whatever order things were published."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.hub import HistoryPage
from broker.protocol import Publication, StreamPosition
from broker.sessions.recovery import Gap, merge, recover_cache, recover_stream


def pubs(*offsets: int) -> list[Publication]:
    return [Publication(b"%d" % offset, offset=offset) for offset in offsets]


@pytest.mark.parametrize(
    ("read", "top", "since", "recovered"),
    [
        ((4, 5), 5, StreamPosition(3, "e"), True),
        ((4, 5), 5, StreamPosition(3, ""), True),
        ((4, 5), 5, StreamPosition(3, "other"), False),
        ((4, 5), 5, StreamPosition(2, "e"), False),
        ((4, 5), 6, StreamPosition(3, "e"), False),  # cut off by a limit
        ((), 3, StreamPosition(3, "e"), True),
        ((), 4, StreamPosition(3, "e"), False),
        ((), 0, StreamPosition(), True),
    ],
)
def test_a_stream(read: tuple[int, ...], top: int, since: StreamPosition, recovered: bool) -> None:
    result = recover_stream(HistoryPage(pubs(*read), StreamPosition(top, "e")), since)
    assert result.recovered is recovered
    assert [pub.offset for pub in result.publications] == (list(read) if recovered else [])


@pytest.mark.parametrize(
    ("read", "top", "since", "recovered", "given"),
    [
        ((5,), 5, StreamPosition(), True, [5]),
        ((5,), 5, StreamPosition(5, "e"), True, []),
        ((5,), 5, StreamPosition(5, "other"), True, [5]),
        ((), 5, StreamPosition(5, "e"), True, []),
        ((), 5, StreamPosition(4, "e"), False, []),
        ((), 0, StreamPosition(0, "e"), False, []),
        ((4,), 5, StreamPosition(4, "e"), False, []),  # the engine has lost the latest
    ],
)
def test_a_cache(read: tuple[int, ...], top: int, since: StreamPosition, recovered: bool, given: list[int]) -> None:
    result = recover_cache(HistoryPage(pubs(*read), StreamPosition(top, "e")), since, None)
    assert result.recovered is recovered
    assert [pub.offset for pub in result.publications] == given


@given(
    since=st.integers(0, 5),
    read=st.integers(0, 6),
    more=st.integers(0, 6),
    overlap=st.integers(0, 6),
    seed=st.integers(0, 1000),
    lost=st.none() | st.integers(0, 5),
)
def test_what_was_read_and_what_came_meanwhile(
    since: int, read: int, more: int, overlap: int, seed: int, lost: int | None
) -> None:
    """Everything once and in order, or a gap; however much of it was both read and heard, and heard twice."""
    top = since + read
    last = top + more
    heard = list(range(max(top - overlap, 0) + 1, last + 1))
    gone = top + 1 + lost if lost is not None and lost < more - 1 else None
    heard = [offset for offset in heard if offset != gone]
    random.Random(seed).shuffle(heard)
    position = StreamPosition(top, "e")
    if gone is not None:
        with pytest.raises(Gap):
            merge(pubs(*range(since + 1, top + 1)), position, pubs(*heard, *heard))
        return
    merged, position = merge(pubs(*range(since + 1, top + 1)), position, pubs(*heard, *heard))
    assert [pub.offset for pub in merged] == list(range(since + 1, last + 1))
    assert position == StreamPosition(last, "e")
