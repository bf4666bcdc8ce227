"""The top talkers: which source, which port, which rule makes the most denials. Packets are counted, not lines.

The memory is bounded, however many addresses an attacker makes up: when a count has too many keys, the weight of the
one in the middle is taken off all, and those that come to nothing are forgotten (Misra and Gries, "Finding repeated
elements", 1982, in the mergeable form of Agarwal et al., 2012). A number is then too small by at most what was taken
off in all, which is kept and told. With fewer keys than the bound it is exact.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.denials.table import icmp, rule
from fwguardd.sinks.console import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.ctl.denials.event import Event

MOST_KEYS: Final = 1 << 17
"""Keys that a count holds before it forgets the small half of them; about 20 MB."""

SHOWN: Final = 10
KINDS: Final = ("source", "port", "rule")


@dataclass(frozen=True, slots=True)
class Ranking:
    """One of the top: its key, its packets, its part of all packets in percent."""

    key: str
    count: int
    percent: float


class BoundedCount:
    """Counts by key in bounded memory; ``error`` is what a number may be too small by."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()
        self.error = 0

    def add(self, key: str, weight: int) -> None:
        """So many more of this key."""
        self._counts[key] += weight
        if len(self._counts) > self._most:
            self._forget()

    def highest(self, number: int) -> list[tuple[str, int]]:
        """The highest, in falling order; of equals, the one that came first."""
        return self._counts.most_common(number)

    def _forget(self) -> None:
        taken = sorted(self._counts.values())[len(self._counts) // 2]
        self._counts = Counter({key: count - taken for key, count in self._counts.items() if count > taken})
        self.error += taken


class Top:
    """The count of packets by source, port and rule, and of all."""

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
        self._counts = {kind: BoundedCount(most_keys) for kind in KINDS}
        self.total = 0
        self.notes: Counter[str] = Counter()
        """What tells of no packets, by name: its weight."""

    def add(self, events: Iterable[Event]) -> None:
        """Count events."""
        for event in events:
            if not event.is_of_packets:
                self.notes[event.name] += event.weight
                continue
            self.total += event.weight
            for kind, key in zip(KINDS, _keys(event), strict=True):
                if key:
                    self._counts[kind].add(key, event.weight)

    def places(self, kind: str, number: int) -> list[Ranking]:
        """The highest of a kind."""
        return [Ranking(key, count, 100 * count / self.total) for key, count in self._counts[kind].highest(number)]

    def error(self, kind: str) -> int:
        """What a number of a kind may be too small by."""
        return self._counts[kind].error

    def document(self, number: int) -> dict[str, Any]:
        """The top with stable keys."""
        top = {
            kind: [{"key": place.key, "count": place.count} for place in self.places(kind, number)] for kind in KINDS
        }
        errors = {kind: self.error(kind) for kind in KINDS}
        return {"packets": self.total, "top": top, "count_errors": errors, "notes": dict(self.notes)}

    def lines(self, number: int, ink: AnswerPainter) -> list[str]:
        """The top for a person."""
        lines: list[str] = []
        for kind in KINDS:
            places = self.places(kind, number)
            width = max((len(str(place.count)) for place in places), default=0)
            lines += ["", ink.dim(f"{'PACKETS':>{max(width, 7)}}         {kind.upper()}")] if places else []
            for place in places:
                count = ink.bold(f"{place.count:>{max(width, 7)}}")
                lines.append(f"{count}  {place.percent:4.1f}%  {printable(place.key)}")
            if places and self.error(kind):
                lines.append(ink.warn(f"too many to count each: every number may be too small by {self.error(kind)}"))
        packets = f"{self.total} packet{'s' * (self.total != 1)}"
        notes = [ink.warn(f"{name}: {count}, not counted above") for name, count in sorted(self.notes.items())]
        return [packets, *lines, *([""] if notes else []), *notes]


def _keys(event: Event) -> tuple[str, str, str]:
    found = event.fields
    proto = found.get("proto", "")
    if "dpt" in found:
        port = f"{proto} {found['dpt']}"
    else:
        port = f"{proto} {icmp(found)}" if "icmp_type" in found else str(proto)
    return str(found.get("src") or found.get("mac_src") or ""), port, rule(found)
