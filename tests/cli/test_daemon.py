from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.children import WITH_US
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_bad_configuration_is_every_bad_key_and_status_1(command: Command, folder: Path) -> None:
    (folder / "prod.yaml").write_text("client: {ping_interval: 5 days}\nlog: 7\n")
    status, out, err = command("-c", "prod.yaml", "-p", "high", "--client.insecure")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        "broker: bad configuration:",
        '  http_server.port: not a whole number: "high" (from --http_server.port)',
        "  log: not a section: a number",
        '  client.ping_interval: not a duration: "5 days"',
    ]


def test_flags_of_what_is_not_there_are_refused(command: Command) -> None:
    flags = [
        "--broker.enabled",
        "--broker.type",
        "nats",
        "--uni_grpc.enabled",
        "--admin.enabled=true",
        "--grpc_api.port=1",
        "--debug.enabled=0",
    ]
    status, _, err = command(*flags)
    assert status == 1
    assert [line.split(":")[0].strip() for line in err.splitlines()[1:]] == [
        "broker.type",
        "uni_grpc.enabled",
        "admin.enabled",
    ]


def test_a_bad_dotenv_is_fatal(command: Command, folder: Path) -> None:
    (folder / ".env").write_text("hunter2")
    assert command() == (1, "", "broker: bad configuration:\n  .env: line 1 is not KEY=value\n")


BROKEN = [
    "",
    "{",
    '{"client": {"channel_limit": 5}',
    "[]",
    "null",
    "\0",
    '{"client": 5}',
    '{"client": {"channel_limit": "many"}}',
    '{"client": {"chanel_limit": 5}}',
    '{"client": {"ping_interval": "5 days"}}',
    '{"client": {"token": {"rsa_public_key": "none"}}}',
    '{"client": {"token": {"issuer_regex": "("}}}',
    '{"channel": {"without_namespace": {"channel_regex": "("}}}',
    '{"channel": {"namespaces": [{"name": "a b"}]}}',
    '{"admin": {"enabled": true}}',
    None,
]


@pytest.fixture
def daemon(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A daemon on a port of the system's choice, that reads config.json of the folder and logs to stderr."""
    (folder / "config.json").write_text('{"client": {"channel_limit": 5}}')
    process = subprocess.Popen(
        [*WITH_US, sys.executable, "-m", "broker", "--http_server.address=127.0.0.1", "--http_server.port=0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CENTRIFUGO_PID_FILE": "broker.pid"},
    )
    with process:
        try:
            line_with(process, "serving")
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """The next line of the daemon's log that holds `text`."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"the daemon ended before it said {text!r}")


@pytest.mark.e2e
def test_reload_is_all_or_nothing(daemon: subprocess.Popen[str], folder: Path) -> None:
    """T34: each broken configuration is one error, the daemon lives on, and the next good one is taken."""
    file = folder / "config.json"
    assert int((folder / "broker.pid").read_text()) == daemon.pid
    for content in BROKEN:
        file.unlink()
        if content is not None:
            file.write_text(content)
        daemon.send_signal(signal.SIGHUP)
        assert '"level": "error"' in line_with(daemon, "configuration")
        file.write_text('{"client": {"channel_limit": 6}}')
        daemon.send_signal(signal.SIGHUP)
        assert "configuration reloaded" in line_with(daemon, "configuration")
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(PATIENCE) == 0
    assert not (folder / "broker.pid").exists()
