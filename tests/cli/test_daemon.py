from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
        "--engine.type",
        "redis",
        "--sse.enabled",
        "--admin.enabled=true",
        "--grpc_api.port=1",
        "--debug.enabled=0",
    ]
    status, _, err = command(*flags)
    assert status == 1
    assert [line.split(":")[0].strip() for line in err.splitlines()[1:]] == [
        "engine.type",
        "sse.enabled",
        "admin.enabled",
    ]


def test_a_bad_dotenv_is_fatal(command: Command, folder: Path) -> None:
    (folder / ".env").write_text("hunter2")
    assert command() == (1, "", "broker: bad configuration:\n  .env: line 1 is not KEY=value\n")
