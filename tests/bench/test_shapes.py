"""Every load shape, run small against the daemon: that it counts right, not how fast it is."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from benchmarks.__main__ import main
from benchmarks.candidates import by_command
from benchmarks.certificate import make_certificate
from broker.bench import SHAPES, Asked, Failed, Outcome, Settings, Target, daemon, floor, local, run_load, running
from broker.cli import run

pytestmark = pytest.mark.e2e

SMALL = {"connections": 20, "seconds": 0.1, "rate": 2000.0, "flood": 40}
UNPINNED = ["--server-core", "-1", "--load-core", "-1"]
TINY = ["--rounds", "1", "--clients", "20", "--duration", "0.1"]


@pytest.fixture(autouse=True, scope="module")
def file_limit() -> Iterator[None]:
    """The command raises the limit of open files; other tests shall not live with it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def server() -> Iterator[Target]:
    with running(daemon(), asked=Asked()) as target:
        yield target


def small(name: str, target: Target, **more: object) -> Outcome:
    settings: Settings = attrs.evolve(SHAPES[name].defaults, **(SMALL | more))
    return run_load(SHAPES[name], target, settings)


def test_clients_that_connect_through_a_backend() -> None:
    with running(daemon(), asked=SHAPES["W13"].asked) as target:
        assert small("W13", target).figures["p99 with / without"] > 0


def test_a_redis_that_is_killed_and_comes_back(server: Target) -> None:
    with running(daemon(), own_redis=True) as target:
        figures = small("W8", target).figures
    assert figures["s to all"] > 0
    assert figures["refused"] > 0
    with pytest.raises(Failed, match="started for it"):
        small("W8", server)


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if not shape.own_redis])
def test_shape(name: str, server: Target) -> None:
    figure = SHAPES[name].figure
    assert small(name, server).figures[figure] > 0 or figure == "KiB/connection"  # so few may fit into what is there


@pytest.mark.parametrize("name", ["W3p", "W9d", "W10n", "W11"])
def test_shape_in_protobuf(name: str, server: Target) -> None:
    outcome = small(name, attrs.evolve(server, codec="protobuf"))
    assert outcome.figures[SHAPES[name].figure] > 0


@pytest.mark.parametrize(
    ("transport", "codec"),
    [("sse", "json"), pytest.param("http_stream", "protobuf", marks=pytest.mark.long)],
)
def test_streams_longer_than_a_pong_may_take(transport: str, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not answer the first pings is cut off within 3.9 s."""
    pings = {"insecure": True, "ping_interval": "2s", "pong_timeout": "1900ms"}
    monkeypatch.setitem(local.CONFIG, "client", pings)
    with running(daemon(), transport=transport, codec=codec) as target:
        assert target.transport == transport
        assert small("W3p", target, seconds=4.2, rate=400.0).figures["deliveries/CPU-s"] > 0
        assert small("W1", target, seconds=0.3).figures["deliveries/CPU-s"] > 0


@pytest.mark.parametrize("name", ["W4", "W11", "W11r"])
def test_shapes_whose_clients_speak_are_for_websocket(name: str, server: Target) -> None:
    with pytest.raises(Failed, match="over WebSocket only"):
        small(name, attrs.evolve(server, transport="sse"))


@pytest.mark.parametrize("name", ["W3p", "W9"])
def test_shape_over_tls(name: str, tmp_path: Path) -> None:
    with running(daemon(), tls=make_certificate(tmp_path)) as target:
        assert target.link.tls
        assert small(name, target).figures[SHAPES[name].figure] > 0


def test_subscribers_in_several_processes(server: Target) -> None:
    outcome = small("W3s", server, processes=3, in_flight=4)
    assert outcome.figures["deliveries/CPU-s"] > 0
    assert outcome.latency.total > 0
    assert outcome.timeline


def test_stalls_are_looked_for(server: Target) -> None:
    assert small("W3p", server, stall=True, seconds=0.3).figures["stall ms"] > 0


def test_a_namespace_with_history(server: Target) -> None:
    assert small("W3p", server, namespace="kept").figures["deliveries/CPU-s"] > 0


def test_subscriptions_of_callers(server: Target) -> None:
    assert small("W11", server, subscriptions=10).figures["commands/CPU-s"] > 0


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.has_floor])
def test_floor(name: str) -> None:
    with running(floor(), asked=SHAPES[name].asked) as target:
        assert small(name, target).figures[SHAPES[name].figure] > 0


def test_a_server_by_url_and_pid(server: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "figures.json"
    url = f"ws://127.0.0.1:{server.link.port}"
    arguments = ["w9", "W2n", "--url", url, "--pid", str(server.pids[0]), "--json", str(written), *TINY]
    assert run(["bench", *arguments, "--no-pin"]) == 0
    assert f"127.0.0.1:{server.link.port}" in capsys.readouterr().out
    w9, w2n = json.loads(written.read_text())
    assert w9["figure"] == "publishes/CPU-s"
    assert len(w9["rounds"][f"127.0.0.1:{server.link.port}"]) == 1
    assert w2n["shape"] == "W2n"


def test_two_servers_by_url(server: Target, capsys: pytest.CaptureFixture[str]) -> None:
    with running(daemon()) as other:
        urls = ["--url", f"ws://127.0.0.1:{server.link.port}", "--compare", f"ws://127.0.0.1:{other.link.port}"]
        pids = ["--pid", str(server.pids[0]), "--pid2", str(other.pids[0])]
        assert run(["bench", "W9", *urls, *pids, *TINY, "--no-pin"]) == 0
    assert f"127.0.0.1:{server.link.port} / 127.0.0.1:{other.link.port}: " in capsys.readouterr().out


def test_one_command_for_newcomers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "w3", "--floor", *TINY, "--no-pin"]) == 0
    assert "broker / floor" in capsys.readouterr().out


def test_servers_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    peer = f"twin={sys.executable} -m broker -c {{config}}"
    assert main(["W3p", "--compare", "--peer", peer, "--rate", "2000", *TINY, *UNPINNED]) == 0
    out = capsys.readouterr().out
    for pair in ("broker / twin", "broker / floor", "twin / floor"):
        assert pair in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "from 1 to 50"),
        (["--clients", "1000000"], "from 1 to 100000"),
        (["--payload", "70000"], "from 48 to 60000"),
        (["--server", "nobody"], "there are broker"),
        (["--peer", "some server"], "{port}"),
        (["--yardstick", "/nowhere.py"], "/nowhere.py"),
        (["--python", "/nowhere"], "does not run"),
        (["--server-core", "4096"], "no core 4096"),
        (["W99"], "there is no shape W99"),
    ],
)
def test_bad_arguments_are_said_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["W9", *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://192.0.2.1"], "--allow-remote"),
        (["--url", "ftp://127.0.0.1"], "no ws://"),
        (["--compare", "ws://127.0.0.1"], "--compare needs --url"),
        (["--url", "ws://127.0.0.1", "--compare", "ws://127.0.0.1"], "another address"),
        (["--url", "ws://127.0.0.1", "--transport", "sse", "--codec", "protobuf"], "JSON only"),
    ],
)
def test_what_cannot_be_loaded(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "W9", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_server_that_does_not_start_is_quoted_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    peer = f"broken={sys.executable} -c 'raise SystemExit(\"no luck\")' {{port}}"
    assert main(["W9d", "--peer", peer, "--compare", *TINY, *UNPINNED]) == 1
    out, err = capsys.readouterr()
    assert "broker ┃" in out
    assert "W9d: broken: it ended with status 1 before it was ready" in err
    assert "no luck" in err


def test_refusals_of_the_server_are_told(server: Target) -> None:
    with pytest.raises(Failed, match="404"):
        small("W9", attrs.evolve(server, api=attrs.evolve(server.api, path="/nowhere")))
    with pytest.raises(Failed, match="refused the connection"):
        small("W9", attrs.evolve(server, link=attrs.evolve(server.link, path="/nowhere")))
    with pytest.raises(Failed, match="--pid"):
        small("W2", attrs.evolve(server, pids=()))
    with pytest.raises(Failed, match="no secret"):
        small("W10", attrs.evolve(server, token_secret=""))


def test_more_connections_than_files() -> None:
    target = Target.at("ws://127.0.0.1:1")
    with pytest.raises(Failed, match="open files"):
        small("W2n", target, connections=5_000_000)


def test_names_of_servers() -> None:
    assert by_command("/usr/bin/centrifugo -c {config}").name == "centrifugo"
    assert by_command("mine=/usr/bin/centrifugo --http_server.port={port}").name == "mine"
