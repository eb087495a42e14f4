from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from broker import __version__
from broker.cli.flags import FLAGS, given_flags, with_values

if TYPE_CHECKING:
    from tests.cli.conftest import Command

COMMANDS = [
    "version",
    "genconfig",
    "checkconfig",
    "defaultconfig",
    "defaultenv",
    "gentoken",
    "gensubtoken",
    "checktoken",
    "checksubtoken",
]


def test_version(command: Command) -> None:
    status, out, err = command("version")
    assert (status, err) == (0, "")
    assert out.startswith(f"trio-broker v{__version__} (Python version: {sys.version.split()[0]}")
    assert command("--version") == (0, out, "")


def test_version_loads_no_server() -> None:
    code = "import sys; from broker.cli import run; run(['version']); sys.exit('trio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_names_every_command_and_flag(command: Command) -> None:
    status, out, _ = command("--help")
    assert status == 0
    for text in (*COMMANDS, *(f"--{flag.path}" for flag in FLAGS), "--dev", "--config"):
        assert text in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(command: Command, name: str) -> None:
    status, out, _ = command(name, "--help")
    assert status == 0
    assert out.startswith(f"usage: broker {name}")


@pytest.mark.parametrize(
    "argv", [["nonsense"], ["--nonsense"], ["--http_server.po", "1"], ["version", "x"], ["-p"], ["checktoken"]]
)
def test_a_wrong_command_line(command: Command, argv: list[str]) -> None:
    status, out, err = command(*argv)
    assert status == 2
    assert out == ""
    assert "broker" in err


def test_all_flags_of_centrifugo() -> None:
    assert len([flag for flag in FLAGS if flag.path != "workers"]) == 33
    assert {flag.path: flag.short for flag in FLAGS if flag.short} == {
        "http_server.address": "a",
        "http_server.port": "p",
    }


def test_switches_stand_alone_or_take_a_value() -> None:
    argv = ["--client.insecure", "--http_server.port", "9000", "--admin.enabled=false", "-p", "1"]
    assert with_values(argv) == [
        "--client.insecure=true",
        "--http_server.port",
        "9000",
        "--admin.enabled=false",
        "-p",
        "1",
    ]


def test_only_flags_that_were_given_count() -> None:
    assert given_flags({"config": "x", "dev": False, "http_server.port": "0", "log.level": None}) == {
        "http_server.port": "0"
    }
