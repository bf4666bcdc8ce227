"""Records that could not be read, and messages that the kernel reports as suppressed.

This module is pure.
"""

from __future__ import annotations

from typing import Final

from fwguardd.patterns import pattern

KERNEL: Final = "kernel"
"""The source of a loss that the kernel itself reports."""

SUPPRESSED: Final = ("suppressed", "suppressed.", "dropped **")
"""How every such report ends."""

LOSS_INTERVAL: Final = 10.0
"""Seconds between two events about losses; under a flood records may be lost every millisecond."""

_REPORTS: Final = (
    # ___ratelimit() in lib/ratelimit.c, whose function name is that of the caller; before Linux 2.6.33 printk itself.
    pattern(r"[a-zA-Z0-9_.-]{1,64}: ([0-9]{1,15}) (?:callbacks|messages) suppressed\b.*"),
    pattern(r"printk: ([0-9]{1,15}) messages? suppressed\b.*"),
    pattern(r"\*\* ([0-9]{1,15}) printk messages? dropped \*\*.*"),
)


def reported_loss(text: str) -> int | None:
    """The number of messages that the kernel reports as suppressed or dropped in a record; None for any other text."""
    for form in _REPORTS:
        match = form.fullmatch(text)
        if match is not None:
            return int(match[1])
    return None


class Losses:
    """Counts losses by source until an event reports them: at once, and then every `LOSS_INTERVAL`."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self.due = 0.0
        """When they are to be reported, by the clock of time.monotonic()."""

    @property
    def unreported(self) -> int:
        """How many no event has reported yet."""
        return sum(self._counts.values())

    def add(self, source: str, count: int) -> None:
        """Count losses of a source."""
        if count:
            self._counts[source] = self._counts.get(source, 0) + count

    def take(self, now: float) -> list[tuple[str, int]]:
        """The losses to report now, by source."""
        if not self._counts or now < self.due:
            return []
        self.due = now + LOSS_INTERVAL
        counts, self._counts = self._counts, {}
        return list(counts.items())
