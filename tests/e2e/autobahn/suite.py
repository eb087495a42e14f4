"""The Autobahn test suite, which is Python 2: found or installed, run against an address, its report read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import trio

_HOME: Final = Path(__file__).parents[3] / ".cache" / "autobahn"
_VERSION: Final = "autobahntestsuite==0.8.2"
_MAKER: Final = "virtualenv<20.22"
"""The last that makes environments for Python 2.7."""
_INSTALL_SECONDS: Final = 300
_RUN_SECONDS: Final = 180


class Unavailable(Exception):
    """The suite cannot run here, and why."""


def find_python2() -> Path:
    """A Python 2.7 that starts: on the PATH, or one of pyenv's.

    Raises:
        Unavailable: there is none.
    """
    names = ("python2.7", "python2")
    candidates = [Path(found) for name in names if (found := shutil.which(name))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += sorted(pyenv.glob("versions/2.7*/bin/python"))
    for candidate in candidates:
        command = [candidate, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return candidate
    raise Unavailable("no Python 2.7 on the PATH or in pyenv: the Autobahn suite needs it")


async def install() -> Path:
    """The suite's program; the first time it is installed into `.cache/`.

    Raises:
        Unavailable: no Python 2.7, or no package index.
    """
    program, whole = _HOME / "env" / "bin" / "wstest", _HOME / "installed"
    if whole.exists() and program.exists():
        return program
    python2 = await trio.to_thread.run_sync(find_python2)
    shutil.rmtree(_HOME, ignore_errors=True)
    maker = _HOME / "maker"
    for command in (
        [sys.executable, "-m", "venv", maker],
        [maker / "bin" / "pip", "install", _MAKER],
        [maker / "bin" / "virtualenv", "-p", python2, _HOME / "env"],
        [_HOME / "env" / "bin" / "pip", "install", _VERSION],
        [program, "--help"],
    ):
        with trio.move_on_after(_INSTALL_SECONDS) as late:
            done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
        if late.cancelled_caught or done.returncode:
            output = "" if late.cancelled_caught else done.stdout.decode(errors="replace")[-500:]
            raise Unavailable(f"{' '.join(map(str, command))} failed: {output}")
    whole.touch()
    return program


async def fuzz(program: Path, folder: Path, port: int, cases: Sequence[str]) -> dict[str, dict[str, str]]:
    """Run `cases` against the server at `port`: case -> its part of the report."""
    spec = {
        "outdir": str(folder / "report"),
        "servers": [{"agent": "broker", "url": f"ws://127.0.0.1:{port}"}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    with trio.fail_after(_RUN_SECONDS):
        await trio.run_process(
            [program, "-m", "fuzzingclient", "-s", folder / "spec.json"],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    report = json.loads((folder / "report" / "index.json").read_text())
    return dict(report["broker"])
