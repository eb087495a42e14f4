"""Processes that tests start end with the tests, also where those are killed and clean up nothing."""

from __future__ import annotations

import shutil
from typing import Final

__all__ = ["WITH_US"]

WITH_US: Final = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()
"""In front of a command that the main thread starts: it becomes the command, which the kernel kills when we end."""
