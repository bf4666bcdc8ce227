"""Metric families as values: what the verb metrics answers with. This module is pure."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.control.documents import MetricFamilyDocument, MetricSampleDocument

GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


@dataclass(slots=True)
class MetricFamily:
    """The samples of one metric. ``name`` is that of its samples; the name of a counter ends in _total."""

    name: str
    kind: str
    meaning: str
    samples: list[MetricSampleDocument] = field(default_factory=list)

    def add(self, value: float, /, suffix: str = "", **labels: str) -> None:
        """Add a sample; ``suffix`` is that of the samples of a histogram."""
        self.samples.append({"name": self.name + suffix, "labels": labels, "value": float(value)})

    def document(self) -> MetricFamilyDocument:
        """The family as an answer of the control socket."""
        return {"name": self.name, "type": self.kind, "help": self.meaning, "samples": self.samples}


def gauge(name: str, meaning: str, value: float | None = None) -> MetricFamily:
    """A gauge, with one sample without labels where there is a value."""
    family = MetricFamily(name, GAUGE, meaning)
    if value is not None:
        family.add(value)
    return family


def counter(name: str, meaning: str, value: float | None = None) -> MetricFamily:
    """A counter, with one sample without labels where there is a value."""
    family = MetricFamily(name, COUNTER, meaning)
    if value is not None:
        family.add(value)
    return family


def state_set(name: str, meaning: str, states: Iterable[str], current: str | None) -> MetricFamily:
    """A gauge with a sample for each state: 1 for the current one, and 0 for the others."""
    family = MetricFamily(name, GAUGE, meaning)
    for state in states:
        family.add(state == current, state=state)
    return family
