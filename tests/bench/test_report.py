"""Medians, ratios and what is written down."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from broker.bench import SHAPES, Histogram, Outcome, Results, Settings
from broker.bench import report as reports


@pytest.fixture
def results() -> Results:
    figure = SHAPES["W9"].figure
    rounds = {
        "a": [Outcome({figure: value}, Histogram([0.001])) for value in (100.0, 300.0, 120.0)],
        "b": [Outcome({figure: 40.0}), Outcome({"CPU %": 3.0})],
    }
    return Results(SHAPES["W9"], Settings(in_flight=32), rounds)


def test_ratios_are_of_medians(results: Results) -> None:
    assert results.medians("a") == {results.shape.figure: 120.0}
    assert results.medians("b") == {results.shape.figure: 40.0, "CPU %": 3.0}
    assert results.ratio("a", "b") == 3.0
    assert results.pairs("a", "b") == [2.5]
    assert results.latency("a").total == 3


def test_a_server_without_the_figure_has_no_ratio(results: Results) -> None:
    results.rounds["b"] = [Outcome({"publishes/s": 1.0})]
    assert results.ratio("a", "b") is None


def test_servers_of_which_no_round_went_well_have_no_row(results: Results) -> None:
    out = io.StringIO()
    results.rounds["b"] = []
    reports.show(results, Console(file=out, width=160))
    assert "a / b" not in out.getvalue()
    results.rounds["a"] = []
    reports.show(results, Console(file=out, width=160))


def test_tables_name_every_server_and_ratio(results: Results) -> None:
    out = io.StringIO()
    reports.show(results, Console(file=out, width=160))
    assert "publishes/CPU-s" in out.getvalue()
    assert "a / b: 3.00" in out.getvalue()
    assert "round by round: 2.50" in out.getvalue()


def test_every_figure_can_be_read_on_a_narrow_terminal(results: Results) -> None:
    figures = {f"figure {number} /CPU-s": 1234567.0 + number for number in range(15)}
    results.rounds = {name: [Outcome(figures)] for name in ("broker", "centrifugo", "floor")}
    out = io.StringIO()
    reports.show(results, Console(file=out, width=80))
    for title, value in figures.items():
        (line,) = [line for line in out.getvalue().splitlines() if title in line]
        assert line.count(f"{value:,.0f}") == 3


def test_json_has_all_that_was_measured(results: Results) -> None:
    written = reports.as_json(results, {"python": "3.11"})
    assert written["python"] == "3.11"
    assert [Outcome.from_json(each).figures for each in written["rounds"]["b"]] == [
        each.figures for each in results.rounds["b"]
    ]
    assert written["ratios"] == {"a/b": 3.0}
    assert written["failures"] == {}
    assert written["settings"]["in_flight"] == 32
