"""What README and guides tell people to type is typed here, against the server that they tell people to start."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import wrap_client_stream

from broker.config import configure
from broker.engines.redis import shards_of
from tests.e2e.daemon import PEER, Daemon
from tests.e2e.http import request
from tests.e2e.sdk import NODE
from tests.support.certificates import Authority
from tests.support.patience import PATIENCE
from tests.support.redis_topologies import ACL_RULES

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(PEER), reason="ours alone")]

HOME = Path(__file__).parents[2]
PAGES = [HOME / "README.md", HOME / "CONTRIBUTING.md", *sorted(HOME.glob("docs/**/*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(language: str, *pages: Path, containing: str = "") -> list[Any]:
    """The fenced blocks of `language`, as parameters of a test that are named after their page."""
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in pages or PAGES
        for number, (tag, text) in enumerate(FENCE.findall(page.read_text()), 1)
        if tag == language and containing in text
    ]


def here(text: str, daemon: Daemon) -> str:
    """A snippet for the daemon of this test instead of the one on port 8000."""
    assert "localhost:8000" in text
    return text.replace("localhost:8000", f"127.0.0.1:{daemon.port}")


def curls(text: str) -> Iterator[tuple[str, str]]:
    """URL and body of each `curl URL -d BODY`."""
    words = shlex.split(text, comments=True)
    while words:
        command, url, option, body, *words = words
        assert (command, option) == ("curl", "-d")
        yield url, body


@pytest.mark.parametrize("text", snippets("sh", containing="curl"))
async def test_curl(daemon: Daemon, text: str) -> None:
    for url, body in curls(here(text, daemon)):
        path = url.removeprefix(daemon.http)
        answer = await request(daemon.port, "POST", path, {}, body.encode())
        assert answer.status == 200
        assert '"error"' not in answer.body.decode()


@pytest.mark.parametrize("text", snippets("js"))
async def test_javascript(daemon: Daemon, text: str) -> None:
    """The program runs until it has printed what is published to the channel that it subscribes to."""
    old_node = "globalThis.WebSocket ??= (await import('ws')).default;\n"  # before version 22
    process = await trio.lowlevel.open_process(
        [NODE, "--input-type=module", "--eval", old_node + here(text, daemon)],
        cwd=HOME / "tests" / "e2e" / "js",
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(PATIENCE):
            while not (await daemon.api("presence", channel="hello"))["result"]["presence"]:
                pass
            await daemon.api("publish", channel="hello", data={"text": "hi"})
            assert await process.stdout.receive_some() == b"{ text: 'hi' }\n"
    finally:
        process.kill()
        await process.wait()
        await process.stdout.aclose()


@pytest.mark.parametrize("text", snippets("python", containing="localhost:8000"))
async def test_python(daemon: Daemon, text: str) -> None:
    with trio.fail_after(PATIENCE):
        result = await trio.run_process([sys.executable, "-W", "error", "-c", here(text, daemon)], capture_stdout=True)
    if "print(" in text:
        assert result.stdout == b"{'title': 'hello'}\n"
    else:
        history = await daemon.api("history", channel="hello", limit=1, reverse=True)
        assert history["result"]["publications"][0]["data"] == {"text": "from the backend"}


@pytest.mark.parametrize("text", snippets("json", HOME / "docs/getting-started.md", containing='"connect"'))
async def test_the_protocol_by_hand(daemon: Daemon, text: str) -> None:
    lines: list[str] = []
    async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream, trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/connection/websocket")
        for line in text.splitlines():
            await websocket.send_message(line)
        with trio.fail_after(PATIENCE):
            while len(lines) < 2:
                lines += (await websocket.get_message()).split("\n")
        await websocket.aclose()
    connected, subscribed = map(json.loads, lines[:2])
    assert connected["connect"]["client"]
    assert subscribed["subscribe"]["recoverable"]


@pytest.mark.parametrize("text", snippets("json", HOME / "README.md"))
async def test_the_configuration(tmp_path: Path, text: str) -> None:
    config = json.loads(text)
    assert config["http_api"]["key"] == config["client"]["token"]["hmac_secret_key"] == "…", "no secret in a README"
    (tmp_path / "config.json").write_text(text)
    command = [sys.executable, "-m", "broker", "checkconfig", "--strict", "--config", "config.json"]
    await trio.run_process(command, cwd=tmp_path)


@pytest.mark.parametrize("text", snippets("json", HOME / "docs/redis.md"))
async def test_ways_to_run_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Each is a configuration that a start accepts, as far as it can without the servers."""
    authority = Authority(tmp_path)
    authority.file.rename(tmp_path / "redis-ca.pem")
    authority.certificate("broker")
    monkeypatch.chdir(tmp_path)
    config = configure(json.loads(text))
    assert config.engine.type == "redis"
    assert shards_of(config.engine.redis)


def test_the_rules_of_a_user_of_redis() -> None:
    """What the guide says is what the tests with TLS are run with."""
    text = " ".join((HOME / "docs/redis.md").read_text().split())
    assert ACL_RULES.format(prefix="app") in text


@pytest.mark.parametrize("text", snippets("sh", HOME / "docs/getting-started.md", containing="genconfig"))
async def test_the_way_out_of_development(tmp_path: Path, text: str) -> None:
    """Each `broker …` line in an empty folder, one after another; the last starts the server."""
    *commands, last = [shlex.split(line, comments=True) for line in text.splitlines()]
    assert all(name == "broker" for name, *_ in [*commands, last])
    for _, *args in commands:
        await trio.run_process([sys.executable, "-m", "broker", *args], cwd=tmp_path, capture_stdout=True)
    assert last == ["broker"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["client"]["token"]["hmac_secret_key"]


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        text = FENCE.sub("", page.read_text())
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_paths_in_the_map_exist() -> None:
    """Every file and folder that ARCHITECTURE.md names is there."""
    text = (HOME / "docs/ARCHITECTURE.md").read_text()
    named = re.findall(r"`((?:broker|tests|hub|sessions|transports)/[\w/.]*)", text)
    assert named
    for name in named:
        assert (HOME / name).exists() or (HOME / "broker" / name).exists(), name


def test_every_room_is_on_the_map() -> None:
    block = FENCE.findall((HOME / "docs/ARCHITECTURE.md").read_text())[0][1]
    listed = {line.split()[0].rstrip("/") for line in block.splitlines()[1:] if not line.startswith("   ")}
    here_are = {
        path.name for path in (HOME / "broker").iterdir() if not path.name.startswith(("__init__", "__pycache"))
    }
    assert listed == here_are - {"py.typed"}
