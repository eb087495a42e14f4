"""Several workers on one port: what clients, operators and the parent's parent see of them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from broker.client import Backoff, Subscribed, connect
from tests.e2e.conftest import GetSdk, StartBroker
from tests.e2e.daemon import API_KEY, BASE_CONFIG, PEER, Daemon, merged
from tests.e2e.http import Answer, parse
from tests.e2e.test_process import REPORT, reloaded, wire
from tests.e2e.tokens import token
from tests.support.certificates import make_certificate
from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.redis import RedisServer

pytestmark = pytest.mark.skipif(bool(PEER), reason="ours alone")

KEPT = {
    "name": "kept",
    "history_size": 5000,
    "history_ttl": "300s",
    "force_recovery": True,
    "presence": True,
    "allow_presence_for_subscriber": True,
    "allow_publish_for_subscriber": True,
}
StartWorkers = Callable[..., Awaitable[Daemon]]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        server = RedisServer(Path(name))
        server.start()
        try:
            trio.run(server.wait_ready)
            yield server
        finally:
            server.kill()


@pytest.fixture
def start_workers(broker_process: StartBroker, redis: RedisServer) -> StartWorkers:
    """Starts a daemon with workers, all of them ready, and no keys of other tests."""

    async def start(workers: int, config: Mapping[str, Any] | None = None, **more: Any) -> Daemon:
        redis.ask("FLUSHALL")
        daemon = await broker_process(merged(configuration(workers, redis), config or {}), **more)
        await all_ready(daemon)
        return daemon

    return start


def configuration(workers: int, redis: RedisServer) -> dict[str, Any]:
    return {
        "workers": workers,
        "engine": {"type": "redis", "redis": {"address": f"redis://{redis.address}"}},
        "client": {"insecure": True},
        "channel": {"namespaces": [KEPT]},
    }


async def all_ready(daemon: Daemon) -> None:
    with trio.fail_after(PATIENCE):
        while True:
            with suppress(OSError):
                if (await daemon.get("/health?ready=1")).status == 200:
                    return
            await trio.sleep(0.02)


def workers_of(daemon: Daemon) -> dict[int, int]:
    """Worker -> process id."""
    found = {}
    children = Path(f"/proc/{daemon.process.pid}/task")
    for pid in " ".join((task / "children").read_text() for task in children.iterdir()).split():
        with suppress(OSError, ValueError):  # it has just ended, or not become a worker yet
            *_, number = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
            found[int(number)] = int(pid)
    return found


def lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def each_worker(daemon: Daemon, count: int, **command: Any) -> dict[str, dict[str, Any]]:
    """The answer of every worker to one command of the API, by the node's id: connections are spread by the system."""
    answers: dict[str, dict[str, Any]] = {}
    with trio.fail_after(PATIENCE):
        while len(answers) < count:
            info, answer = (await daemon.api("batch", commands=[{"info": {}}, command]))["replies"]
            answers[info["info"]["nodes"][0]["uid"]] = answer
    return answers


async def on_each_worker(daemon: Daemon, count: int, stack: AsyncExitStack) -> list[WebSocketConnection]:
    """Clients, until each worker has one."""
    clients: list[WebSocketConnection] = []
    for _ in range(20 * count):
        clients.append(await stack.enter_async_context(wire(daemon)))
        if len(clients) >= count:
            answers = await each_worker(daemon, count, info={})
            if all(answer["info"]["nodes"][0]["num_clients"] for answer in answers.values()):
                return clients
    raise AssertionError("one worker gets nobody")


async def nodes(daemon: Daemon) -> list[dict[str, Any]]:
    return list((await daemon.api("info"))["result"]["nodes"])


async def goodbye(websocket: WebSocketConnection) -> int | None:
    """The code that it was closed with."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await websocket.get_message()
            except ConnectionClosed as closed:
                return closed.reason.code if closed.reason is not None else None


# ---- one server to its clients


async def test_the_sdk_speaks_to_all_of_them_as_to_one(start_workers: StartWorkers, get_sdk: GetSdk) -> None:
    """Nine clients, spread by the system; what streams send by requests of their own finds their session."""
    daemon = await start_workers(3, {"http_stream": {"enabled": True}, "sse": {"enabled": True}})
    sdk = await get_sdk("js", "json")
    everybody = range(9)
    clients = []
    for n in everybody:
        way = ("websocket", "http_stream", "sse")[n % 3]
        url, options = daemon.websocket, {}
        if way != "websocket":
            url = f"{daemon.http}/connection/{way}"
            options = {"transport": way, "emulation": f"{daemon.http}/emulation"}
        clients.append(await sdk.connected(url, f"c{n}", token=token(f"u{n}"), **options))
        await clients[-1].subscribe("kept:room")
    for n, client in enumerate(clients):
        await client.publish("kept:room", {"n": n})
    for client in clients:
        assert [(await client.publication("kept:room"))["data"] for _ in clients] == [{"n": n} for n in everybody]
    assert {info["user"] for info in (await clients[0].presence("kept:room")).values()} == {f"u{n}" for n in everybody}
    await daemon.api("disconnect", user="u5", disconnect={"code": 4501, "reason": "go"})
    assert (await clients[5].event("disconnected"))["code"] == 4501
    for client in clients[:5] + clients[6:]:
        await client.disconnect()


async def test_the_api_answers_for_all_and_metrics_are_sums(start_workers: StartWorkers) -> None:
    daemon = await start_workers(3)
    async with AsyncExitStack() as stack:
        clients = await on_each_worker(daemon, 3, stack)
        described: list[dict[str, Any]] = []
        with trio.fail_after(PATIENCE):  # nodes tell each other every 3 s, and another one may answer each time
            while sum(node["num_clients"] for node in described) != len(clients):
                await trio.sleep(0.05)
                described = await nodes(daemon)
        assert {re.sub(r".*_", "", node["name"]) for node in described} == {"1", "2", "3"}
        assert len(set(workers_of(daemon))) == 3
        for _ in range(6):
            await daemon.api("publish", channel="x", data=1)
        assert await published(daemon, 6) == 6
        gauges = await daemon.gauges()
        assert gauges["clients"] == len(clients)
        assert gauges["nodes"] == 3
        text = (await daemon.get("/metrics")).body.decode()
        assert len(re.findall(r'(?m)^process_resident_memory_bytes\{worker="\d"\}', text)) == 3
        assert re.findall(r'(?m)^centrifugo_worker_up\{worker="(\d)"\} 1.0', text) == ["1", "2", "3"]


async def published(daemon: Daemon, least: int) -> int:
    """What all workers have counted, once that is enough: of one that is too busy to answer, its last answer counts."""
    with trio.fail_after(PATIENCE):
        while True:
            text = (await daemon.get("/metrics")).body.decode()
            found = re.findall(r'(?m)^centrifugo_node_messages_sent_count\{.*type="publication"\} (\S+)$', text)
            if (count := sum(map(float, found))) >= least:
                return int(count)
            await trio.sleep(0.05)


async def test_every_way_in_is_shared(start_workers: StartWorkers, tmp_path: Path) -> None:
    """TLS outside, the API and health on an internal port, a Unix socket."""
    cert, key = make_certificate(tmp_path)
    inside, path = free_port(), tmp_path / "s"
    daemon = await start_workers(
        2,
        {
            "http_server": {
                "internal_address": "127.0.0.1",
                "internal_port": str(inside),
                "unix_socket": str(path),
                "tls": {"enabled": True, "cert_pem": str(cert), "key_pem": str(key)},
                "tls_external": True,
            }
        },
        health_port=inside,
    )
    assert len(await each_worker(daemon, 2, channels={})) == 2
    context = ssl.create_default_context(cafile=str(cert))
    url = f"wss://127.0.0.1:{daemon.outside}/connection/websocket"
    async with connect(url, ssl_context=context) as over_tls, over_tls.subscribe("room") as heard:
        await daemon.api("publish", channel="room", data=1)
        assert (await anext(heard)).data == b"1"
    async with await trio.open_unix_socket(path) as stream:
        head = f"POST /api/info HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nConnection: close\r\nContent-Length: 2"
        await stream.send_all(head.encode() + b"\r\n\r\n{}")
        assert parse(b"".join([chunk async for chunk in stream])).status == 404  # it is the external side
    await daemon.stop()
    assert not path.exists()


# ---- a worker dies


async def test_a_killed_worker_costs_nobody_a_message(start_workers: StartWorkers) -> None:
    """kill -9 under load: it is started again, and its clients recover elsewhere from the history in Redis."""
    daemon = await start_workers(3)
    daemon.allow_error("a worker has ended")
    got: dict[int, list[bytes]] = {}
    recovered: list[bool] = []
    everything = 300
    subscribed = trio.Event()
    killed = workers_of(daemon)[2]

    async def read(n: int) -> None:
        seen = got[n] = []
        async with (
            connect(daemon.websocket, backoff=Backoff(0.01, 0.2)) as client,
            client.subscribe("kept:load") as subscription,
        ):
            while len(seen) < everything:
                event = await subscription.next_event()
                if isinstance(event, Subscribed):
                    recovered.append(event.was_recovering and event.recovered)
                    if len(recovered) == 12:
                        subscribed.set()
                elif hasattr(event, "data"):
                    seen.append(event.data)

    async def publish(n: int) -> None:
        """Until it is acknowledged; more than once is once."""
        while True:
            with suppress(OSError, ValueError, AssertionError):
                reply = await daemon.api("publish", channel="kept:load", data=n, idempotency_key=str(n))
                if "result" in reply:
                    return

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for n in range(12):
                nursery.start_soon(read, n)
            await subscribed.wait()
            for n in range(everything):
                if n == 100:
                    os.kill(killed, signal.SIGKILL)
                await publish(n)
    assert all(seen == [str(n).encode() for n in range(everything)] for seen in got.values())
    assert len(recovered) == 12 or all(recovered[12:])
    await all_ready(daemon)
    assert workers_of(daemon)[2] != killed
    text = (await daemon.get("/metrics")).body.decode()
    assert 'centrifugo_worker_restarts_count{worker="2"} 1.0' in text


async def first_answer(daemon: Daemon, path: str) -> Answer:
    """Of many connections: those that a stopped worker is given get none."""
    answers: list[Answer] = []
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with suppress(OSError):
                    answers.append(await daemon.get(path))
                    nursery.cancel_scope.cancel()

            for _ in range(20):
                nursery.start_soon(ask)
    return answers[0]


async def test_not_ready_while_one_is_not_and_counters_never_go_back(start_workers: StartWorkers) -> None:
    daemon = await start_workers(2)
    daemon.allow_error("a worker has ended")
    for _ in range(10):
        await daemon.api("publish", channel="x", data=1)
    assert await published(daemon, 10) == 10
    worker = workers_of(daemon)[1]
    os.kill(worker, signal.SIGSTOP)
    with trio.fail_after(PATIENCE):
        while True:
            answer = await first_answer(daemon, "/health?ready=1")
            if answer.json() == {"waiting_for": ["worker 1: it does not answer"]}:  # and nobody is too busy to answer
                break
    assert answer.status == 503
    assert (await first_answer(daemon, "/health")).status == 200
    os.kill(worker, signal.SIGKILL)
    await daemon.wait_log("a worker has ended")
    await daemon.wait_log('"worker": 1, .*a worker serves', 2)
    await all_ready(daemon)
    assert await published(daemon, 10) == 10


async def test_while_redis_is_away_a_dead_worker_is_tried_again_and_again(broker_process: StartBroker) -> None:
    with tempfile.TemporaryDirectory(prefix="redis-") as name:
        redis = RedisServer(Path(name))
        redis.start()
        await redis.wait_ready()
        daemon = await broker_process(configuration(2, redis))
        daemon.allow_error("a worker has ended|a worker cannot start")
        await all_ready(daemon)
        redis.kill()
        os.kill(workers_of(daemon)[1], signal.SIGKILL)
        (first,) = await daemon.wait_log("a worker cannot start")
        await daemon.wait_log("a worker cannot start", 2)
        assert "engine.redis" in json.loads(first)["error"]
        pauses = [json.loads(line)["starts_again_in"] for line in await daemon.wait_log("a worker has ended", 2)]
        assert pauses[0] <= 0.2
        assert 0.2 <= pauses[1] <= 0.4
        redis.start()
        await redis.wait_ready()
        await all_ready(daemon)
        await daemon.stop()
        redis.kill()


# ---- what the parent passes on


async def test_a_reload_reaches_all_and_a_bad_one_none(start_workers: StartWorkers) -> None:
    daemon = await start_workers(3)
    daemon.allow_error(REPORT)
    await reloaded(daemon, {"channel": {"namespaces": [KEPT, {"name": "news"}]}, "workers": 2})
    assert json.loads((await daemon.wait_log("restart to use them"))[0])["options"] == ["workers"]
    await daemon.wait_log("configuration reloaded")
    publish = {"channel": "news:1", "data": 1}
    assert all("publish" in answer for answer in (await each_worker(daemon, 3, publish=publish)).values())

    await reloaded(daemon, {"channel": {"namespaces": [{"name": "chat", "channel_regex": "("}]}})
    assert "channel_regex" in (await daemon.wait_log(REPORT))[0]
    await reloaded(daemon, {"hooks": "no.such:module"})  # what only the workers find out
    assert "no" in (await daemon.wait_log(REPORT, 2))[1]
    assert len(await daemon.wait_log(REPORT, 2)) == 2
    assert all("publish" in answer for answer in (await each_worker(daemon, 3, publish=publish)).values())

    # a worker that starts now has what the others have, whatever the file says
    daemon.allow_error("a worker has ended")
    os.kill(workers_of(daemon)[3], signal.SIGKILL)
    await daemon.wait_log('"worker": 3, .*a worker serves', 2)
    assert all("publish" in answer for answer in (await each_worker(daemon, 3, publish=publish)).values())
    assert [line for line in daemon.log if REPORT in line][2:] == []


async def test_sigterm_drains_all_and_more_signals_change_nothing(start_workers: StartWorkers, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    daemon = await start_workers(3, {"pid_file": str(file)})
    assert int(file.read_text()) == daemon.process.pid
    workers = workers_of(daemon)
    async with AsyncExitStack() as stack:
        clients = await on_each_worker(daemon, 3, stack)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            daemon.signal(number)
        assert [await goodbye(client) for client in clients] == [3001] * len(clients)
    assert await daemon.exited() == 0
    assert not file.exists()
    assert not any(map(lives, workers.values()))


async def test_one_worker_can_be_sent_away(start_workers: StartWorkers) -> None:
    """SIGTERM for a worker alone: it says goodbye, and another one takes its place."""
    daemon = await start_workers(2)
    daemon.allow_error("a worker has ended")
    before = workers_of(daemon)
    os.kill(before[1], signal.SIGTERM)
    (line,) = await daemon.wait_log("a worker has ended")
    assert json.loads(line)["how"] == "ended with status 0"
    await daemon.wait_log('"worker": 1, .*a worker serves', 2)
    after = workers_of(daemon)
    assert after[1] != before[1]
    assert after[2] == before[2]


async def test_no_worker_outlives_its_parent(start_workers: StartWorkers) -> None:
    daemon = await start_workers(2)
    workers = workers_of(daemon)
    async with AsyncExitStack() as stack:
        clients = await on_each_worker(daemon, 2, stack)
        daemon.process.kill()
        daemon.process.wait()
        assert [await goodbye(client) for client in clients] == [3001] * len(clients)
        with trio.fail_after(PATIENCE):
            while any(map(lives, workers.values())):  # noqa: ASYNC110 (nobody tells us)
                await trio.sleep(0.02)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", daemon.outside))  # and the port is free
        sock.listen()
    daemon.process.returncode = 0  # what the fixture wants to hear of one that we have killed ourselves


# ---- refusing to start


async def refused(tmp_path: Path, config: dict[str, Any], *args: str) -> tuple[int, str]:
    port = free_port()
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps(merged(merged(BASE_CONFIG, {"http_server": {"address": "127.0.0.1", "port": port}}), config))
    )
    with trio.fail_after(PATIENCE):
        ended = await trio.run_process(
            [sys.executable, "-m", "broker", "-c", str(file), *args], check=False, capture_stderr=True, cwd=tmp_path
        )
    text = ended.stderr.decode()
    assert "Traceback" not in text
    return ended.returncode, "\n".join(line for line in text.splitlines() if not line.startswith("{"))


async def test_the_memory_engine_is_for_one(tmp_path: Path) -> None:
    status, text = await refused(tmp_path, {}, "--workers=2")
    assert status == 1
    assert text.splitlines()[1:] == [
        "  workers: 2 workers would not share the memory engine, which lives in one process; "
        "set engine.type to redis (docs/redis.md), or workers to 1 (from --workers)"
    ]


async def test_what_cannot_start_says_the_same_as_one_process_does(tmp_path: Path, redis: RedisServer) -> None:
    with socket.socket() as taken, socket.socket() as shared:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(("127.0.0.1", 0))
        shared.listen()
        of_the_parent = {"http_server": {"port": taken.getsockname()[1]}}
        of_the_workers = {"hooks": "no.such:module"}
        for config in (of_the_parent, of_the_workers):
            several = await refused(tmp_path, merged(configuration(3, redis), config))
            assert several == await refused(tmp_path, merged(configuration(1, redis), config))
            assert several[0] == 1
            assert len(several[1].splitlines()) == 1, several
        port = shared.getsockname()[1]  # also where somebody listens who would share it
        status, text = await refused(tmp_path, merged(configuration(2, redis), {"http_server": {"port": port}}))
        assert (status, text) == (1, f"broker: http_server: cannot listen on 127.0.0.1:{port}: Address already in use")


# ---- systemd


@pytest.fixture
async def notified(tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Waits for a notification with a word in it, and gives everything that came before it."""
    path = tmp_path / "notify"
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    await sock.bind(str(path))

    async def until(word: str) -> str:
        said = ""
        with trio.fail_after(PATIENCE):
            while word not in said:
                said += (await sock.recv(4096)).decode() + "\n"
        return said

    yield until
    sock.close()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_service_manager_is_told(
    start_workers: StartWorkers, notified: Callable[[str], Awaitable[str]], tmp_path: Path, workers: int
) -> None:
    daemon = await start_workers(workers, env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"})
    assert (await notified("READY=1")).split() == ["READY=1"]
    await notified("WATCHDOG=1")
    daemon.signal(signal.SIGHUP)
    assert "MONOTONIC_USEC=" in await notified("RELOADING=1")
    assert "RELOADING" not in await notified("READY=1")
    daemon.signal(signal.SIGTERM)
    assert "READY" not in await notified("STOPPING=1")
    assert await daemon.exited() == 0
