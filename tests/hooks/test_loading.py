"""The application's module: imported, imported anew, and left alone when the new one is broken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from broker.hooks import HooksError, load_hooks
from broker.reload import CannotReload, prepare
from tests.support.peers import House, configured, open_house, secured, token

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file of an application in the working directory; its modules are forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


APP = "from broker.hooks import Hooks\nfrom theirs.words import WORD\napp = Hooks(http_headers=[WORD])\n"


def test_new_code_takes_the_place_of_the_old(write: Write) -> None:
    write("theirs/__init__.py", "")
    write("theirs/words.py", "WORD = 'one'\n")
    write("theirs/hooks.py", APP)
    old = load_hooks("theirs.hooks:app")
    assert old.app.http_headers == {"one"}
    assert {file.name for file in old.stamps} == {"__init__.py", "words.py", "hooks.py"}
    write("theirs/words.py", "WORD = 'other'\n")
    assert old.stamps_now() != old.stamps
    new = load_hooks("theirs.hooks:app", old)
    assert new.app.http_headers == {"other"}
    assert old.app.http_headers == {"one"}


@pytest.mark.parametrize("broken", ["WORD = (", "raise ValueError('boom')", "app = 1\nWORD = 1"])
def test_code_that_cannot_be_imported_changes_nothing(write: Write, broken: str) -> None:
    write("theirs/__init__.py", "")
    write("theirs/words.py", "WORD = 'one'\n")
    write("theirs/hooks.py", APP)
    old = load_hooks("theirs.hooks:app")
    modules = {name: sys.modules[name] for name in old.modules}
    write("theirs/words.py", broken)
    with pytest.raises(HooksError, match=r'^hooks: cannot import "theirs.hooks": '):
        load_hooks("theirs.hooks:app", old)
    assert {name: sys.modules[name] for name in old.modules} == modules
    write("theirs/words.py", "WORD = 'two'\n")
    assert load_hooks("theirs.hooks:app", old).app.http_headers == {"two"}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("single", 'not "package.module:attribute"'),
        ("nowhere_at_all:app", 'cannot import "nowhere_at_all"'),
        ("single_app:other", "is not a broker.hooks.Hooks"),
        ("single_app:number", "is not a broker.hooks.Hooks"),
    ],
)
def test_what_is_no_hooks(write: Write, spec: str, problem: str) -> None:
    write("single_app.py", "number = 1\n")
    with pytest.raises(HooksError, match=problem):
        load_hooks(spec)


def test_a_single_file(write: Write) -> None:
    write("single_app.py", "from broker.hooks import Hooks\napp = Hooks()\n")
    assert set(load_hooks("single_app:app").modules) == {"single_app"}


# ---- while it runs --------------------------------------------------------------------------------------------------

RUNNING = """
import trio

from broker.hooks import Hooks, RpcResult
from theirs.words import WORD

app = Hooks()


@app.on.rpc("word")
async def word(event):
    return RpcResult(data=WORD)


@app.on.rpc("plain")
def plain(event):
    return RpcResult(data=WORD)


@app.on.rpc("wait", timeout=60)
async def wait(event):
    await trio.sleep(10)
    await app.server.publish("news", WORD)
    return RpcResult(data=WORD)
"""
OPTIONS: Mapping[str, Any] = {**secured({"allow_subscribe_for_client": True}), "hooks": "theirs.hooks:app"}


async def reload(house: House) -> None:
    (await prepare(house.server, configured(OPTIONS)))()


async def says(client: Any, method: str) -> Any:
    return (await client.ask(rpc={"method": method}))["rpc"]["data"]


@pytest.mark.virtual_time(idle=0.02)  # threads have their time
async def test_calls_under_way_end_on_old_code_and_new_ones_begin_on_the_new(write: Write) -> None:
    write("theirs/__init__.py", "")
    write("theirs/words.py", "WORD = 'one'\n")
    write("theirs/hooks.py", RUNNING)
    async with open_house(OPTIONS) as house:
        old, new = [await house.connected(token=token("42")) for _ in range(2)]
        await new.ask(subscribe={"channel": "news"})
        await old.command(rpc={"method": "wait"})
        await trio.sleep(1)
        write("theirs/words.py", "WORD = 'other'\n")
        await reload(house)
        assert [await says(new, method) for method in ("word", "plain")] == ["other", "other"]
        assert (await new.push())["pub"]["data"] == "one"  # the old code's handle is as good as ever
        assert (await old.next())["rpc"]["data"] == "one"
        assert await says(old, "wait") == "other"
        assert (await new.push())["pub"]["data"] == "other"


@pytest.mark.virtual_time(idle=0.02)  # threads have their time
async def test_a_reload_that_fails_leaves_the_running_code(write: Write) -> None:
    write("theirs/__init__.py", "")
    write("theirs/words.py", "WORD = 'one'\n")
    write("theirs/hooks.py", RUNNING)
    async with open_house(OPTIONS) as house:
        client = await house.connected(token=token("42"))
        for broken in ("WORD = (", "import nowhere_at_all", "raise SystemExit(3)"):
            write("theirs/words.py", broken)
            with pytest.raises(CannotReload, match=r'cannot import "theirs\.hooks"'):
                await reload(house)
            assert [await says(client, method) for method in ("word", "plain")] == ["one", "one"]
        write("theirs/words.py", "WORD = 'two'\n")
        await reload(house)
        assert await says(client, "word") == "two"
