from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.readers import load_pem, read_bool, read_duration, read_int, read_list, read_map, read_text
from broker.values import Pem

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
READERS = [read_text, read_bool, read_int, read_duration, read_map]


@pytest.mark.parametrize(("raw", "text"), [("a", "a"), (9000, "9000"), (2.0, "2"), (1.5, "1.5"), (True, "1")])
def test_texts(raw: object, text: str) -> None:
    assert read_text(raw) == text


@pytest.mark.parametrize(
    ("raw", "value"),
    [(raw, True) for raw in [True, 1, 2, -0.5, "1", "t", "T", "TRUE", "true", "True"]]
    + [(raw, False) for raw in [False, 0, 0.0, "", "0", "f", "F", "FALSE", "false", "False"]],
)
def test_booleans(raw: object, value: bool) -> None:
    assert read_bool(raw) is value


@pytest.mark.parametrize("raw", ["yes", "on", "TrUe", " true", [], {}, None])
def test_no_booleans(raw: object) -> None:
    with pytest.raises(ValueError, match="not a boolean"):
        read_bool(raw)


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (5, 5),
        (5.0, 5),
        (True, 1),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("0x1F", 31),
        ("-0b101", -5),
        ("0o17", 15),
        ("017", 15),
        ("0", 0),
        ("", 0),
        ("9223372036854775807", 9223372036854775807),
    ],
)
def test_whole_numbers(raw: object, number: int) -> None:
    assert read_int(raw) == number


@pytest.mark.parametrize(
    "raw",
    [
        "a",
        "1.5",
        1.5,
        "1e3",
        "0x",
        "08",
        " 1",
        "1 ",
        "1_000",
        "٣",
        "9223372036854775808",
        1 << 70,
        float("inf"),
        [],
        {},
    ],
)
def test_no_whole_numbers(raw: object) -> None:
    with pytest.raises(ValueError, match=r"not a whole number|does not fit in 64 bits"):
        read_int(raw)


@pytest.mark.parametrize(("raw", "seconds"), [("1m", 60), (1_500_000_000, 1.5), (2e9, 2), ("", 0), (0, 0)])
def test_a_bare_number_is_nanoseconds(raw: object, seconds: float) -> None:
    assert read_duration(raw) == seconds


@pytest.mark.parametrize("raw", ["300", "5 days", True, 1.5, [], None])
def test_no_durations(raw: object) -> None:
    with pytest.raises(ValueError, match="not a "):
        read_duration(raw)


@pytest.mark.parametrize(
    ("raw", "items"),
    [([1, 2], [1, 2]), ("a,b", ["a,b"]), (5, [5]), ("", []), (None, []), ({}, []), ({"a": 1}, [{"a": 1}])],
)
def test_a_single_value_is_a_list_of_one(raw: object, items: list[object]) -> None:
    assert read_list(raw) == items


@pytest.mark.parametrize(
    "raw",
    [{"A": "x", "b": ""}, [{"key": "A", "value": "x"}, {"key": "b", "value": ""}], '{"A": "x", "b": ""}'],
)
def test_mappings(raw: object) -> None:
    assert read_map(raw) == {"A": "x", "b": ""}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"a": 1}, "the value of 'a' is not a text: a number"),
        ([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}], "'a' comes twice"),
        ([{"key": "a"}], "item 0 is not a pair of key and value"),
        (["a"], "item 0 is not a pair of key and value"),
        ("{", "not a JSON object"),
        ("5", "not a mapping of texts: a number"),
        (5, "not a mapping of texts: a number"),
    ],
)
def test_no_mappings(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_map(raw)


@given(ANYTHING)
def test_anything_is_a_value_or_a_sentence_of_one_line(raw: object) -> None:
    for read in READERS:
        complaint = "none"
        try:
            read(raw)
        except ValueError as error:
            complaint = str(error)
        assert 0 < len(complaint) < 200
        assert complaint.isprintable()


PEM = "-----BEGIN CERTIFICATE-----\nMIIBsecret\n-----END CERTIFICATE-----\n"


def test_pem_as_text_base64_and_path(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text(PEM)
    for value in (PEM, base64.b64encode(PEM.encode()).decode(), str(path)):
        assert load_pem(Pem(value)) == PEM


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/nowhere/cert.pem", "neither PEM nor base64 of PEM, and as a path: No such file or directory"),
        ("/", "as a path: Is a directory"),
        ("with\0nul", "as a path: not a text file"),
        ("-----BEGIN CERTIFICATE-----\nMIIBsecret", "neither PEM, nor base64 of PEM, nor a path"),
        ("c2VjcmV0" * 1000, "neither PEM, nor base64 of PEM, nor a path"),
    ],
)
def test_no_pem(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_pem(Pem(value))
    assert "secret" not in str(error.value)


def test_a_file_without_pem(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    path.write_text("secret")
    with pytest.raises(ValueError, match=r"^no PEM in the file '.+/cert.pem'$"):
        load_pem(Pem(str(path)))
