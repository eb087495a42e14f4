"""One round of load, run by a process of its own (`broker.bench.worker`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from typing import Any

import attrs

from broker.bench.figures import Outcome, Settings
from broker.bench.load import Say
from broker.bench.shapes import Shape
from broker.bench.target import Target

__all__ = ["Failed", "run_load"]


class Failed(RuntimeError):
    """A round did not come to its end, and why."""


def run_load(
    shape: Shape,
    target: Target,
    settings: Settings,
    cores: Collection[int] = (),
    say: Say = lambda what, share: None,
) -> Outcome:
    """One round in a new process.

    Args:
        cores: where it may run; nothing leaves the choice to the system.
        say: told how far it has come.

    Raises:
        Failed: the server refused, hung up, or delivered something wrong.
    """
    order = {
        "shape": shape.name,
        "target": target.as_json(),
        "settings": attrs.asdict(settings),
        "cores": list(cores),
    }
    command = [sys.executable, "-m", "broker.bench.worker"]
    answer: dict[str, Any] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(order))
            process.stdin.close()
            for line in process.stdout:
                answer = json.loads(line)
                if "share" in answer:
                    say(answer["what"], answer["share"])
        finally:
            process.kill()
    if "outcome" in answer:
        return Outcome.from_json(answer["outcome"])
    raise Failed(answer.get("failed", f"the process of the load ended with status {process.returncode}"))
