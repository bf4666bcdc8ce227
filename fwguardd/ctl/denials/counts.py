"""What became of the lines of a log.

This module is pure.
"""

from __future__ import annotations

from dataclasses import asdict, field
from typing import Final

from fwguardd.values import dataclass

_MOST_PREFIXES: Final = 1000
"""Prefixes that are counted one by one; the rest are counted together, as `MORE_PREFIXES`."""

MORE_PREFIXES: Final = "…"


@dataclass(slots=True)
class Counts:
    """What became of the lines; the first number is the sum of the next four."""

    lines: int = 0
    ours: int = 0
    """Parsed."""
    unparsed: int = 0
    """Kernel lines with a watched prefix, in an unknown form."""
    foreign: int = 0
    """Lines with a watched prefix that nothing shows to be the kernel's: ignored."""
    left_out: int = 0
    """Of the others, kernel lines whose text journalctl did not print."""
    undated: int = 0
    """Of the first two kinds, those that --since or --until excluded because they have no time of day."""
    bare: int = 0
    """Of the parsed, those that show only by their text that the kernel wrote them."""
    relayed: int = 0
    """Of the parsed, those that another program passed on under a facility of its own."""
    lost: int = 0
    """Messages that are not in the log, as far as the log reports their number. They are not lines."""
    other_prefixes: dict[str, int] = field(default_factory=dict)
    """Of the others, lines that look like LOG lines: their prefixes, and how many lines have each."""
    imitations: dict[str, int] = field(default_factory=dict)
    """Lines in the style of the kernel: the user-space programs that wrote them, and how many each."""

    @property
    def others(self) -> int:
        """Lines without a watched prefix."""
        return self.lines - self.ours - self.unparsed - self.foreign

    def document(self) -> dict[str, object]:
        """The counts with stable keys."""
        return {**asdict(self), "others": self.others}

    def count_prefix(self, prefix: str) -> None:
        """Count a line with another prefix, in bounded memory."""
        found = self.other_prefixes
        if prefix not in found and len(found) >= _MOST_PREFIXES:
            prefix = MORE_PREFIXES
        found[prefix] = found.get(prefix, 0) + 1

    def add(self, other: Counts) -> None:
        """Add the counts of another file."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for total, part in ((self.other_prefixes, other.other_prefixes), (self.imitations, other.imitations)):
            for key, number in part.items():
                total[key] = total.get(key, 0) + number


_NUMBERS: Final = ("lines", "ours", "unparsed", "foreign", "left_out", "undated", "bare", "relayed", "lost")
