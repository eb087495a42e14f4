from __future__ import annotations

from pathlib import Path

import pytest

from broker.config.errors import ConfigError
from broker.config.files import read_file

SAME = {
    "config.json": '{"Log": {"LEVEL": "debug"}, "channel": {"namespaces": [{"Name": "Chat"}], "proxy": null}}',
    "config.toml": '[Log]\nLEVEL = "debug"\n[[channel.namespaces]]\nName = "Chat"\n',
    "config.yaml": "Log:\n  LEVEL: debug\nchannel:\n  namespaces:\n  - Name: Chat\n  proxy:\n",
    "config.yml": "Log: {LEVEL: debug}\nchannel: {namespaces: [{Name: Chat}]}\n",
    "CONFIG.JSON": '\ufeff{"Log": {"LEVEL": "debug"}, "channel": {"namespaces": [{"Name": "Chat"}]}}',
}


@pytest.mark.parametrize("name", SAME)
def test_the_extension_decides_and_keys_are_in_lower_case(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(SAME[name])
    assert read_file(path) == {"log": {"level": "debug"}, "channel": {"namespaces": [{"name": "Chat"}]}}


@pytest.mark.parametrize("name", ["config.toml", "config.yaml"])
def test_an_empty_file_says_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("")
    assert read_file(path) == {}


def test_no_file_and_no_readable_file_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    assert read_file(tmp_path / "none.json") is None
    assert read_file(tmp_path / "folder.json") is None


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("config.json", b'{"key": "hunter2"', "not JSON: Expecting ',' delimiter, line 1, column 18"),
        ("config.json", b"", "not JSON: Expecting value, line 1, column 1"),
        ("config.json", b"[" * 100_000, "cannot be read: RecursionError"),
        ("config.json", b'{"a": ' + b"9" * 5000 + b"}", "cannot be read: ValueError"),
        ("config.json", b"[]", "not an object with keys"),
        ("config.json", b'{"a": "\xff"}', "not UTF-8 text, at byte 7"),
        ("config.toml", b'key = "hunter2', "not TOML: "),
        ("config.yaml", b"key: hunter2\n bad: x", "not YAML: mapping values are not allowed"),
        (
            "config.yaml",
            b"key: !!python/object/apply:os.system [hunter2]",
            "not YAML: could not determine a constructor for the tag '…'",
        ),
        ("config.yaml", b"key: *hunter2", "not YAML: found undefined alias"),
        ("config.yaml", b"hunter2", "not an object with keys"),
        ("config.ini", b"", "unknown format; the name must end in .json, .toml, .yaml, .yml"),
        ("config", b"", "unknown format"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_does_not_quote(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_file(path)
    (problem,) = error.value.problems
    assert problem.startswith(f"{path}: {complaint}")
    assert "hunter2" not in problem
    assert "\n" not in problem
