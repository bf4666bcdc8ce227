"""What the daemon counts for metrics since its start: events, passes, and how long passes take.

Events are counted on their way to the sink, so each event that was emitted is in the counts. No label is an address of
a packet: anybody who sends packets could make as many series as there are addresses.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd import events
from fwguardd.metrics.model import HISTOGRAM, MetricFamily, counter, gauge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fwguardd.enforce.sets import SetInUse
    from fwguardd.events import EventKind
    from fwguardd.ruleset.references import LoggingRule
    from fwguardd.sinks.sink import Sink, Statistics

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of durations, in seconds."""

MOST_SERIES = 1000
"""Label values that one metric has; further ones are counted under OTHER. Edited rule files move the lines of rules."""

OTHER = "other"

SET_ENTRIES, SET_WRITTEN = "fwguard_set_entries", "fwguard_set_written_timestamp_seconds"
LIST_INTERVAL = "fwguard_list_interval_seconds"

Labels = tuple[tuple[str, str], ...]

_PACKETS = {events.DENIED.name, events.DENIED_SUMMARY.name, events.LOGGED.name, events.LOGGED_SUMMARY.name}
_SCANS = {events.SCAN.name: "scan", events.SWEEP.name: "sweep"}

_COUNTERS: dict[str, str] = {
    "fwguard_events_total": "Events that were emitted, by their names.",
    "fwguard_logged_packets_total": "Logged packets, by the prefix, its meaning, and the line of the rule.",
    "fwguard_suppressed_lines_total": "Log lines that the limit of a rule has suppressed, by the prefix.",
    "fwguard_scans_total": "Sources that were denied at many ports (scan) or at many hosts (sweep).",
    "fwguard_refusals_total": "Refusals of the rule files, by the code of the first finding.",
    "fwguard_drift_total": "Drift that was found, by the program that caused it.",
    "fwguard_repairs_total": "Repairs of drift, by the program that caused the drift.",
    "fwguard_fights_total": "Fights: repairs that were suspended, by the program that undoes them.",
    "fwguard_passes_total": "Passes, by their cause and outcome.",
}
"""The counters with labels, and their meanings."""


class EventCounts:
    """Counts of events and passes since the start. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[Labels]] = {name: Counter() for name in _COUNTERS}
        self._entries: dict[str, int] = {}
        self._sets: Mapping[str, SetInUse] = {}
        self._rules: tuple[LoggingRule, ...] = ()
        self._durations: dict[str, _Histogram] = {}
        self._program = ""
        self.on_change: Callable[[], None] | None = None
        """Called after each event and pass, from the thread that it happened in."""

    def event(self, kind: EventKind, fields: Mapping[str, Any]) -> None:
        """Count an event."""
        with self._lock:
            self._add("fwguard_events_total", 1, event=kind.name)
            count = _COUNTED.get(kind.name)
            if count is not None:
                count(self, kind, fields)
        self._changed()

    def passed(self, cause: str, outcome: str, seconds: float) -> None:
        """Count a pass; ``seconds`` is its duration, with the time that it waited for the worker thread."""
        with self._lock:
            self._add("fwguard_passes_total", 1, cause=cause, outcome=outcome)
            self._durations.setdefault(outcome, _Histogram()).observe(seconds)
        self._changed()

    def use_sets(self, sets: Mapping[str, SetInUse]) -> None:
        """From now on these sets are loaded."""
        with self._lock:
            self._sets = sets
            self._entries = {name: one.entries for name, one in sets.items()}

    def use_rules(self, rules: Sequence[LoggingRule]) -> None:
        """From now on these rules log."""
        with self._lock:
            self._rules = tuple(rules[:MOST_SERIES])

    def families(self) -> list[MetricFamily]:
        """Everything that was counted."""
        with self._lock:
            families = [_labelled(name, self._counts[name]) for name in _COUNTERS]
            return [*families, self._log_rules(), *self._of_sets(), self._pass_durations()]

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def _add(self, name: str, count: int, **labels: str) -> None:
        counts, key = self._counts[name], tuple(labels.items())
        if key not in counts and len(counts) >= MOST_SERIES:
            key = tuple((label, OTHER) for label in labels)
        counts[key] += count

    def _packets(self, _kind: EventKind, fields: Mapping[str, Any]) -> None:
        name, meaning, rule = fields.get("name", ""), fields.get("meaning", ""), fields.get("rule", "")
        count = fields.get("count", 1)
        self._add("fwguard_logged_packets_total", count, prefix=str(name), meaning=str(meaning), rule=str(rule))

    def _scan(self, kind: EventKind, _fields: Mapping[str, Any]) -> None:
        self._add("fwguard_scans_total", 1, kind=_SCANS[kind.name])

    def _suppressed(self, _kind: EventKind, fields: Mapping[str, Any]) -> None:
        self._add("fwguard_suppressed_lines_total", fields.get("count", 0), prefix=str(fields.get("name", "")))

    def _refused(self, _kind: EventKind, fields: Mapping[str, Any]) -> None:
        self._add("fwguard_refusals_total", 1, code=str(fields.get("code", "")))

    def _drift(self, _kind: EventKind, fields: Mapping[str, Any]) -> None:
        self._program = _program_of(fields)
        self._add("fwguard_drift_total", 1, program=self._program)

    def _repair(self, _kind: EventKind, _fields: Mapping[str, Any]) -> None:
        # The event of a repair has no author: the drift before it has.
        self._add("fwguard_repairs_total", 1, program=self._program or _UNKNOWN)

    def _fight(self, _kind: EventKind, fields: Mapping[str, Any]) -> None:
        self._add("fwguard_fights_total", 1, program=_program_of(fields))

    def _set(self, _kind: EventKind, fields: Mapping[str, Any]) -> None:
        self._entries[str(fields["set"])] = int(fields["entries"])

    def _log_rules(self) -> MetricFamily:
        """The chains of the rules that log, to be joined with the packets by the label rule."""
        family = gauge("fwguard_log_rule_info", "Always 1: a rule that logs, with its table and chain.")
        for rule in self._rules:
            if rule.origin is not None:
                labels = {"rule": str(rule.origin), "family": rule.family, "table": rule.table, "chain": rule.chain}
                family.add(1, prefix=rule.prefix, **labels)
        return family

    def _of_sets(self) -> list[MetricFamily]:
        """The size and the age of each set, and how often its list is fetched."""
        size = gauge(SET_ENTRIES, "Entries of each set, IPv4 and IPv6 together.")
        for name, entries in self._entries.items():
            size.add(entries, set=name)
        written = gauge(SET_WRITTEN, "When the file of each set was written, a list fetched, in seconds since 1970.")
        every = gauge(LIST_INTERVAL, "How often the list of a set is fetched.")
        for name, one in self._sets.items():
            written.add(one.written, set=name)
            if one.every is not None:
                every.add(one.every, set=name)
        return [size, written, every]

    def _pass_durations(self) -> MetricFamily:
        family = MetricFamily("fwguard_pass_duration_seconds", HISTOGRAM, "How long passes took, by their outcome.")
        for outcome, histogram in self._durations.items():
            histogram.add_to(family, outcome)
        return family


_UNKNOWN = "unknown"

_COUNTED: Mapping[str, Callable[[EventCounts, EventKind, Mapping[str, Any]], None]] = {
    **dict.fromkeys(_PACKETS, EventCounts._packets),  # noqa: SLF001 - the table belongs to the class.
    **dict.fromkeys(_SCANS, EventCounts._scan),  # noqa: SLF001
    events.DENIALS_SUPPRESSED.name: EventCounts._suppressed,  # noqa: SLF001
    events.REJECTED.name: EventCounts._refused,  # noqa: SLF001
    events.DRIFT.name: EventCounts._drift,  # noqa: SLF001
    events.REPAIRED.name: EventCounts._repair,  # noqa: SLF001
    events.FIGHT.name: EventCounts._fight,  # noqa: SLF001
    events.SET_LOADED.name: EventCounts._set,  # noqa: SLF001
}
"""What is counted of an event beside its name."""


def _program_of(fields: Mapping[str, Any]) -> str:
    """The unit of the process that changed the rules, or else its name: neither has a number that differs each time."""
    return str(fields.get("culprit_unit") or fields.get("culprit_process") or _UNKNOWN)


def _labelled(name: str, counts: Counter[Labels]) -> MetricFamily:
    family = counter(name, _COUNTERS[name])
    for labels, count in counts.items():
        family.add(count, **dict(labels))
    return family


class _Histogram:
    """Durations in buckets."""

    def __init__(self) -> None:
        self._buckets = [0] * len(BUCKETS)
        self._count, self._sum = 0, 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self._count += 1
        self._sum += seconds
        for position, bound in enumerate(BUCKETS):
            if seconds <= bound:
                self._buckets[position] += 1

    def add_to(self, family: MetricFamily, outcome: str) -> None:
        """Add the samples: each bucket counts the durations up to its bound."""
        for bound, count in zip(BUCKETS, self._buckets, strict=True):
            family.add(count, "_bucket", outcome=outcome, le=str(bound))
        family.add(self._count, "_bucket", outcome=outcome, le="+Inf")
        family.add(self._count, "_count", outcome=outcome)
        family.add(self._sum, "_sum", outcome=outcome)


def resident_bytes() -> int:
    """The memory that this process uses, in bytes. The second number of /proc/self/statm counts pages (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class CountingSink:
    """Counts events, and hands them to another sink."""

    def __init__(self, sink: Sink, counts: EventCounts) -> None:
        self._sink, self._counts = sink, counts

    def emit(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Count an event and hand it on."""
        self._counts.event(kind, fields)
        self._sink.emit(kind, message, **fields)

    def flush(self) -> int:
        """Flush the sink."""
        return self._sink.flush()

    def close(self, seconds: float) -> None:
        """Close the sink."""
        self._sink.close(seconds)

    def statistics(self) -> Sequence[Statistics]:
        """The counts of the sink."""
        return self._sink.statistics()

    def on_waiting(self, call: Callable[[], None]) -> None:
        """Call this when the queue of the sink begins to fill."""
        self._sink.on_waiting(call)
