"""What a node tells of itself in `info`: how counters grew since it was last asked, and gauges as they are.

Names are those of Centrifugo: the parts of a metric's name and its labels, joined by dots; labels without a value are
left out, and so are histograms. Seen on Centrifugo 6.9.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from broker.observe.metrics import Metrics

__all__ = ["Aggregate"]

_GROW = ("counter", "summary")


@final
class Aggregate:
    """Remembers what counters said when `step` was last called."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._before: dict[str, float] = {}

    def step(self) -> dict[str, float]:
        """What happened since the last step, by name."""
        items: dict[str, float] = {}
        now: dict[str, float] = {}
        for family, sample in self._samples():
            name = _name(family, sample)
            if family.type in _GROW:
                now[name] = sample.value
                items[name] = sample.value - self._before.get(name, 0.0)
            else:
                items[name] = sample.value
        self._before = now
        return items

    def _samples(self) -> Iterator[tuple[Metric, Sample]]:
        for family in self._metrics.ours():
            if family.type != "histogram":
                for sample in family.samples:
                    yield family, sample


def _name(family: Metric, sample: Sample) -> str:
    namespace, subsystem, rest = sample.name.split("_", 2)
    parts = [namespace, subsystem, rest]
    if family.type == "summary":
        parts = [namespace, subsystem, *rest.rsplit("_", 1)]
    labels = (f"{key}.{value}" for key, value in sorted(sample.labels.items()) if value)
    return ".".join((*parts, *labels))
