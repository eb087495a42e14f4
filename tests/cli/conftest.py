"""Commands run in an empty folder, without what the environment of the tests may say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.cli import run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("CENTRIFUGO_", "BROKER_")):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def command(folder: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line; gives exit status, stdout and stderr."""

    def command(*argv: str) -> tuple[int, str, str]:
        status = run(argv)
        out, err = capsys.readouterr()
        return status, out, err

    return command
