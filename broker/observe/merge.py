"""The metrics of several processes as those of one.

Counters, sums and histograms are added up, and gauges, too, but for those that say the same of the whole cluster or of
the configuration: of these the highest counts. What the operating system and the interpreter tell of a process is not
added up: it gets a label `worker`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import Metric

__all__ = ["as_data", "from_data", "lasting", "merged", "of_worker"]

_OF_ALL: Final = frozenset(
    f"centrifugo_{name}" for name in ("node_num_nodes", "node_build", "insecure_flags", "hook_loop_longest_seconds")
)
_OF_A_PROCESS: Final = ("process_", "python_")


def merged(workers: Iterable[Iterable[Metric]]) -> list[Metric]:
    """One family for each name, in the order in which they come first."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for worker in workers for family in worker):
        families.setdefault(family.name, family)
        sums = values.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, tuple(sample.labels.items()))
            if key not in sums:
                sums[key] = sample.value
            elif family.name in _OF_ALL:
                sums[key] = max(sums[key], sample.value)
            else:
                sums[key] += sample.value
    return [
        _family(name, family.documentation, family.type, ((n, dict(ls), v) for (n, ls), v in values[name].items()))
        for name, family in families.items()
    ]


def of_worker(families: Iterable[Metric], worker: int) -> list[Metric]:
    """With the label `worker` where a sum would mean nothing."""
    labelled = []
    for family in families:
        if family.name.startswith(_OF_A_PROCESS):
            samples = [(s.name, {"worker": str(worker)} | s.labels, s.value) for s in family.samples]
            family = _family(family.name, family.documentation, family.type, samples)
        labelled.append(family)
    return labelled


def lasting(families: Iterable[Metric]) -> list[Metric]:
    """What still counts when the process has ended: what only ever grows, so that sums do not go down."""
    return [each for each in families if each.type != "gauge" and not each.name.startswith(_OF_A_PROCESS)]


def as_data(families: Iterable[Metric]) -> list[Any]:
    """What JSON can hold."""
    return [[f.name, f.documentation, f.type, [[s.name, s.labels, s.value] for s in f.samples]] for f in families]


def from_data(data: Iterable[Sequence[Any]]) -> list[Metric]:
    """The reverse of `as_data`."""
    return [_family(*each) for each in data]


def _family(name: str, text: str, kind: str, samples: Iterable[tuple[str, Mapping[str, str], float]]) -> Metric:
    family = Metric(name, text, kind)
    for sample, labels, value in samples:
        family.add_sample(sample, dict(labels), value)
    return family
