"""The road of a denial: kernel records -> LOG lines with a watched prefix -> events. Every line is accounted for.

A line is told as an event at once, or counted, and told in a summary (`fwguardd.denials.aggregation` decides). What
cannot be parsed is told raw, what the kernel overwrote before it was read is told with its number. Nothing here waits:
the caller reads when the source is readable, and calls `Pipeline.tick` when something is due."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from fwguardd import events
from fwguardd.denials.aggregation import Aggregator, Flow, FlowSummary, Malformed, see
from fwguardd.denials.formatting import (
    fields,
    loss_sentence,
    malformed_sentence,
    notice_fields,
    notice_sentence,
    sentence,
    summary_fields,
    summary_sentence,
)
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Meaning, Unparsed, Watched
from fwguardd.denials.scan import Scan, Scans
from fwguardd.kernel.kmsg import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fwguardd.denials.aggregation import AggregationLimits, Key, Seen
    from fwguardd.denials.formatting import RuleOrigin
    from fwguardd.events import Emit

    Rules = Mapping[tuple[str, str], RuleOrigin]

NOT_READ: Final[Mapping[str, Any]] = MappingProxyType(
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
"""The counts where no kernel log is read."""

SLICE: Final = 64
"""Reads between two looks at the clock."""

TURN: Final = 0.002
"""Seconds after which the event loop gets its turn again; one slice more at most."""

LOSS_GAP: Final = 10.0
"""Seconds between two events that tell of losses; under a flood there may be one each millisecond."""

SUMMARIES_A_TURN: Final = 50

RETRY: Final = 0.05
"""Seconds until summaries are tried again that found no room."""


class LogLine(Protocol):
    """The text of one kernel record, as a source hands it out; `fwguardd.kernel.kmsg.Record` is one."""

    @property
    def text(self) -> str:
        """In the spelling of /dev/kmsg (`fwguardd.denials.grammar.kernel_spelling`), without a line break."""

    @property
    def seq(self) -> int | None:
        """The record's number in the kernel log; None where the source does not know it."""

    @property
    def when(self) -> float | None:
        """When the kernel made it, in seconds since 1970; None means that it has just come."""


Heard: TypeAlias = LogLine | Denial | Unparsed | Lost
"""What a source hands out: a line of text, to be read here; a packet that it has read itself; or a loss."""


class Source(Protocol):
    """Where kernel records come from. `fwguardd.kernel.kmsg.KernelLog` is one.

    A source never waits: the event loop watches its descriptor. It hands out only what the kernel itself wrote, each
    thing once and in order, and a `Lost` in the place where something is missing.
    """

    @property
    def name(self) -> str:
        """One word for people: kmsg, journal, nflog."""

    @property
    def position(self) -> str | None:
        """How to come back to the place after all that was handed out, in printable ASCII; only the source knows what
        it means, and it is asked between two readings. None where there is no way back, or nothing to come back to."""

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is something."""

    def read_available(self, limit: int) -> Sequence[Heard]:
        """What is there now, after about ``limit`` reads at most; empty when there is nothing more, or nothing of
        interest, and then the descriptor stays readable while there is more. Raises OSError."""

    def watch(self, watched: Sequence[Watched]) -> None:
        """These are the prefixes of interest, from now on. For sources that make denials themselves, or that choose
        lines early; all others do nothing."""

    def close(self) -> None:
        """Give the descriptor back; a second time does nothing."""


class ReadTime(NamedTuple):
    """When a slice of lines was read: by a clock that never jumps, in seconds since 1970; and whether events are taken
    just now."""

    now: float
    when: float
    room: bool


class Pipeline:
    """Reads a source whenever it has something, and tells what it means.

    ``room`` tells whether events are taken just now: while it says no, lines are counted, and told when it says yes.
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
        self._rules: Rules = {}
        self._limits = limits
        self._tally, self._scans = Aggregator(limits), Scans(limits)
        self._counts = dict.fromkeys(("lines", "denied", "logged", "unparsed", "told", "summarised", "lost"), 0)
        self._lost_untold = 0
        self._loss_due = 0.0
        self.watch(watched, limits)

    def watch(self, watched: Sequence[Watched], limits: AggregationLimits) -> None:
        """From now on, look for these prefixes, within these limits. What is counted stays counted."""
        self._reader = LineReader(watched)
        self._watched = {each.prefix: each for each in watched}
        self._kinds = {each.prefix: each.meaning.value for each in watched}
        if limits != self._limits:
            pending, self._limits = self._tally.pending(), limits
            self._tally, self._scans = Aggregator(limits), Scans(limits)
            self._tally.restore(pending, time.monotonic())
        self._source.watch(watched)

    def use_source(self, source: Source) -> None:
        """From now on, read this source. What was counted stays counted."""
        self._source = source
        source.watch(tuple(self._watched.values()))

    def use_rules(self, rules: Rules) -> None:
        """From now on, these are the rules that make lines: family and prefix -> where the one rule was written."""
        self._rules = rules

    def counts(self) -> dict[str, int | str | None]:
        """What was read since the start, and what became of it.

        ``lines`` is all lines with a watched prefix: ``denied`` + ``logged`` + ``unparsed`` by kind, and ``told`` as
        events + ``summarised`` in events + ``waiting`` for a summary by fate. ``lost`` are records of the kernel that
        nobody can know anything of.
        """
        return {
            "source": self._source.name,
            "position": self._source.position,
            **self._counts,
            "waiting": self._tally.waiting,
        }

    def pass_over(self) -> int:
        """Read what the source has from before now, and tell nothing of it; how many lines had a watched prefix."""
        found = 0
        while items := self._source.read_available(SLICE):
            for item in items:
                if isinstance(item, (Denial, Unparsed)):
                    found += 1
                elif not isinstance(item, Lost):
                    found += self._reader.read(item.text) is not None
        return found

    def read(self) -> None:
        """Read and tell what the source has now, a bounded piece of it. Raises OSError where it cannot be read."""
        now = began = time.monotonic()
        while now - began < TURN:
            moment = ReadTime(now, time.time(), self._room())
            items = self._source.read_available(SLICE)
            for item in items:
                self._hear(item, moment)
            if not items:
                break
            now = time.monotonic()
        self._tell_losses(now)

    def _hear(self, item: Heard, moment: ReadTime) -> None:
        if isinstance(item, (Lost, Denial, Unparsed)):
            if isinstance(item, Lost):
                self._counts["lost"] += item.count
                self._lost_untold += item.count
            else:
                self._hear_read(item, None, moment)
        else:
            self._hear_line(item, moment)

    def _hear_line(self, line: LogLine, moment: ReadTime) -> None:
        if line.when is not None:
            moment = moment._replace(when=line.when)
        text = line.text
        seen = self._reader.glance(text) if self._limits.window else None
        if seen is None:
            read = self._reader.read(text)
            if read is not None:
                self._hear_read(read, line.seq, moment)
        elif self._weigh(seen, moment):
            self._tell(self._reader.read(text), line.seq)

    def _hear_read(self, read: Denial | Unparsed, seq: int | None, moment: ReadTime) -> None:
        if isinstance(read, Denial):
            if self._weigh(see(read), moment):
                self._tell(read, seq)
        else:
            self._counts["lines"] += 1
            self._counts["unparsed"] += 1
            if self._tally.count(Malformed(read.watched.prefix), moment.now, moment.when, room=moment.room):
                self._tell(read, seq)

    def _weigh(self, seen: Seen, moment: ReadTime) -> bool:
        """Whether to tell a line of this flow at once; its scan is told here."""
        flow = seen.flow
        kind = self._kinds[flow.prefix]
        self._counts["lines"] += 1
        self._counts[kind] += 1
        if seen.asks and kind == "denied":
            notice = self._scans.look(flow, moment.now)
            if notice is not None:
                event = events.SCAN if isinstance(notice, Scan) else events.SWEEP
                self._emit(event, notice_sentence(notice), **notice_fields(notice))
        return self._tally.count(flow, moment.now, moment.when, room=moment.room)

    def _tell(self, read: Denial | Unparsed | None, seq: int | None) -> None:
        self._counts["told"] += 1
        if isinstance(read, Denial):
            kind = events.DENIED if read.watched.meaning is Meaning.DENIED else events.LOGGED
            rule = self._rules.get((read.family.value, read.watched.prefix))
            named = {} if rule is None else {"rule": str(rule)}
            evidence = {"packet" if self._source.name == "nflog" else "line": read.text}
            self._emit(kind, sentence(read, rule), **fields(read), **named, **evidence, kmsg_seq=seq)
        elif read is not None:
            message = f"a kernel line has the prefix {read.watched.prefix!r} and an unknown form: {read.text}"
            self._emit(events.DENIALS_UNPARSED, message, line=read.text, expected=read.expected, kmsg_seq=seq)

    def due(self) -> float | None:
        """When `tick` has something to do, by the clock of time.monotonic(); None while nothing waits."""
        summary = self._tally.due()
        if summary is not None and summary <= time.monotonic() and not self._room():
            summary = time.monotonic() + RETRY
        loss = self._loss_due if self._lost_untold else None
        return min((due for due in (summary, loss) if due is not None), default=None)

    def tick(self) -> None:
        """Tell what is due, a bounded piece of it."""
        now = time.monotonic()
        if self._room():
            self._tell_summaries(self._tally.take(now, SUMMARIES_A_TURN))
        self._tell_losses(now)

    def finish(self) -> None:
        """Tell all that waits, due or not."""
        self._tell_summaries(self._tally.take_all())
        self._loss_due = 0.0
        self._tell_losses(time.monotonic())

    def waiting(self) -> tuple[tuple[FlowSummary, ...], int]:
        """What is counted and not told yet, and the lost records that are not told yet."""
        return tuple(self._tally.pending()), self._lost_untold

    def go_on(self, waiting: Sequence[FlowSummary], lost: int) -> None:
        """Count on from what another tail had waiting."""
        self._tally.restore(waiting, time.monotonic())
        self._lost_untold += lost
        self._counts["lost"] += lost
        for summary in waiting:
            self._counts["lines"] += summary.count
            unparsed = isinstance(summary.key, Malformed)
            self._counts["unparsed" if unparsed else self._known(summary.key).meaning.value] += summary.count

    def _tell_summaries(self, summaries: Sequence[FlowSummary]) -> None:
        for summary in summaries:
            watched = self._known(summary.key)
            rule = self._rule_of(summary.key)
            told = summary_fields(summary, watched)
            if isinstance(summary.key, Malformed):
                self._emit(events.DENIALS_UNPARSED, malformed_sentence(summary, watched), **told)
            else:
                kind = events.DENIED_SUMMARY if watched.meaning is Meaning.DENIED else events.LOGGED_SUMMARY
                named = {} if rule is None else {"rule": str(rule)}
                self._emit(kind, summary_sentence(summary, watched, rule), **told, **named)
            self._counts["summarised"] += summary.count

    def _known(self, key: Key) -> Watched:
        """The prefix of a flow; it may be watched no more."""
        return self._watched.get(key.prefix) or Watched("", key.prefix, Meaning.DENIED)

    def _rule_of(self, key: Key) -> RuleOrigin | None:
        if not isinstance(key, Flow) or not key.src:
            return None
        return self._rules.get(("ipv6" if ":" in key.src else "ipv4", key.prefix))

    def _tell_losses(self, now: float) -> None:
        if not self._lost_untold or now < self._loss_due:
            return
        count, self._lost_untold = self._lost_untold, 0
        self._loss_due = now + LOSS_GAP
        self._emit(events.DENIALS_LOST, loss_sentence(self._source.name, count), count=count, source=self._source.name)
