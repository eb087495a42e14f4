"""The life of the process: starting, refusing to start, reloading, and leaving in time whatever its peers do."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from tests.e2e.conftest import StartBroker
from tests.e2e.daemon import BASE_CONFIG, PEER, Daemon, merged
from tests.e2e.http import request
from tests.support.patience import PATIENCE
from tests.support.ports import free_port

ours_alone = pytest.mark.skipif(bool(PEER), reason="ours alone")
INSECURE: dict[str, Any] = {"client": {"insecure": True}}


@asynccontextmanager
async def wire(daemon: Daemon, *commands: dict[str, Any]) -> AsyncIterator[WebSocketConnection]:
    """A bare WebSocket that has connected, and has the replies to `commands` behind it."""
    async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream, trio.open_nursery() as nursery:
        websocket = await wrap_client_stream(nursery, stream, "127.0.0.1", "/connection/websocket")
        lines = [{"id": 1, "connect": {}}, *({"id": n, **command} for n, command in enumerate(commands, 2))]
        await websocket.send_message("\n".join(map(json.dumps, lines)))
        replies = 0
        with trio.fail_after(PATIENCE):
            while replies < len(lines):
                replies += sum("id" in json.loads(line) for line in (await websocket.get_message()).split("\n"))
        yield websocket
        await websocket.aclose()


async def stalled(daemon: Daemon, channel: str) -> trio.SocketStream:
    """A subscriber that never reads again; its receive buffer is as small as the system allows."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    await sock.connect(("127.0.0.1", daemon.port))
    stream = trio.SocketStream(sock)
    await stream.send_all(
        b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await _read_until(stream, b"\r\n\r\n")
    commands = f'{{"id":1,"connect":{{}}}}\n{{"id":2,"subscribe":{{"channel":"{channel}"}}}}'.encode()
    await stream.send_all(bytes([0x81, 0x80 | len(commands), 0, 0, 0, 0]) + commands)  # masked with zeroes
    await _read_until(stream, b'"id":2')
    return stream


async def _read_until(stream: trio.SocketStream, end: bytes) -> None:
    answer = b""
    with trio.fail_after(PATIENCE):
        while end not in answer:
            chunk = await stream.receive_some()
            assert chunk, answer
            answer += chunk


# ---- leaving


async def test_sigterm_says_goodbye(broker_process: StartBroker) -> None:
    daemon = await broker_process(INSECURE)
    async with wire(daemon) as websocket:
        daemon.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(PATIENCE):
            await websocket.get_message()
    assert closed.value.reason is not None
    assert (closed.value.reason.code, closed.value.reason.reason) == (3001, "shutdown")


@ours_alone
async def test_sigterm_does_not_wait_for_those_who_do_not_read(broker_process: StartBroker) -> None:
    """T33: twenty stalled readers with bytes queued for them, a hundred healthy clients, one deadline."""
    daemon = await broker_process({**INSECURE, "shutdown": {"timeout": "60s"}})
    async with AsyncExitStack() as sockets, trio.open_nursery() as nursery:
        for _ in range(20):
            await sockets.enter_async_context(await stalled(daemon, "flood"))
        said: list[tuple[int, str]] = []

        async def healthy(*, task_status: trio.TaskStatus[None]) -> None:
            async with wire(daemon) as websocket:
                task_status.started()
                try:
                    while True:
                        await websocket.get_message()
                except ConnectionClosed as closed:
                    said.append((closed.reason.code, closed.reason.reason))  # type: ignore[union-attr]

        for _ in range(100):
            await nursery.start(healthy)
        for _ in range(16):
            await daemon.api("publish", channel="flood", data="x" * 50_000)
        started = trio.current_time()
        daemon.signal(signal.SIGTERM)
        status = await daemon.exited()
        took = trio.current_time() - started
    assert said == [(3001, "shutdown")] * 100
    assert took < 60
    assert status == 0


async def test_sigterm_closes_the_port_at_once(broker_process: StartBroker) -> None:
    daemon = await broker_process(INSECURE)
    reader = await stalled(daemon, "any")
    daemon.signal(signal.SIGTERM)
    with trio.fail_after(PATIENCE):
        while await answers(daemon):
            pass
    assert daemon.process.poll() is None, "it waits for the reader still"
    await reader.aclose()


async def test_sigint_ends_it_too(broker_process: StartBroker) -> None:
    daemon = await broker_process()
    daemon.signal(signal.SIGINT)
    assert await daemon.exited() == 0


async def test_more_signals_change_nothing(broker_process: StartBroker) -> None:
    """`make` and service managers send SIGINT and SIGTERM both: clients hear goodbye all the same."""
    daemon = await broker_process(INSECURE)
    async with wire(daemon) as websocket:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            daemon.signal(number)
        with pytest.raises(ConnectionClosed) as closed, trio.fail_after(PATIENCE):
            await websocket.get_message()
        assert closed.value.reason is not None
        assert closed.value.reason.code == 3001
    assert await daemon.exited() == 0


async def answers(daemon: Daemon) -> bool:
    """Whether the port is still open."""
    try:
        await daemon.get("/health")
    except OSError:
        return False
    return True


async def test_the_pid_file(broker_process: StartBroker, tmp_path: Path) -> None:
    file = tmp_path / "broker.pid"
    daemon = await broker_process({"pid_file": str(file)})
    assert int(file.read_text()) == daemon.process.pid
    await daemon.stop()
    assert not file.exists()


# ---- reloading

REPORT = "configuration not reloaded"
BAD_CONFIGS: dict[str, dict[str, Any] | str] = {
    "syntax": "{",
    "half-written": '{"client": {"token": {"hmac_secret_key": "sec',
    "no object": "[1, 2]",
    "regex": {"channel": {"namespaces": [{"name": "chat", "channel_regex": "("}]}},
    "history without a ttl": {"channel": {"namespaces": [{"name": "chat", "history_size": 10}]}},
    "recovery without history": {"channel": {"namespaces": [{"name": "chat", "force_recovery": True}]}},
    "a name twice": {"channel": {"namespaces": [{"name": "chat"}, {"name": "chat"}]}},
    "a bad name": {"channel": {"namespaces": [{"name": "a b"}]}},
    "a duration": {"client": {"ping_interval": "soon"}},
    "an enumeration": {"engine": {"type": "paper"}},
    "a type": {"client": {"channel_limit": "many"}},
    "a key that is none": {"client": {"token": {"rsa_public_key": "no key"}}},
}


async def reloaded(daemon: Daemon, config: dict[str, Any] | str) -> None:
    daemon.write_config(config if isinstance(config, str) else merged(daemon.config, config))
    daemon.signal(signal.SIGHUP)


async def test_sighup_takes_new_channel_options(broker_process: StartBroker) -> None:
    daemon = await broker_process()
    assert (await daemon.api("publish", channel="news:1", data=1))["error"]["code"] == 102
    await reloaded(daemon, {"channel": {"namespaces": [{"name": "news"}]}})
    with trio.fail_after(PATIENCE):
        while "error" in await daemon.api("publish", channel="news:1", data=1):
            pass


@ours_alone
async def test_a_reload_names_what_it_cannot_change(broker_process: StartBroker) -> None:
    daemon = await broker_process()
    await reloaded(
        daemon,
        {
            "engine": {"type": "redis", "redis": {"password": "hunter2", "address": "redis://:hunter3@127.0.0.1:1"}},
            "client": {"connection_limit": 5, "channel_limit": 7},
        },
    )
    (line,) = await daemon.wait_log("restart to use them")
    assert sorted(json.loads(line)["options"]) == [
        *("client.connection_limit", "engine.redis.address", "engine.redis.password", "engine.type"),
    ]
    assert "hunter" not in "".join(daemon.log)


@ours_alone
async def test_a_bad_reload_changes_nothing(broker_process: StartBroker) -> None:
    """T34: each bad configuration is reported once, under load, and the old one goes on."""
    namespaces = [{"name": "chat", "presence": True, "history_size": 5, "history_ttl": "60s"}]
    daemon = await broker_process({"channel": {"namespaces": namespaces}})
    daemon.allow_error(REPORT)
    failed: list[dict[str, Any]] = []

    async def load(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            reply = await daemon.api("publish", channel="chat:1", data=1)
            if "result" not in reply:
                failed.append(reply)

    async with trio.open_nursery() as nursery:
        await nursery.start(load)
        for count, config in enumerate(BAD_CONFIGS.values(), 1):
            await reloaded(daemon, config)
            assert len(await daemon.wait_log(REPORT, count)) == count
        await reloaded(daemon, {"channel": {"namespaces": [*namespaces, {"name": "late"}]}})  # and it still can
        with trio.fail_after(PATIENCE):
            while "error" in await daemon.api("publish", channel="late:1", data=1):
                pass
        nursery.cancel_scope.cancel()
    assert failed == []


@ours_alone
async def test_a_missing_file_at_reload_changes_nothing(broker_process: StartBroker) -> None:
    daemon = await broker_process({"channel": {"namespaces": [{"name": "chat"}]}})
    daemon.allow_error(REPORT)
    daemon.config_file.unlink()
    daemon.signal(signal.SIGHUP)
    await daemon.wait_log(REPORT)
    assert "error" not in await daemon.api("publish", channel="chat:1", data=1)


# ---- refusing to start


@attrs.frozen
class Refusal:
    status: int
    text: str


async def refused(tmp_path: Path, config: dict[str, Any] | str, **more: Any) -> Refusal:
    """Start the daemon where it must not start."""
    file = tmp_path / "config.json"
    server = {"http_server": {"address": "127.0.0.1", "port": free_port()}}
    file.write_text(config if isinstance(config, str) else json.dumps(merged(merged(BASE_CONFIG, server), config)))
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            [sys.executable, "-m", "broker", "-c", str(file)],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            **more,
        )
    return Refusal(result.returncode, result.stderr.decode())


def assert_clear(refusal: Refusal, *words: str) -> None:
    assert refusal.status == 1
    assert "Traceback" not in refusal.text
    line = next((line for line in refusal.text.splitlines() if all(word in line for word in words)), None)
    assert line is not None, refusal.text


@ours_alone
async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refusal = await refused(tmp_path, {"http_server": {"port": port}})
    assert_clear(refusal, f"127.0.0.1:{port}", "Address already in use")


@ours_alone
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", ["config.json"]),
        ({"http_server": {"tls": {"enabled": True, "cert_pem": "/nowhere.pem"}}}, ["http_server.tls", "cert_pem"]),
        ({"http_server": {"tls": {"enabled": True}}}, ["http_server.tls"]),
        ({"broker": {"enabled": True, "type": "nats"}}, ["broker.type", "NATS"]),
        ({"engine": {"type": "paper"}}, ["engine.type", "paper"]),
        ({"webtransport": {"enabled": True}}, ["webtransport.enabled"]),
        ({"grpc_api": {"enabled": True}}, ["grpc_api.enabled"]),
        ({"client": {"ping_interval": "soon"}}, ["client.ping_interval", "soon"]),
        ({"client": {"ping_interval": "5s", "pong_timeout": "5s"}}, ["ping_interval", "pong_timeout"]),
        (
            {"channel": {"namespaces": [{"name": "chat", "channel_regex": "("}]}},
            ["namespaces", "chat", "channel_regex"],
        ),
        ({"channel": {"namespaces": [{"name": "x"}]}}, ["namespaces[0].name"]),
        ({"channel": {"namespaces": [{"name": "chat", "history_size": 1}]}}, ["chat", "history_ttl"]),
        ({"client": {"token": {"rsa_public_key": "no key"}}}, ["client.token.rsa_public_key"]),
        ({"pid_file": "/nowhere/broker.pid"}, ["pid_file", "/nowhere/broker.pid"]),
    ],
)
async def test_a_configuration_that_cannot_be(tmp_path: Path, config: dict[str, Any], words: list[str]) -> None:
    assert_clear(await refused(tmp_path, config), *words)


@ours_alone
async def test_every_bad_key_is_reported(tmp_path: Path) -> None:
    shapes = {"client": {"ping_interval": "soon", "channel_limit": "many"}}
    rules = {"engine": {"type": "paper"}, "channel": {"namespaces": [{"name": "chat", "history_size": 1}]}}
    for config, keys in (
        (shapes, ["client.ping_interval", "client.channel_limit"]),
        (rules, ["engine.type", "channel.namespaces[chat].history_ttl"]),
    ):
        refusal = await refused(tmp_path, config)
        for key in keys:
            assert_clear(refusal, key)


# ---- settings from outside the file


async def test_variables_win_over_the_file_and_flags_over_both(broker_process: StartBroker) -> None:
    env = {"CENTRIFUGO_CHANNEL_NAMESPACES": "news", "CENTRIFUGO_HTTP_API_KEY": "from a variable"}
    daemon = await broker_process({"channel": {"namespaces": []}}, env=env, args=["--http_api.insecure"])
    assert "result" in await daemon.api("publish", channel="news:1", data=1)


@ours_alone
async def test_variables_of_our_own_win_over_centrifugos(broker_process: StartBroker) -> None:
    env = {"CENTRIFUGO_CHANNEL_NAMESPACES": "theirs", "BROKER_CHANNEL_NAMESPACES": "ours"}
    daemon = await broker_process(env=env)
    assert "result" in await daemon.api("publish", channel="ours:1", data=1)
    assert "error" in await daemon.api("publish", channel="theirs:1", data=1)


async def test_an_unknown_key_is_a_warning(broker_process: StartBroker) -> None:
    daemon = await broker_process({"client": {"no_such_option": 1}}, env={"CENTRIFUGO_NO_SUCH": "1"})
    assert "client.no_such_option" in (await daemon.wait_log("unknown key"))[0]
    assert "CENTRIFUGO_NO_SUCH" in (await daemon.wait_log("unknown var"))[0]


@ours_alone
async def test_development_settings_need_no_file(tmp_path: Path) -> None:
    """What `make run` starts: prints where it is and one line to try, and that line works."""
    port = free_port()
    command = [sys.executable, "-m", "broker", "--dev", "--http_server.port", str(port)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        await _try_what_it_says(process, port)
        process.terminate()
        with trio.fail_after(PATIENCE):
            assert await process.wait() == 0
    finally:
        await process.stdout.aclose()  # type: ignore[union-attr]
        process.kill()
        await process.wait()


async def _try_what_it_says(process: trio.Process, port: int) -> None:
    said = b""
    assert process.stdout is not None
    with trio.fail_after(PATIENCE):
        while b"curl" not in said or not said.endswith(b"\n"):
            said += await process.stdout.receive_some()
    assert f":{port}" in said.decode()
    page = await request(port, "GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert (await request(port, "HEAD", "/")).body == b""
    assert (await request(port, "GET", "/nothing")).status == 404
    assert (await request(port, "POST", "/", {}, b"x")).status == 405
    answer = await request(port, "POST", "/api/publish", {}, b'{"channel":"hello","data":{"text":"hi"}}')
    assert answer.json()["result"]["offset"] == 1


@ours_alone
async def test_a_signal_after_the_last_word_is_ignored(broker_process: StartBroker) -> None:
    daemon = await broker_process()
    daemon.signal(signal.SIGTERM)
    while daemon.process.poll() is None:
        daemon.signal(signal.SIGTERM)
        await trio.lowlevel.checkpoint()
    assert await daemon.exited() == 0


@ours_alone
async def test_a_short_timeout_is_enough_for_a_peer_that_never_closes(broker_process: StartBroker) -> None:
    daemon = await broker_process({**INSECURE, "shutdown": {"timeout": "4s"}})
    async with await stalled(daemon, "any"):
        daemon.signal(signal.SIGTERM)
        assert await daemon.exited() == 0
