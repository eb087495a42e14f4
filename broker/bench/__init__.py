"""Load shapes for any server that speaks Centrifugo's contract, and everything that measures them.

It knows the client protocol and the HTTP API, and nothing of the server: what it loads is a URL.
"""

from __future__ import annotations

from broker.bench.arguments import (
    add_load_arguments,
    add_result_arguments,
    files_of,
    settings_of,
    shape_list,
    shapes_of,
)
from broker.bench.figures import Figures, Outcome, Settings
from broker.bench.files import Files
from broker.bench.histogram import Histogram
from broker.bench.journal import Wrong
from broker.bench.local import Asked, Candidate, Cores, Tls, daemon, floor, running
from broker.bench.process import Failed, run_load
from broker.bench.report import machine
from broker.bench.rounds import Results, run_round, run_rounds
from broker.bench.shapes import SHAPES, Shape
from broker.bench.target import Target
from broker.bench.terminal import Plan, make_console, run_plans
from broker.bench.usage import raise_file_limit

__all__ = [
    "SHAPES",
    "Asked",
    "Candidate",
    "Cores",
    "Failed",
    "Figures",
    "Files",
    "Histogram",
    "Outcome",
    "Plan",
    "Results",
    "Settings",
    "Shape",
    "Target",
    "Tls",
    "Wrong",
    "add_load_arguments",
    "add_result_arguments",
    "daemon",
    "files_of",
    "floor",
    "machine",
    "make_console",
    "raise_file_limit",
    "run_load",
    "run_plans",
    "run_round",
    "run_rounds",
    "running",
    "settings_of",
    "shape_list",
    "shapes_of",
]
