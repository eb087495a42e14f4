"""How the server is watched: counters, metrics, logs."""

from broker.observe.counters import COMMAND_BUCKETS, Calls, Counters, Durations
from broker.observe.logs import set_up_logs
from broker.observe.metrics import Metrics, Read, Reader
from broker.observe.options import HealthOptions, LogOptions, PrometheusOptions

__all__ = [
    "COMMAND_BUCKETS",
    "Calls",
    "Counters",
    "Durations",
    "HealthOptions",
    "LogOptions",
    "Metrics",
    "PrometheusOptions",
    "Read",
    "Reader",
    "set_up_logs",
]
