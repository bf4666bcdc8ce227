"""From a source to events: kernel records → LOG lines with a watched prefix → events. Every line is accounted for.

A line becomes an event at once, or is counted and reported in a summary (`fwguardd.denials.aggregation` decides). A
line that cannot be parsed is reported as it is; what the kernel overwrote before it was read is reported by its number.
Nothing here blocks: the caller calls `Pipeline.read` when the source is readable, and `Pipeline.tick` when something is
due.
"""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.denials.aggregation import Aggregator, FlowSummary, Malformed, flow_of
from fwguardd.denials.fields import denial_fields, notice_fields, summary_fields
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.losses import KERNEL, SUPPRESSED, Losses, reported_loss
from fwguardd.denials.model import Denial, Meaning, Unparsed, Watched
from fwguardd.denials.record_time import ReadTime, RecordClock, time_field
from fwguardd.denials.rules import RulesInForce
from fwguardd.denials.scan import Scan, ScanDetector
from fwguardd.denials.sentences import (
    loss_sentence,
    malformed_sentence,
    notice_sentence,
    sentence,
    summary_sentence,
    unparsed_sentence,
)
from fwguardd.kernel.kmsg import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fwguardd.denials.aggregation import AggregationLimits, FlowPacket, Key
    from fwguardd.denials.scan import Notice
    from fwguardd.denials.sentences import RuleOrigin
    from fwguardd.denials.source import LogLine, Source, SourceItem
    from fwguardd.events import Emit

    Rules = Mapping[tuple[str, str], RuleOrigin]
    RulesByWay = Mapping[tuple[str, str, str], RuleOrigin]

NO_COUNTS: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "source": None,
        "position": None,
        "lines": 0,
        "denied": 0,
        "logged": 0,
        "unparsed": 0,
        "told": 0,
        "summarised": 0,
        "waiting": 0,
        "lost": 0,
    }
)
"""The counts before any source was opened."""

SLICE: Final = 64
"""Reads between two looks at the clock."""

TURN: Final = 0.002
"""Seconds after which `Pipeline.read` returns to the event loop, after one slice more at most."""

SUMMARIES_PER_TURN: Final = 50

RETRY: Final = 0.05
"""Seconds until summaries are tried again for which the sink had no room."""

_SINGLE: Final = {Meaning.DENIED: events.DENIED, Meaning.LOGGED: events.LOGGED, Meaning.ALLOWED: events.LOGGED}
_SUMMARY: Final = {
    Meaning.DENIED: events.DENIED_SUMMARY,
    Meaning.LOGGED: events.LOGGED_SUMMARY,
    Meaning.ALLOWED: events.LOGGED_SUMMARY,
}


class Pipeline:
    """Reads a source whenever it has something, and emits events.

    ``room`` is whether the sink has room for events now; without room lines are counted, and reported later.
    """

    def __init__(
        self,
        source: Source,
        watched: Sequence[Watched],
        limits: AggregationLimits,
        emit: Emit,
        room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._source, self._emit, self._room = source, emit, room
        self._rules = RulesInForce()
        self._clock, self._waited = RecordClock(), False
        self._limits = limits
        self._aggregator, self._scans = Aggregator(limits), ScanDetector(limits)
        self._counts = dict.fromkeys(("lines", "denied", "logged", "unparsed", "told", "summarised", "lost"), 0)
        self._losses = Losses()
        self.watch(watched, limits)

    def watch(self, watched: Sequence[Watched], limits: AggregationLimits) -> None:
        """From now on use these prefixes and these limits. What is counted stays counted."""
        self._reader = LineReader(watched)
        self._watched = {each.prefix: each for each in watched}
        self._meanings = {each.prefix: each.meaning.counted_as for each in watched}
        if limits != self._limits:
            pending, self._limits = self._aggregator.pending(), limits
            self._aggregator, self._scans = Aggregator(limits), ScanDetector(limits)
            self._aggregator.restore(pending, time.monotonic())
        self._source.watch(watched)

    def use_source(self, source: Source) -> None:
        """From now on read this source. What was counted stays counted."""
        self._source = source
        source.watch(tuple(self._watched.values()))

    def use_rules(self, by_prefix: Rules, by_way: RulesByWay = MappingProxyType({})) -> None:
        """From now on these rules log; see `RulesInForce`."""
        self._rules = RulesInForce(by_prefix, by_way)

    @property
    def suspended(self) -> float | None:
        """Seconds of suspends, for `resume`; see `SuspendClock.accounted`."""
        return self._clock.suspends.accounted

    def resume(self, waiting: Sequence[FlowSummary], lost: int, suspended: float | None = None) -> None:
        """Continue the counts that were waiting when an earlier process ended, and its clock."""
        self._clock.suspends.resume(suspended)
        self._aggregator.restore(waiting, time.monotonic())
        self._lose(self._source.name, lost)
        for summary in waiting:
            self._counts["lines"] += summary.count
            if isinstance(summary.key, Malformed):
                self._counts["unparsed"] += summary.count
            else:
                self._counts[self._watched_by(summary.key).meaning.counted_as] += summary.count

    def counts(self) -> dict[str, int | str | None]:
        """What was read since the start, and what became of it.

        ``lines`` is all lines with a watched prefix. By kind they are ``denied`` + ``logged`` + ``unparsed``. Of them
        ``told`` were events of their own, ``summarised`` are in summaries, and ``waiting`` will be in a summary.
        ``lost`` is the number of records that could not be read, whatever they were.
        """
        return {
            "source": self._source.name,
            "position": self._source.position,
            **self._counts,
            "waiting": self._aggregator.waiting,
        }

    def waiting(self) -> tuple[tuple[FlowSummary, ...], int]:
        """The counts that no summary has reported yet, and the number of lost records that no event has reported."""
        return tuple(self._aggregator.pending()), self._losses.unreported

    def skip_backlog(self) -> int:
        """Read what the source has from before now and report nothing; how many lines had a watched prefix."""
        found = 0
        while items := self._source.read_available(SLICE):
            for item in items:
                found += self._is_watched(item)
        return found

    def _is_watched(self, item: LogLine | Denial | Unparsed | Lost) -> bool:
        match item:
            case Denial() | Unparsed():
                return True
            case Lost():
                return False
            case _:
                return self._reader.read(item.text) is not None

    def read(self) -> None:
        """Read what the source has now, for a limited time, and emit events. Raises OSError if it cannot be read."""
        now = began = time.monotonic()
        self._clock.suspends.look(time.clock_gettime(time.CLOCK_BOOTTIME) - now)
        while now - began < TURN:
            moment = ReadTime(now, time.time(), self._room())
            items = self._source.read_available(SLICE)
            if items and self._are_live(items, now):
                moment = moment._replace(live=True)
            for item in items:
                self._take(item, moment)
            self._waited = not items
            if not items:
                self._clock.suspends.all_read()
                break
            now = time.monotonic()
        self._emit_losses(now)

    def _take(self, item: LogLine | Denial | Unparsed | Lost, moment: ReadTime) -> None:
        match item:
            case Lost():
                self._lose(self._source.name, item.count)
            case Denial() | Unparsed():
                self._take_parsed(item, None, moment)
            case _:
                self._take_line(item, moment)

    def _are_live(self, items: Sequence[SourceItem], now: float) -> bool:
        """Whether even the oldest of these lines is new, so that the time of reading is the time of all. Where the last
        read found nothing, the newest line also shows how far the clock of the kernel log is behind."""
        oldest, newest = items[0], items[-1]
        if isinstance(oldest, (Lost, Denial, Unparsed)) or isinstance(newest, (Lost, Denial, Unparsed)):
            return False
        if not oldest.usec or not newest.usec:
            return False
        if self._waited:
            self._clock.sample(newest.usec, now)
        return self._clock.age(oldest.usec, now) == 0.0

    def _take_line(self, line: LogLine, moment: ReadTime) -> None:
        if not moment.live:
            moment = self._clock.moment_of(line, moment)
        text = line.text
        if self._limits.window:
            packet = self._reader.read_flow(text)
            if packet is not None:
                if self._count(packet, moment):
                    self._emit_single(self._reader.read(text), line.seq, moment)
                return
        parsed = self._reader.read(text)
        if parsed is not None:
            self._take_parsed(parsed, line.seq, moment)
        else:
            self._take_other(text)

    def _take_other(self, text: str) -> None:
        """A record of the kernel without a watched prefix."""
        self._clock.suspends.pass_by(text)
        if text.endswith(SUPPRESSED):
            self._lose(KERNEL, reported_loss(text) or 0)

    def _lose(self, source: str, count: int) -> None:
        self._counts["lost"] += count
        self._losses.add(source, count)

    def _take_parsed(self, parsed: Denial | Unparsed, seq: int | None, moment: ReadTime) -> None:
        if isinstance(parsed, Denial):
            if self._count(flow_of(parsed), moment):
                self._emit_single(parsed, seq, moment)
            return
        self._counts["lines"] += 1
        self._counts["unparsed"] += 1
        key = Malformed(parsed.watched.prefix)
        if self._aggregator.count(key, moment.now, moment.when, room=moment.room):
            self._emit_single(parsed, seq, moment)

    def _count(self, packet: FlowPacket, moment: ReadTime) -> bool:
        """Whether a line of this flow becomes an event at once. A notice about its source is emitted here."""
        flow = packet.flow
        meaning = self._meanings[flow.prefix]
        self._counts["lines"] += 1
        self._counts[meaning] += 1
        if packet.is_request and meaning == "denied":
            notice = self._scans.observe(flow, moment.now - moment.age)
            if notice is not None:
                self._emit_notice(notice, moment)
        return self._aggregator.count(flow, moment.now, moment.when, room=moment.room)

    def _emit_notice(self, notice: Notice, moment: ReadTime) -> None:
        kind = events.SWEEP
        if isinstance(notice, Scan):
            kind = events.SCAN
        self._emit(kind, notice_sentence(notice), **notice_fields(notice), **time_field(moment))

    def _emit_single(self, parsed: Denial | Unparsed | None, seq: int | None, moment: ReadTime) -> None:
        self._counts["told"] += 1
        if isinstance(parsed, Denial):
            self._emit_denial(parsed, seq, moment)
        elif parsed is not None:
            self._emit_unparsed(parsed, seq, moment)

    def _emit_unparsed(self, parsed: Unparsed, seq: int | None, moment: ReadTime) -> None:
        fields = {"line": parsed.text, "expected": parsed.expected, "kmsg_seq": seq, **time_field(moment)}
        probable = self._rules.probable(parsed)
        if probable is not None:
            fields["rule"] = str(probable[1])
        self._emit(events.DENIALS_UNPARSED, unparsed_sentence(parsed, probable), **fields)

    def _emit_denial(self, denial: Denial, seq: int | None, moment: ReadTime) -> None:
        fields = {**denial_fields(denial), **time_field(moment)}
        rule = self._rules.of_denial(denial)
        if rule is not None:
            fields["rule"] = str(rule)
        if self._source.group is not None:
            fields["packet"] = denial.text
        else:
            fields["line"] = denial.text
        self._emit(_SINGLE[denial.watched.meaning], sentence(denial, rule), **fields, kmsg_seq=seq)

    def due(self) -> float | None:
        """When `tick` has something to do, by the clock of time.monotonic(); None while nothing waits."""
        due = self._summary_due()
        if self._losses.unreported and (due is None or self._losses.due < due):
            due = self._losses.due
        return due

    def _summary_due(self) -> float | None:
        """When the next summary is due, or to be tried again because the sink has no room."""
        due = self._aggregator.due()
        if due is not None and due <= time.monotonic() and not self._room():
            return time.monotonic() + RETRY
        return due

    def tick(self) -> None:
        """Emit what is due, a limited number of events."""
        now = time.monotonic()
        if self._room():
            self._emit_summaries(self._aggregator.take(now, SUMMARIES_PER_TURN))
        self._emit_losses(now)

    def finish(self) -> None:
        """Emit everything that waits, due or not."""
        self._emit_summaries(self._aggregator.take_all())
        self._losses.due = 0.0
        self._emit_losses(time.monotonic())

    def _emit_summaries(self, summaries: Sequence[FlowSummary]) -> None:
        for summary in summaries:
            self._emit_summary(summary)
            self._counts["summarised"] += summary.count

    def _emit_summary(self, summary: FlowSummary) -> None:
        watched = self._watched_by(summary.key)
        fields = summary_fields(summary, watched)
        if isinstance(summary.key, Malformed):
            self._emit(events.DENIALS_UNPARSED, malformed_sentence(summary, watched), **fields)
            return
        rule = self._rules.of_flow(summary.key)
        if rule is not None:
            fields["rule"] = str(rule)
        self._emit(_SUMMARY[watched.meaning], summary_sentence(summary, watched, rule), **fields)

    def _watched_by(self, key: Key) -> Watched:
        """The prefix of a flow, also if it is not watched any more."""
        return self._watched.get(key.prefix) or Watched("", key.prefix, Meaning.DENIED)

    def _emit_losses(self, now: float) -> None:
        for source, count in self._losses.take(now):
            self._emit(events.DENIALS_LOST, loss_sentence(source, count), count=count, source=source)
