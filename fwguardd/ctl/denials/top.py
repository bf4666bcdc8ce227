"""The top talkers: the sources, ports and rules with the most denials. Packets are counted, not lines.

The memory is bounded, however many addresses an attacker forges: when a count has too many keys, the count of the
median key is subtracted from all, and keys whose count is then not positive are removed (Misra and Gries, "Finding
repeated elements", 1982, in the mergeable form of Agarwal et al., 2012). A number is then too small by at most the sum
of what was subtracted, which is printed. With fewer keys than the bound the numbers are exact.

This module is pure.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from fwguardd.ctl.denials.table import icmp, rule
from fwguardd.escaping import printable
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.ctl.denials.event import Event

MOST_KEYS: Final = 1 << 17
"""Keys of a count before the smaller half of them is removed; about 20 MB."""

SHOWN: Final = 10
KINDS: Final = ("source", "port", "rule")
_SCANS: Final = "scan"
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class TopEntry:
    """One entry of the top: its key, its packets, and their share of all packets in percent."""

    key: str
    count: int
    percent: float


class BoundedCount(Generic[_Key]):
    """Counts by key in bounded memory; a number may be too small by ``error`` at most."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._counts: Counter[_Key] = Counter()
        self.error = 0

    def __contains__(self, key: _Key) -> bool:
        return key in self._counts

    def add(self, key: _Key, weight: int) -> bool:
        """Add to the count of this key; whether keys were removed."""
        self._counts[key] += weight
        if len(self._counts) <= self._most:
            return False
        self._forget()
        return True

    def highest(self, number: int | None) -> list[tuple[_Key, int]]:
        """The highest counts, or all, in falling order; of equal ones, that of the key that came first."""
        return self._counts.most_common(number)

    def _forget(self) -> None:
        taken = sorted(self._counts.values())[len(self._counts) // 2]
        self._counts = Counter({key: count - taken for key, count in self._counts.items() if count > taken})
        self.error += taken


class Top:
    """The count of packets by source, port and rule, and of all."""

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
        self._counts: dict[str, BoundedCount[str]] = {kind: BoundedCount(most_keys) for kind in (*KINDS, _SCANS)}
        self.total = 0
        self.notes: Counter[str] = Counter()

    """The weight of the events that are not about packets, by name."""

    def add(self, events: Iterable[Event]) -> None:
        """Count events."""
        for event in events:
            if event.is_of_packets:
                self._add_packets(event)
            else:
                self._add_note(event)

    def _add_note(self, event: Event) -> None:
        """Count an event that is not about packets. A scan or sweep stands for ports or hosts of one source."""
        self.notes[event.name] += event.weight
        targets = event.fields.get("count")
        if event.is_notice and isinstance(targets, int):
            self._counts[_SCANS].add(str(event.fields.get("src", "")), targets)

    def _add_packets(self, event: Event) -> None:
        weight = event.weight
        self.total += weight
        for kind, key in zip(KINDS, _keys(event), strict=True):
            if key:
                self._counts[kind].add(key, weight)

    def places(self, kind: str, number: int) -> list[TopEntry]:
        """The highest of a kind."""
        return [TopEntry(key, count, 100 * count / self.total) for key, count in self._counts[kind].highest(number)]

    def error(self, kind: str) -> int:
        """By how much a number of a kind may be too small."""
        return self._counts[kind].error

    def document(self, number: int) -> dict[str, Any]:
        """The top as JSON, with stable keys."""
        top, errors = {}, {}
        for kind in KINDS:
            top[kind] = [{"key": place.key, "count": place.count} for place in self.places(kind, number)]
            errors[kind] = self.error(kind)
        scans = [{"key": key, "targets": targets} for key, targets in self._counts[_SCANS].highest(number)]
        return {
            "packets": self.total,
            "top": top,
            "scans": scans,
            "count_errors": errors,
            "notes": dict(self.notes),
        }

    def table(self, number: int) -> tuple[list[str], list[list[str | int]]]:
        """The heading and the rows, for CSV."""
        rows: list[list[str | int]] = []
        for kind in KINDS:
            rows += [[kind, place.key, place.count] for place in self.places(kind, number)]
        return ["kind", "key", "packets"], rows

    def lines(self, number: int, ink: AnswerPainter) -> list[str]:
        """The top as text."""
        lines = [counted(self.total, "packet")]
        for kind in KINDS:
            lines += self._ranking_lines(kind, number, ink)
        lines += self._scan_lines(number, ink)
        if self.notes:
            lines.append("")
        for name, count in sorted(self.notes.items()):
            lines.append(ink.warn(f"{name}: {count}, not counted above"))
        return lines

    def _scan_lines(self, number: int, ink: AnswerPainter) -> list[str]:
        """The sources of scans and sweeps, with how many ports and hosts they tried."""
        lines: list[str] = []
        for source, targets in self._counts[_SCANS].highest(number):
            lines.append(f"{ink.bold(f'{targets:>7}')}         {printable(source)}")
        if not lines:
            return []
        return ["", ink.dim("TARGETS         SOURCE OF SCANS AND SWEEPS"), *lines]

    def _ranking_lines(self, kind: str, number: int, ink: AnswerPainter) -> list[str]:
        places = self.places(kind, number)
        if not places:
            return []
        width = max(7, len(str(places[0].count)))
        lines = ["", ink.dim(f"{'PACKETS':>{width}}         {kind.upper()}")]
        for place in places:
            count = ink.bold(f"{place.count:>{width}}")
            lines.append(f"{count}  {place.percent:4.1f}%  {printable(place.key)}")
        if self.error(kind):
            lines.append(ink.warn(f"too many to count each: every number may be too small by up to {self.error(kind)}"))
        return lines


def _keys(event: Event) -> tuple[str, str, str]:
    found = event.fields
    return str(found.get("src") or found.get("mac_src") or ""), port(found), rule(found)


def port(found: Mapping[str, Any]) -> str:
    """Protocol, and port or ICMP type."""
    proto = str(found.get("proto", ""))
    if "dpt" in found:
        return f"{proto} {found['dpt']}"
    if "icmp_type" in found:
        return f"{proto} {icmp(found)}"
    return proto
