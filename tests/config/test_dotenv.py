from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.dotenv import parse_dotenv, read_dotenv
from broker.config.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("", {}),
        ("\n  \n# comment\n", {}),
        ("A=1\nB = two words \n", {"A": "1", "B": "two words"}),
        ("export A=1", {"A": "1"}),
        ("A: 1", {"A": "1"}),
        ("A=\nB=2", {"A": "", "B": "2"}),
        ("A=1 # comment", {"A": "1"}),
        ("A=1#no comment", {"A": "1#no comment"}),
        ("A=# comment", {"A": ""}),
        ("A='1 # $B \\n'", {"A": "1 # $B \\n"}),
        ('A="one\\ntwo \\"x\\" # y" # comment', {"A": 'one\ntwo "x" # y'}),
        ('A="one\ntwo"\nB=3', {"A": "one\ntwo", "B": "3"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nB=$A${A}-$C", {"A": "1", "B": "11-"}),
        ('A=1\nB="$A \\$A"', {"A": "1", "B": "1 $A"}),
        ("A=pa$$word", {"A": "pa$$word"}),
        ("A=1\nA=2", {"A": "2"}),
    ],
)
def test_statements(text: str, variables: dict[str, str]) -> None:
    assert parse_dotenv(text) == variables


@pytest.mark.parametrize(
    ("text", "line"), [("A", 1), ("A=1\n\nhunter2\n", 3), ('A="hunter2', 1), ("=1", 1), ("A='a' b", 1)]
)
def test_lines_that_are_no_statements(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=rf"^line {line} is not KEY=value$"):
        parse_dotenv(text)


@given(st.text())
def test_any_text_ends(text: str) -> None:
    complaint = "line "
    try:
        parse_dotenv(text)
    except ValueError as error:
        complaint = str(error)
    assert complaint.startswith("line ")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert read_dotenv(path) == {}
    path.write_text("A=1")
    assert read_dotenv(path) == {"A": "1"}
    path.write_text("hunter2")
    with pytest.raises(ConfigError, match="line 1 is not KEY=value"):
        read_dotenv(path)
    with pytest.raises(ConfigError, match="Is a directory"):
        read_dotenv(tmp_path)
