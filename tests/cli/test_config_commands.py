from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.cli.conftest import Command

NAMES = ["config.json", "config.toml", "config.yaml", "config.yml"]


def parsed(path: Path) -> dict[str, Any]:
    text = path.read_text()
    parse = {".json": json.loads, ".toml": tomllib.loads}.get(path.suffix, yaml.safe_load)
    tree = parse(text)
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize("name", NAMES)
def test_genconfig(command: Command, folder: Path, name: str) -> None:
    assert command("genconfig", "-c", name) == (0, "", "")
    path = folder / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tree = parsed(path)
    assert tree["client"]["allowed_origins"] == []
    assert tree["admin"]["enabled"] is False
    secrets = [
        tree["client"]["token"]["hmac_secret_key"],
        tree["admin"]["password"],
        tree["admin"]["secret"],
        tree["http_api"]["key"],
    ]
    assert [len(secret) for secret in secrets] == [86, 22, 86, 86]
    assert len(set(secrets)) == 4
    assert command("checkconfig", "--strict", "-c", name) == (0, "", "")


def test_genconfig_overwrites_nothing(command: Command, folder: Path) -> None:
    assert command("genconfig") == (0, "", "")
    before = (folder / "config.json").read_text()
    assert command("genconfig") == (1, "error: config.json: the file exists already\n", "")
    assert (folder / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("config.ini", "config.ini: unknown format; the name must end in .json, .toml, .yaml, .yml"),
        ("no/config.json", "no/config.json: No such file or directory"),
    ],
)
def test_genconfig_where_it_cannot_write(command: Command, name: str, problem: str) -> None:
    assert command("genconfig", "-c", name) == (1, f"error: {problem}\n", "")


def test_checkconfig(command: Command, folder: Path) -> None:
    assert command("checkconfig") == (1, "config file not found\n", "")
    path = folder / "config.json"
    path.write_text('{"client": {"insecure": false}, "foo": 1, "log": {"bar": 2}}')
    assert command("checkconfig") == (0, "", "")
    assert command("checkconfig", "-s") == (1, "unknown keys in config: foo, log.bar\n", "")
    path.write_text('{"client": {"ping_interval": "1d"}, "log": 5}')
    assert command("checkconfig") == (
        1,
        'error validating config:\n  log: not a section: a number\n  client.ping_interval: not a duration: "1d"\n',
        "",
    )
    path.write_text('{"client": ')
    assert command("checkconfig")[:2] == (
        1,
        "error validating config:\n  config.json: not JSON: Expecting value, line 1, column 12\n",
    )


def test_checkconfig_advises(command: Command, folder: Path) -> None:
    (folder / "config.json").write_text('{"client": {"allowed_origins": ["*example.com"]}}')
    status, out, err = command("checkconfig")
    assert (status, out) == (0, "")
    assert err.startswith('warning: client.allowed_origins: "*example.com"')


@pytest.mark.parametrize("name", NAMES)
def test_defaultconfig(command: Command, folder: Path, name: str) -> None:
    (folder / "base.toml").write_text('[client]\nping_interval = "1m"\n[[channel.namespaces]]\nname = "chat"\n')
    assert command("defaultconfig", "-c", name, "-b", "base.toml") == (0, "", "")
    tree = parsed(folder / name)
    assert tree["http_server"]["port"] == 8000
    assert tree["client"]["ping_interval"] == "1m0s"
    assert tree["client"]["pong_timeout"] == "8s"
    assert tree["channel"]["namespaces"][0]["name"] == "chat"
    assert command("checkconfig", "-s", "-c", name) == (0, "", "")
    assert command("defaultconfig", "-c", name)[0] == 1


def test_defaultconfig_on_trial(command: Command, folder: Path) -> None:
    status, out, err = command("defaultconfig", "-d", "-c", "x.yaml")
    assert (status, err) == (0, "")
    assert yaml.safe_load(out)["channel"]["history_meta_ttl"] == "720h0m0s"
    assert list(folder.iterdir()) == []
    assert command("defaultconfig", "-d", "-c", "x.ini")[0] == 1


def test_defaultconfig_of_a_bad_base(command: Command, folder: Path) -> None:
    (folder / "base.json").write_text('{"log": 5}')
    assert command("defaultconfig", "-b", "base.json") == (1, "error: log: not a section: a number\n", "")
    assert command("defaultenv", "-b", "base.json") == (1, "error: log: not a section: a number\n", "")


def test_defaultenv(command: Command, folder: Path) -> None:
    status, out, err = command("defaultenv")
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert "CENTRIFUGO_HTTP_SERVER_PORT=8000" in lines
    assert lines == sorted(lines)
    (folder / "base.json").write_text('{"http_server": {"port": 9000}, "log": {"level": ""}}')
    assert "CENTRIFUGO_HTTP_SERVER_PORT=9000" in command("defaultenv", "-b", "base.json")[1].splitlines()
    assert command("defaultenv", "-b", "base.json", "--base-non-zero-only")[1] == "CENTRIFUGO_HTTP_SERVER_PORT=9000\n"
    assert command("defaultenv", "--base-non-zero-only") == (0, "", "")
