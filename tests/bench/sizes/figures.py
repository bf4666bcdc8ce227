"""What was measured, as values: figures, their medians, and their ratios to a bare restore of the same rules."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

BARE: Final = "iptables-nft-restore"
"""The program that every duration is compared with: it loads the same rules, and does nothing else."""

OURS: Final = "fwguardd"

SHIPPED: Final = 0
"""Stands for the size of the rules that fwguardd is shipped with."""

LOADED: Final = "load"
"""What the bare restore does, whatever changed."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The values of one thing about one program at one size, with their unit."""

    size: int
    what: str
    program: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)


@dataclass(slots=True)
class Figures:
    """All figures of a run, and what could not be measured, with the reason."""

    machine: str
    sizes: tuple[int, ...]
    found: dict[tuple[int, str, str], Figure] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, size: int, what: str, program: str, value: float, unit: str = "ms") -> None:
        """Add one value."""
        key = size, what, program
        before = self.found[key].values if key in self.found else ()
        self.found[key] = Figure(size, what, program, unit, (*before, value))

    def ratio(self, figure: Figure) -> float | None:
        """How many bare restores of the same rules a duration is."""
        bare = self.found.get((figure.size, LOADED, BARE))
        if bare is None or figure.unit != "ms":
            return None
        return figure.median / bare.median

    def document(self) -> str:
        """All of it as JSON."""
        figures = [{**asdict(each), "median": each.median, "ratio": self.ratio(each)} for each in self.found.values()]
        return json.dumps({"machine": self.machine, "figures": figures, "left_out": self.left_out}, indent=1)


def machine() -> str:
    """The machine in one line: processors, memory, kernel, Python."""
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()[1]
    load = Path("/proc/loadavg").read_text().split()[0]
    name = processors[0].partition(": ")[2] if processors else platform.machine()
    return (
        f"{len(processors)} × {name}, {int(memory) / 2**20:.1f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load average {load} at the start"
    )
