"""Medians, ratios and what is written down."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.figures import Settings, latencies
from benchmarks.rounds import Results
from benchmarks.shapes import SHAPES


@pytest.fixture
def results() -> Results:
    figure = SHAPES["W9"].figure
    rounds = {"a": [{figure: 100.0}, {figure: 300.0}, {figure: 120.0}], "b": [{figure: 40.0}, {"CPU %": 3.0}]}
    return Results(SHAPES["W9"], Settings(in_flight=32), rounds)


def test_ratios_are_of_medians(results: Results) -> None:
    assert results.medians("a") == {results.shape.figure: 120.0}
    assert results.medians("b") == {results.shape.figure: 40.0, "CPU %": 3.0}
    assert results.ratio("a", "b") == 3.0


def test_a_server_without_the_figure_has_no_ratio(results: Results) -> None:
    results.rounds["b"] = [{"publishes/s": 1.0}]
    assert results.ratio("a", "b") is None


def test_servers_of_which_no_round_went_well_have_no_row(results: Results) -> None:
    out = io.StringIO()
    results.rounds["b"] = []
    report.show(results, Console(file=out, width=120))
    assert "a / b" not in out.getvalue()
    results.rounds["a"] = []
    report.show(results, Console(file=out, width=120))


def test_tables_name_every_server_and_ratio(results: Results) -> None:
    out = io.StringIO()
    report.show(results, Console(file=out, width=120))
    assert "publishes/CPU-s" in out.getvalue()
    assert "a / b: 3.00" in out.getvalue()


def test_json_has_all_that_was_measured(results: Results) -> None:
    written = report.as_json(results, {"python": "3.11"})
    assert written["python"] == "3.11"
    assert written["rounds"] == results.rounds
    assert written["ratios"] == {"a/b": 3.0}
    assert written["failures"] == {}
    assert written["settings"]["in_flight"] == 32


def test_percentiles() -> None:
    assert latencies([]) == {}
    assert latencies([n / 1000 for n in range(101)]) == {"p50 ms": 50.0, "p99 ms": 99.0, "max ms": 100.0}
