"""Servers side by side, started and pinned here, under the shapes of `broker.bench` (docs/benchmarking.md)."""
