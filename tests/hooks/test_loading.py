"""The application's module: imported, imported anew, and left alone when the new one is broken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.hooks import HooksError, load_hooks

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
