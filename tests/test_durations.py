from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.durations import format_duration, parse_duration
from broker.values import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("0s", 0),
        ("5s", 5),
        ("+5s", 5),
        ("-1.5h", -5400),
        ("1h30m10.5s", 5410.5),
        ("1h2m3s", 3723),
        ("100ms", 0.1),
        (".5s", 0.5),
        ("5.s", 5),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("1μs", 1e-6),
        ("7ns", 7e-9),
        ("1s1h", 3601),
        ("720h", 2_592_000),
        ("0000000000000000000000000000001s", 1),
        ("0.100000000000000000000000000001s", 0.1),
        ("2562047h47m16.854775807s", 9223372036.854775807),
    ],
)
def test_durations_that_go_reads(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "2562047h47m16.854775808s",
        "9" * 5000 + "s",
        "٣s",
        "1.2.3s",
        "inf",
        "nan",
        "",
        "-",
        "+",
        ".",
        "s",
        ".s",
        "5",
        "5 days",
        "1d",
        "1 s",
        " 1s",
        "1s ",
        "1h-5m",
        "--1s",
        "1sm",
        "0x1s",
        "∞",
        "1S",
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (25, "25s"),
        (60, "1m0s"),
        (3600 * 168, "168h0m0s"),
        (0.1, "100ms"),
        (1.5, "1.5s"),
        (-90.25, "-1m30.25s"),
        (0.00025, "250us"),
        (0.0000015, "1.5us"),
        (7e-9, "7ns"),
    ],
)
def test_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert format_duration(Duration(seconds)) == text


@given(st.integers(-(10**15), 10**15))
def test_what_is_written_can_be_read(nanoseconds: int) -> None:
    assert round(parse_duration(format_duration(Duration(nanoseconds * 1e-9))) * 1e9) == pytest.approx(
        nanoseconds, abs=1
    )


@given(st.text(alphabet="0123456789.+-hmsnuµd ", max_size=30) | st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    complaint = "not a duration"
    try:
        parse_duration(text)
    except ValueError as error:
        complaint = str(error)
    assert complaint == "not a duration"
