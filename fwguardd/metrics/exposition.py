"""Metric families -> the text that Prometheus reads, by prometheus_client; and the file for the node exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any


class FamilyCollector(Collector):
    """Gives Prometheus' client library the families of a function, at each scrape."""

    def __init__(self, families: Callable[[], Iterable[Mapping[str, Any]]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The families as the library has them."""
        for family in self._families():
            name = str(family["name"])
            if family["type"] == "counter":
                name = name.removesuffix("_total")
            metric = Metric(name, family["help"], family["type"])
            for sample in family["samples"]:
                metric.add_sample(sample["name"], sample["labels"], sample["value"])
            yield metric

    def describe(self) -> Iterable[Metric]:
        """Nothing: the library would call `collect` at the start to learn the names."""
        return ()


def registry_of(families: Callable[[], Iterable[Mapping[str, Any]]]) -> CollectorRegistry:
    """A registry with these families, and nothing else."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FamilyCollector(families))
    return registry


def text_of(families: Iterable[Mapping[str, Any]]) -> bytes:
    """The families in the text format of Prometheus, version 0.0.4."""
    return generate_latest(registry_of(lambda: families))
