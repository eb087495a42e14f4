"""Percentiles are those of the values, to within a thousandth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.bench.histogram import Histogram

seconds = st.lists(st.floats(0, 3000), min_size=1, max_size=200)


@given(seconds, st.sampled_from([0.0, 50.0, 90.0, 99.0, 100.0]))
def test_percentiles(values: list[float], percent: float) -> None:
    exact = sorted(values)[max(-(-len(values) * percent // 100) - 1, 0).__trunc__()]
    assert Histogram(values).percentile(percent) == pytest.approx(exact, rel=1e-3, abs=1e-6)


@given(seconds, seconds)
def test_merging_is_recording_all(one: list[float], other: list[float]) -> None:
    merged = Histogram(one)
    merged.merge(Histogram(other))
    assert merged.as_json() == Histogram(one + other).as_json()


@given(seconds)
def test_json_and_back(values: list[float]) -> None:
    histogram = Histogram(values)
    assert Histogram.from_json(histogram.as_json()).figures() == histogram.figures()


def test_what_was_not_sent_while_one_was_waited_for_counts_as_well() -> None:
    corrected = Histogram([0.001] * 97 + [0.0019] * 2 + [0.01]).corrected(0.001)
    assert corrected.total == 100 + 9  # 9, 8, … 1 ms, which would have waited for the one of 10 ms
    assert corrected.highest == 0.01
    assert corrected.percentile(100 * 99 / 109) == pytest.approx(0.0019)
    assert corrected.percentile(100 * 105 / 109) == pytest.approx(0.006, rel=0.002)
    assert Histogram([0.001]).corrected(0).total == 1


def test_nothing_recorded() -> None:
    assert Histogram().figures() == {}
    assert Histogram().curve() == []
    assert "Total count = 0" in Histogram().text()


def test_the_text_that_plotters_read() -> None:
    lines = Histogram([n / 1000 for n in range(1, 101)]).text().splitlines()
    assert lines[0].split() == ["Value(ms)", "Percentile", "TotalCount", "1/(1-Percentile)"]
    value, share, count, rest = lines[51].split()
    assert float(value) == pytest.approx(50, rel=1e-3)
    assert (float(share), int(count), float(rest)) == (0.5, 50, 2.0)
    assert lines[-1] == "#[Max = 100.000, Total count = 100]"


def test_a_curve_rises_to_the_highest_value() -> None:
    curve = Histogram([n / 1000 for n in range(1, 1001)]).curve()
    assert [value for _, value in curve] == sorted(value for _, value in curve)
    assert curve[0][1] == 1.0
    assert curve[-1][1] == pytest.approx(1000, rel=1e-2)
