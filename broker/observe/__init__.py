"""How the server is watched: counters, metrics, logs."""

from broker.observe.counters import COMMAND_BUCKETS, Counters, Durations

__all__ = ["COMMAND_BUCKETS", "Counters", "Durations"]
