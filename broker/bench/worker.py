"""The process of the load: `python -m broker.bench.worker`, one round, told and answered in lines of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from broker.bench.figures import Outcome, Settings
from broker.bench.load import Load, calm
from broker.bench.shapes import SHAPES
from broker.bench.target import Target
from broker.bench.usage import raise_file_limit


def main() -> None:
    order = json.load(sys.stdin)
    if order["cores"]:
        os.sched_setaffinity(0, order["cores"])
    limit = raise_file_limit()
    settings = Settings(**order["settings"])
    if settings.connections > limit - 100:
        tell(failed=f"{settings.connections} connections need more open files than the {limit} that the system allows")
        return
    try:
        tell(outcome=measure(SHAPES[order["shape"]].measure, Target.from_json(order["target"]), settings).as_json())
    except (OSError, RuntimeError, ValueError) as error:
        tell(failed=str(error))


def measure(shape: Callable[[Load], Outcome], target: Target, settings: Settings) -> Outcome:
    with calm(), Load(target, settings, lambda what, share: tell(what=what, share=share)) as load:
        return shape(load)


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
