"""The drawing is one that browsers take, says what it shows, and has every server in every panel."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from broker.bench import SHAPES, Files, Histogram, Outcome, Results, Settings, add_result_arguments, files_of
from broker.bench.plot import svg

_SVG = "{http://www.w3.org/2000/svg}"
_ABOUT = {"machine": {"cpu": "Some <CPU> & more", "cores": 2, "kernel": "6.1"}, "date": "2026-11-24"}
_PANELS = ["percentiles", "rate", "latency"]


def outcome(slow: float = 1.0, count: int = 20_000) -> Outcome:
    latency = Histogram(slow * 0.001 * (1 + number / count) for number in range(count))
    timeline = [(0.1 * step, 1000.0 * slow + step, slow, 2 * slow) for step in range(10)]
    return Outcome({"deliveries/CPU-s": 1000 / slow}, latency, timeline)


def results(rounds: dict[str, list[Outcome]]) -> Results:
    return Results(SHAPES["W3p"], Settings(connections=1000), rounds)


def panels(drawing: str) -> dict[str, ElementTree.Element]:
    return {group.attrib["class"]: group for group in ElementTree.fromstring(drawing).iter(f"{_SVG}g")}


def texts(element: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in element.iter(f"{_SVG}text")]


def places(line: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]


def test_one_line_for_each_server_in_each_panel() -> None:
    drawn = panels(svg(results({"a<b": [outcome()], "c & d": [outcome(3.0)]}), _ABOUT))
    assert list(drawn) == _PANELS
    for panel in drawn.values():
        lines = list(panel.iter(f"{_SVG}polyline"))
        assert [line.findtext(f"{_SVG}title") for line in lines] == ["a<b", "c & d"]
        assert len({line.attrib["stroke"] for line in lines}) == 2


def test_titles_and_axes_say_what_is_shown() -> None:
    drawing = svg(results({"broker": [outcome()], "floor": [outcome()]}), _ABOUT)
    everything = " ".join(texts(ElementTree.fromstring(drawing)))
    for words in ("W3p: a hot channel", "1,000 connections", "Some <CPU> & more, 2 cores", "broker", "floor"):
        assert words in everything
    drawn = panels(drawing)
    assert {"p50", "p90", "p99", "p99.9", "p99.99", "percentile", "latency, ms"} <= set(texts(drawn["percentiles"]))
    assert {"rate, a second", "seconds since the load began"} <= set(texts(drawn["rate"]))
    assert {"median latency, ms", "seconds since the load began"} <= set(texts(drawn["latency"]))


@pytest.mark.parametrize("count", [1, 2, 100, 20_000])
def test_lines_stay_within_their_panel_and_go_right(count: int) -> None:
    drawn = panels(svg(results({"a": [outcome(0.01, count), outcome(7.0, count)], "b": [outcome(2.0, count)]}), _ABOUT))
    for panel in drawn.values():
        frame = [line.attrib for line in panel.iter(f"{_SVG}line")]
        left, right = min(float(f["x1"]) for f in frame), max(float(f["x2"]) for f in frame)
        top, bottom = min(float(f["y1"]) for f in frame), max(float(f["y2"]) for f in frame)
        for line in panel.iter(f"{_SVG}polyline"):
            points = places(line)
            assert [x for x, _ in points] == sorted(x for x, _ in points)
            assert all(left <= x <= right and top <= y <= bottom for x, y in points)


def test_percentiles_go_no_further_than_the_values() -> None:
    drawn = panels(svg(results({"few": [outcome(count=100)], "many": [outcome(count=20_000)]}), _ABOUT))
    few, many = (places(line) for line in drawn["percentiles"].iter(f"{_SVG}polyline"))
    p50, p9999 = many[0][0], many[-1][0]
    two_nines = p50 + (p9999 - p50) * (2 - math.log10(2)) / (4 - math.log10(2))
    assert few[-1][0] == pytest.approx(two_nines, abs=0.2)


def test_what_was_not_measured_is_said_so() -> None:
    drawn = panels(svg(results({"a": [Outcome({"KiB/connection": 6.0})], "b": []}), _ABOUT))
    for panel in drawn.values():
        assert "not measured" in texts(panel)
        assert not list(panel.iter(f"{_SVG}polyline"))


def test_files_agree_with_the_figures(tmp_path: Path) -> None:
    files = Files(tmp_path / "all.json", tmp_path / "latency.hgrm", tmp_path / "plot.svg")
    found = results({"ws://localhost:8000": [outcome(), outcome(2.0)], "floor": [outcome(3.0)], "failed": []})
    files.write([found], _ABOUT, shapes=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "all.json",
        "latency-floor.hgrm",
        "latency-ws-localhost-8000.hgrm",
        "plot.svg",
    ]
    rounds = json.loads((tmp_path / "all.json").read_text())[0]["rounds"]
    for name, file in (("ws://localhost:8000", "latency-ws-localhost-8000.hgrm"), ("floor", "latency-floor.hgrm")):
        *_, last, maximum = (tmp_path / file).read_text().splitlines()
        total = sum(Outcome.from_json(each).latency.total for each in rounds[name])
        assert int(last.split()[2]) == total
        figures = found.latency(name).figures()
        assert maximum == f"#[Max = {figures['max ms']:.3f}, Total count = {total}]"
        rows = [line.split() for line in (tmp_path / file).read_text().splitlines()[2:-1]]
        p99 = next(float(value) for value, share, *_ in rows if float(share) >= 0.99)
        assert p99 == pytest.approx(figures["p99 ms"], abs=0.001)


def test_each_of_several_shapes_has_its_own_files(tmp_path: Path) -> None:
    files = Files(histogram=tmp_path / "latency.hgrm", plot=tmp_path / "plot.svg")
    files.write([results({"broker": [outcome()]})], _ABOUT, shapes=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latency-W3p.hgrm", "plot-W3p.svg"]


def test_files_that_cannot_be_written_are_refused_beforehand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_result_arguments(parser)
    good = parser.parse_args(["--histogram", str(tmp_path / "h"), "--plot", str(tmp_path / "p.svg")])
    assert files_of(good) == Files(None, tmp_path / "h", tmp_path / "p.svg")
    for wrong, why in ((["--plot", "p.png"], "does not end with .svg"), (["--json", "no/x.json"], "no folder no")):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
        assert why in capsys.readouterr().err
