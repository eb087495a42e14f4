"""What docs/deploy gives is tried as far as it goes without systemd as the first process and without containers."""

from __future__ import annotations

import configparser
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from broker.config import Sources, load
from tests.e2e.daemon import PEER, Daemon
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(PEER), reason="ours alone")]

HOME = Path(__file__).parents[2]
DEPLOY = HOME / "docs" / "deploy"
UNIT = DEPLOY / "broker.service"
CONTAINERFILE = (HOME / "Containerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
ANALYZE = shutil.which("systemd-analyze")


# ---- systemd


@pytest.mark.skipif(ANALYZE is None, reason="no systemd here; its analyser is all that is wanted of it")
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    text = UNIT.read_text()
    program = "/opt/broker/bin/broker"
    assert program in text
    unit = tmp_path / "broker.service"
    unit.write_text(text.replace(program, "/bin/true"))  # the analyser wants a program that is there
    checked = subprocess.run([str(ANALYZE), "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (checked.returncode, [line for line in checked.stderr.splitlines() if str(unit) in line]) == (0, [])
    rated = subprocess.run(
        [str(ANALYZE), "security", "--offline=yes", "--threshold=20", str(unit)], capture_output=True, check=False
    )
    assert rated.returncode == 0, rated.stdout.decode()[-2000:]


def test_the_unit_leaves_time_to_leave() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    config = load(Sources(file=None, environ={}, dotenv=Path(os.devnull))).config
    assert int(service["TimeoutStopSec"]) > config.shutdown.timeout + 3
    assert service["Type"] == "notify"
    assert service["KillMode"] == "mixed"  # workers hear of it from their parent


# ---- the container


def instructions(word: str) -> list[str]:
    lines = CONTAINERFILE.replace("\\\n", " ").splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{word} ")]


def health_check() -> list[str]:
    (text,) = instructions("HEALTHCHECK")
    command: list[str] = json.loads(text.partition(" CMD ")[2])
    return [sys.executable if word == "python" else word for word in command]


def test_the_image_is_made_of_what_is_there() -> None:
    ignored = (HOME / ".dockerignore").read_text().splitlines()
    for line in instructions("COPY"):
        if not line.startswith("--from"):
            for source in line.split()[:-1]:
                assert (HOME / source).exists()
                assert f"!{source}" in ignored
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert int(instructions("USER")[0].partition(":")[0]) > 0


async def test_the_health_check_tells_good_from_bad(daemon: Daemon) -> None:
    for port, status in ((daemon.port, 0), (free_port(), 1)):
        environ = os.environ | {"BROKER_HTTP_SERVER_PORT": str(port)}
        ended = await trio.run_process(health_check(), env=environ, check=False, capture_stderr=True)
        assert ended.returncode == status


@pytest.mark.long
async def test_what_the_containerfile_runs_makes_a_broker(tmp_path: Path) -> None:
    """Its RUN lines, in a folder of their own, from a copy of what it copies; then its entry point and health check."""
    source, target, work = tmp_path / "src", tmp_path / "broker", tmp_path / "work"
    for folder in (source, work):
        folder.mkdir()
    for line in instructions("COPY"):
        if not line.startswith("--from"):
            for name in line.split()[:-1]:
                there = HOME / name
                (shutil.copytree if there.is_dir() else shutil.copy)(there, source / name)
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for line in instructions("RUN"):
        words = shlex.split(line.replace("/opt/broker", str(target)))
        words[0] = sys.executable if words[0] == "python" else words[0]
        await trio.run_process(words, cwd=source, env=environ, capture_stdout=True)
    (env,) = instructions("ENV")
    values = dict(pair.split("=", 1) for pair in shlex.split(env.replace("/opt/broker", str(target))))
    port = free_port()
    environ |= values | {"PATH": values["PATH"].replace("$PATH", os.environ["PATH"])}
    environ |= {"BROKER_HTTP_SERVER_PORT": str(port), "BROKER_HTTP_SERVER_ADDRESS": "127.0.0.1"}
    (entry,) = map(json.loads, instructions("ENTRYPOINT"))
    process = subprocess.Popen(  # noqa: ASYNC220
        [str(target / "bin" / entry[0])], cwd=work, env=environ, stderr=subprocess.DEVNULL
    )
    try:
        with trio.fail_after(PATIENCE):
            while (await trio.run_process(health_check(), env=environ, check=False, capture_stderr=True)).returncode:
                assert process.poll() is None
        process.send_signal(getattr(signal, instructions("STOPSIGNAL")[0]))
        assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()


# ---- the compose file


def test_the_nodes_are_alike_and_have_time_to_leave() -> None:
    services = COMPOSE["services"]
    assert services["node1"] == services["node2"] == services["node3"]
    assert (DEPLOY / services["node1"]["build"]["context"] / services["node1"]["build"]["dockerfile"]).exists()
    assert int(services["node1"]["stop_grace_period"].removesuffix("s")) > 30 + 3
