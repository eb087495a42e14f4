from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.client import Backoff


@given(st.integers(0, 10_000))
def test_delays_are_within_bounds_that_double(attempt: int) -> None:
    delay = Backoff(0.5, 20).delay(attempt)
    assert 0.5 <= delay <= 20
    assert delay <= 0.5 + 0.5 * 2 ** min(attempt, 31)


def test_delays_differ() -> None:
    assert len({Backoff(0.5, 20).delay(3) for _ in range(20)}) > 10
