"""What the journal says about a period: denials counted, and all other events kept, the newest of each kind.

One pass over the entries, in bounded memory: packets are counted as `fwguardctl denials` counts them, and of other
events a fixed number is kept, with the number of all.
"""

from __future__ import annotations

from collections import Counter, deque
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.ctl.denials.event import EVENT_NAMES, any_from_entry
from fwguardd.ctl.denials.groups import Groups, UniqueCount
from fwguardd.ctl.denials.histogram import Histogram
from fwguardd.ctl.denials.top import BoundedCount
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.ctl.denials.event import Event

MOST_KEPT: Final = 1000
"""Events of one kind that are kept, the newest."""

MOST_GROUPS: Final = 1 << 13
MOST_EXACT: Final = 64
"""What a count keeps: less than 100 MB for a million pairs of sources and ports that an attacker makes up."""

_HOUR: Final = 3600

_CHANGES: Final = (
    events.APPLIED, events.REJECTED, events.APPLY_FAILED, events.BROKEN, events.HELD, events.TAKEN_BACK,
    events.PENDING, events.CONFIRMED, events.UNCONFIRMED, events.CLOSED, events.UNMANAGED, events.SETTINGS_REJECTED,
    events.SET_REFUSED, events.BOOT_REPORT, events.STATE_DAMAGED, events.STATE_FAILED, events.FAULT, events.OTHERS_KEPT,
)  # fmt: skip
_DRIFT: Final = (
    events.DRIFT, events.REPAIRED, events.FIGHT, events.HIDDEN, events.OTHERS_UNDECIDED, events.UNVERIFIED,
    events.VERIFIED,
)  # fmt: skip
_COUNTED: Final = (events.STARTED, events.DENIALS_SUPPRESSED)

_name: Final = attrgetter("name")
CHANGE_NAMES: Final = frozenset(map(_name, _CHANGES))
DRIFT_NAMES: Final = frozenset(map(_name, _DRIFT))
NAMES: Final = tuple(sorted({*CHANGE_NAMES, *DRIFT_NAMES, *map(_name, _COUNTED), *EVENT_NAMES}))
"""The events that a report reads."""

_FIELDS: Final = (
    "event", "in", "out", "src", "mac_src", "dst", "proto", "dpt", "icmp_type", "icmp_name", "rule", "name", "uid",
    "count", "time", "revision", "changes", "difference", "finding", "others", "state", "culprit", "culprit_process",
    "culprit_command", "culprit_user", "culprit_unit", "culprit_parent", "culprit_parent_user",
)  # fmt: skip
FIELDS: Final = ("MESSAGE", *(f"FWGUARD_{name.upper()}" for name in _FIELDS))
"""The fields of an entry that are used: to read all would take twice as long."""

_DENIED: Final = frozenset({events.DENIED.name, events.DENIED_SUMMARY.name})


@dataclass(frozen=True, slots=True)
class Happening:
    """An event that is not about packets: its name, when it was, its message, and its fields."""

    name: str
    when: float
    message: str
    fields: Mapping[str, Any]


class DeniedByDirection:
    """Denied packets of one direction, by several keys."""

    def __init__(self, *groups: tuple[str, str | None]) -> None:
        self.packets = 0
        self._groups: dict[str, Groups] = {}
        for by, unique in groups:
            self._groups[by] = Groups((by,), unique, most=MOST_GROUPS, exact=MOST_EXACT)

    def count(self, event: Event) -> None:
        """Count an event about denied packets."""
        self.packets += event.weight
        for groups in self._groups.values():
            groups.count(event)

    def highest(self, by: str, number: int) -> dict[str, Any]:
        """The groups of a key with most packets, as `fwguardctl denials --by KEY --json` prints them."""
        return self._groups[by].document(number)

    def document(self, number: int) -> dict[str, Any]:
        """All groups. The keys are a contract."""
        found: dict[str, Any] = {"packets": self.packets}
        for by in self._groups:
            found[by] = self.highest(by, number)["groups"]
        return found


class Account:
    """The denials and the other events of a period."""

    def __init__(self) -> None:
        self.hours = Histogram(_HOUR)
        self.incoming = DeniedByDirection(("src", "dport"), ("net", "src"), ("dport", "src"), ("rule", "src"))
        self.outgoing = DeniedByDirection(("dst", "dport"), ("dport", "dst"), ("uid", "dst"))
        self.sources = UniqueCount()
        self.scans: BoundedCount[tuple[str, str]] = BoundedCount(MOST_GROUPS)
        """By source and kind of event, how many ports or hosts."""
        self.totals: Counter[str] = Counter()
        """What each kind of event stands for: packets, lost records, or events."""
        self.changes: deque[Happening] = deque(maxlen=MOST_KEPT)
        self.drift: deque[Happening] = deque(maxlen=MOST_KEPT)
        self.last_state: tuple[float, str] | None = None
        """When an event said last what the kernel holds, and what."""
        self.incomplete = ""
        """Why the journal could not be read to its end; "" where it was."""

    def add(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take entries as ``journalctl -o json`` prints them, oldest first."""
        for entry in entries:
            self._add(any_from_entry(entry))

    def _add(self, event: Event) -> None:
        self.totals[event.name] += event.weight
        if event.name in _DENIED:
            self._add_denial(event)
        elif event.is_notice:
            self._add_scan(event)
        elif event.name in CHANGE_NAMES or event.name in DRIFT_NAMES:
            self._keep(Happening(event.name, (event.realtime or 0) / 1_000_000, event.message, event.fields))

    def _add_denial(self, event: Event) -> None:
        self.hours.count(event)
        if event.fields.get("in"):
            self.incoming.count(event)
            self.sources.add(str(event.fields.get("src", "")))
        else:
            self.outgoing.count(event)

    def _add_scan(self, event: Event) -> None:
        targets = event.fields.get("count")
        if isinstance(targets, int):
            self.scans.add((str(event.fields.get("src", "")), event.name), targets)

    def _keep(self, happening: Happening) -> None:
        kept = self.changes
        if happening.name in DRIFT_NAMES:
            kept = self.drift
        kept.append(happening)
        state = happening.fields.get("state")
        if isinstance(state, str) and state:
            self.last_state = (happening.when, state)

    @property
    def denied(self) -> int:
        """Denied packets."""
        return self.hours.total

    def total(self, *kinds: events.EventKind) -> int:
        """What these kinds of events stand for together."""
        return sum(self.totals[kind.name] for kind in kinds)
