"""Load shapes for any server that speaks Centrifugo's contract: `python -m benchmarks SHAPE` (docs/benchmarking.md)."""
