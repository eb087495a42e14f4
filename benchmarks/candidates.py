"""The servers that are compared: the daemon of this checkout, a yardstick, peers by their command, and the floor."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from broker.bench import Candidate

__all__ = ["by_command", "interpreter", "yardstick"]


def yardstick(python: str, path: str) -> Candidate:
    """The existence proof of the daemon's shape, a script that takes a port."""
    return Candidate("yardstick", f"{shlex.quote(python)} {shlex.quote(path)} --http_server.port {{port}}", simple=True)


def by_command(text: str) -> Candidate:
    """Any other server: `COMMAND` or `NAME=COMMAND`.

    Raises:
        ValueError: nothing in it says the port.
    """
    name, separator, command = text.partition("=")
    if not separator or not name.isidentifier():
        name, command = Path(shlex.split(text)[0]).name, text
    if "{port}" not in command and "{config}" not in command:
        raise ValueError(f"{command!r} does not say where {{port}} or {{config}} goes")
    return Candidate(name, command)


def interpreter(python: str) -> str:
    """What `python` is and where it comes from, in one line: builds of one version differ by half in speed."""
    code = "import sys; print(sys.version, getattr(sys, '_base_executable', sys.executable))"
    try:
        text = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"{python} does not run: {error}") from None
    return " ".join(text.split())
