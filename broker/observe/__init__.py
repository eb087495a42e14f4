"""How the server is watched: counters, metrics, logs."""

from broker.observe.counters import COMMAND_BUCKETS, Counters, Durations
from broker.observe.logs import set_up_logs
from broker.observe.metrics import Gauges, Metrics
from broker.observe.options import HealthOptions, LogOptions, PrometheusOptions

__all__ = [
    "COMMAND_BUCKETS",
    "Counters",
    "Durations",
    "Gauges",
    "HealthOptions",
    "LogOptions",
    "Metrics",
    "PrometheusOptions",
    "set_up_logs",
]
