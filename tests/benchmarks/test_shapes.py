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
from benchmarks.figures import Settings
from benchmarks.servers import Cores, Server, broker, by_command, floor, running
from benchmarks.shapes import SHAPES
from benchmarks.sockets import Stuck

pytestmark = pytest.mark.e2e

ANY_CORE = Cores(None, None)
SMALL = {"connections": 20, "seconds": 0.1, "rate": 2000.0}
UNPINNED = ["--server-core", "-1", "--load-core", "-1"]
TINY = ["--rounds", "1", "--connections", "20", "--seconds", "0.1", *UNPINNED]


@pytest.fixture(autouse=True, scope="module")
def file_limit() -> Iterator[None]:
    """The command raises the limit of open files; other tests shall not live with it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Server]:
    with running(broker(sys.executable), ANY_CORE) as server:
        yield server


def small(shape: str) -> Settings:
    return attrs.evolve(SHAPES[shape].defaults, **SMALL)


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str, daemon: Server) -> None:
    shape = SHAPES[name]
    figures = shape.measure(daemon, small(name))
    assert figures[shape.figure] > 0 or shape.figure == "KiB/connection"  # so few may fit into what is there


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.has_floor or name == "W3"])
def test_floor(name: str) -> None:
    shape = SHAPES[name]
    with running(floor(sys.executable), ANY_CORE) as server:
        assert shape.measure(server, small(name))[shape.figure] > 0


def test_a_server_by_url_and_pid(daemon: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "figures.json"
    url = f"http://127.0.0.1:{daemon.port}"
    arguments = ["W9", "W2n", "--url", url, "--server-pid", str(daemon.pids[0]), "--json", str(written), *TINY]
    assert main(arguments) == 0
    assert f"127.0.0.1:{daemon.port}" in capsys.readouterr().out
    w9, w2n = json.loads(written.read_text())
    assert w9["figure"] == "publishes/CPU-s"
    assert len(w9["rounds"][f"127.0.0.1:{daemon.port}"]) == 1
    assert w2n["shape"] == "W2n"


def test_servers_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    peer = f"twin={sys.executable} -m broker -c {{config}}"
    assert main(["W3p", "--compare", "--peer", peer, "--rate", "2000", *TINY]) == 0
    out = capsys.readouterr().out
    for pair in ("broker / twin", "broker / floor", "twin / floor"):
        assert pair in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["W9", "--url", "http://192.0.2.1"], "--allow-remote"),
        (["W9", "--url", "https://127.0.0.1"], "TLS"),
        (["W9", "--rounds", "0"], "from 1 to 50"),
        (["W9", "--connections", "1000000"], "from 1 to 100000"),
        (["W9", "--size", "70000"], "from 40 to 60000"),
        (["W9", "--server", "nobody"], "there are broker"),
        (["W9", "--peer", "some server"], "{port}"),
        (["W9", "--yardstick", "/nowhere.py"], "/nowhere.py"),
        (["W9", "--python", "/nowhere"], "does not run"),
        (["W9", "--server-core", "4096"], "no core 4096"),
        (["W99"], "invalid choice"),
    ],
)
def test_bad_arguments_are_said_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_server_that_does_not_start_is_quoted_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    peer = f"broken={sys.executable} -c 'raise SystemExit(\"no luck\")' {{port}}"
    assert main(["W9", "--peer", peer, "--compare", *TINY]) == 1
    out, err = capsys.readouterr()
    assert "│ broker" in out
    assert "W9: broken: it ended with status 1 before it was ready" in err
    assert "no luck" in err


def test_refusals_of_the_server_are_told(daemon: Server) -> None:
    shape = SHAPES["W9"]
    with pytest.raises(ConnectionError, match="404"):
        shape.measure(attrs.evolve(daemon, api_path="/nowhere"), small("W9"))
    with pytest.raises(ConnectionError, match="refused the upgrade"):
        shape.measure(attrs.evolve(daemon, path="/nowhere"), small("W9"))


def test_a_lost_delivery_is_told() -> None:
    """A floor whose subscribers are one fewer than the load believes."""
    from benchmarks.load import Load, Publications, drain

    with running(floor(sys.executable), ANY_CORE) as server, Load(server) as load:
        audience = load.subscribe(3, lambda _: "hot")
        api = load.open_api(1)
        publications = Publications(server, audience, ["hot"], 64)
        api.post(publications.make())
        with pytest.raises(Stuck, match="3 deliveries were counted where 2 are due"):
            drain(load, api, audience, lambda: 2)


def test_names_of_servers() -> None:
    assert by_command("/usr/bin/centrifugo -c {config}").name == "centrifugo"
    assert by_command("mine=/usr/bin/centrifugo --http_server.port={port}").name == "mine"
