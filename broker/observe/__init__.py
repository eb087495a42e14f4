"""How the server is watched: counters, metrics, logs."""

from broker.observe.aggregate import Aggregate
from broker.observe.counters import COMMAND_BUCKETS, Calls, Counters, Durations
from broker.observe.logs import set_up_logs
from broker.observe.merge import as_data, from_data, lasting, merged, of_worker
from broker.observe.metrics import CONTENT_TYPE, Metrics, Read, Reader, render
from broker.observe.options import HealthOptions, LogOptions, PrometheusOptions

__all__ = [
    "COMMAND_BUCKETS",
    "CONTENT_TYPE",
    "Aggregate",
    "Calls",
    "Counters",
    "Durations",
    "HealthOptions",
    "LogOptions",
    "Metrics",
    "PrometheusOptions",
    "Read",
    "Reader",
    "as_data",
    "from_data",
    "lasting",
    "merged",
    "of_worker",
    "render",
    "set_up_logs",
]
