"""From the items of a source to events: which are reported one by one, which are counted, and that the sum is exact."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd import events
from fwguardd.denials.aggregation import AggregationLimits
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Meaning, Watched
from fwguardd.denials.pipeline import SLICE, SUMMARIES_PER_TURN, Pipeline
from fwguardd.denials.record_time import RecordClock, SuspendClock
from fwguardd.kernel.kmsg import Lost, Record
from fwguardd.ruleset.model import Origin
from tests.unit.emitted import check_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.denials.source import SourceItem
    from fwguardd.events import EventKind

DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
OUTPUT = Watched("output", "[Output Log] ", Meaning.LOGGED)


class Events:
    """The events that were emitted."""

    def __init__(self) -> None:
        self.events: list[tuple[EventKind, str, dict[str, Any]]] = []

    def __call__(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Hold it to the schema, and remember it."""
        check_fields(kind, fields)
        self.events.append((kind, message, fields))

    def of(self, *kinds: EventKind) -> list[dict[str, Any]]:
        """The fields of the events of these kinds."""
        return [fields for kind, _, fields in self.events if kind in kinds]

    def lines(self) -> int:
        """The lines that the events stand for."""
        single = self.of(events.DENIED, events.LOGGED, events.DENIALS_UNPARSED)
        return sum(fields.get("count", 1) for fields in single + self.of(events.DENIED_SUMMARY, events.LOGGED_SUMMARY))


class Given:
    """A source of what a test gives it."""

    name = "given"
    group = None
    position = "7"

    def __init__(self) -> None:
        self.waiting: list[SourceItem] = []
        self.watched: Sequence[Watched] = ()
        self._seq = 0

    def line(self, text: str) -> None:
        """A record of the kernel with this text."""
        self._seq += 1
        self.waiting.append(Record(0, 4, self._seq, 0, text))

    def date_back(self, *seconds: float) -> None:
        """Let the lines be so many seconds old."""
        now = time.monotonic()
        for place, age in enumerate(seconds):
            item = self.waiting[place]
            assert isinstance(item, Record)
            self.waiting[place] = item._replace(usec=round((now - age) * 1_000_000))

    def denial(self, prefix: str = DENIED.prefix, src: str = "192.0.2.1", dpt: int = 23, spt: int = 40000) -> None:
        """A line about a TCP SYN."""
        self.line(
            f"{prefix}IN=eth0 OUT= MAC= SRC={src} DST=10.0.0.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 "
            f"PROTO=TCP SPT={spt} DPT={dpt} WINDOW=1 RES=0x00 SYN URGP=0 "
        )

    def fileno(self) -> int:
        """There is no descriptor: the test says when to read."""
        raise NotImplementedError

    def read_available(self, limit: int) -> Sequence[SourceItem]:
        """The next things."""
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def watch(self, watched: Sequence[Watched]) -> None:
        """Remembered."""
        self.watched = watched

    def close(self) -> None:
        """Nothing to give back."""


class Run:
    """A pipeline between a given source and the events that it emits."""

    def __init__(self, limits: AggregationLimits, watched: Sequence[Watched] = (DENIED, OUTPUT)) -> None:
        self.source, self.emitted, self.room = Given(), Events(), True
        self.pipeline = Pipeline(self.source, watched, limits, self.emitted, lambda: self.room)

    def read_all(self) -> None:
        """Read until nothing is left."""
        while self.source.waiting:
            self.pipeline.read()

    def check_sums(self) -> None:
        """The counts add up by kind and by fate, and are those of the events."""
        counts: dict[str, Any] = self.pipeline.counts()
        assert counts["lines"] == counts["denied"] + counts["logged"] + counts["unparsed"]
        assert counts["lines"] == counts["told"] + counts["summarised"] + counts["waiting"]
        assert self.emitted.lines() == counts["told"] + counts["summarised"]


def test_first_lines_and_summary_add_up() -> None:
    """The first lines of a flow are events, the others one summary with count and times; all add up to what came."""
    run = Run(AggregationLimits(first=2))
    for number in range(10):
        run.source.denial(spt=40000 + number)
    run.source.line("eth0: link is up")
    before = time.time()
    run.read_all()
    assert [fields["spt"] for fields in run.emitted.of(events.DENIED)] == [40000, 40001]
    run.check_sums()
    assert run.pipeline.counts()["waiting"] == 8
    run.pipeline.finish()
    (summary,) = run.emitted.of(events.DENIED_SUMMARY)
    first, last = summary.pop("first"), summary.pop("last")
    assert summary == {
        "count": 8, "src": "192.0.2.1", "dst": "10.0.0.1", "proto": "tcp", "dpt": 23, "in": "eth0",
        "prefix": "iptables denied: ", "name": "denied", "meaning": "denied",
    }  # fmt: skip
    assert first <= last
    assert first[:4] == time.strftime("%Y", time.gmtime(before))
    run.check_sums()


def test_messages_name_the_rule_that_logged() -> None:
    """Where one rule alone has the prefix, sentence and field name the place where it was written."""
    run = Run(AggregationLimits(first=1))
    run.pipeline.use_rules({("ipv4", DENIED.prefix): Origin("/etc/fwguard.d/99-log.rules", 4)})
    for _ in range(3):
        run.source.denial()
    run.source.denial(OUTPUT.prefix)
    run.read_all()
    run.pipeline.finish()
    words = [message for _, message, _ in run.emitted.events]
    assert words[0] == "denied TCP SYN 192.0.2.1:40000 → 10.0.0.1:23 in eth0 (99-log.rules:4)"
    assert words[1] == "logged TCP SYN 192.0.2.1:40000 → 10.0.0.1:23 in eth0"
    assert words[2] == "denied 2 more: TCP 192.0.2.1 → 10.0.0.1:23 in eth0, within 0.0 s (99-log.rules:4)"
    rules = [fields.get("rule") for _, _, fields in run.emitted.events]
    assert rules == ["/etc/fwguard.d/99-log.rules:4", None, "/etc/fwguard.d/99-log.rules:4"]


def test_rules_that_share_a_prefix_are_named_by_the_way_of_the_packet() -> None:
    """Where several rules have the prefix, the way of the packet through the host may leave only one."""
    run = Run(AggregationLimits(first=1))
    run.pipeline.use_rules({}, {("ipv4", DENIED.prefix, "in"): Origin("a.rules", 4)})
    run.source.denial()
    run.source.line(
        f"{DENIED.prefix}IN=eth0 OUT=eth1 MAC= SRC=192.0.2.1 DST=10.0.0.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 "
        "PROTO=TCP SPT=1 DPT=23 WINDOW=1 RES=0x00 SYN URGP=0 "
    )
    run.read_all()
    assert [fields.get("rule") for _, _, fields in run.emitted.events] == ["a.rules:4", None]


def test_a_line_of_a_longer_prefix_names_its_rule() -> None:
    """A line cannot be parsed if its own prefix begins with a watched one: the event names its rule."""
    run = Run(AggregationLimits())
    run.pipeline.use_rules({("ipv4", f"{DENIED.prefix}INVALID "): Origin("a.rules", 4)})
    run.source.denial(f"{DENIED.prefix}INVALID ")
    run.read_all()
    ((message, fields),) = [(message, fields) for _, message, fields in run.emitted.events]
    assert fields["rule"] == "a.rules:4"
    assert "'iptables denied: INVALID ', which begins with the watched prefix 'iptables denied: '" in message


def test_a_rule_without_a_prefix_and_one_that_allows() -> None:
    """An empty prefix is that of lines which begin with the devices. What is allowed has a meaning of its own, and
    counts as logged."""
    allowed = Watched("allowed", "ok ", Meaning.ALLOWED)
    run = Run(AggregationLimits(), (Watched("all", "", Meaning.DENIED), allowed))
    run.source.denial("")
    run.source.denial("ok ")
    run.source.line("usb 1-1: new device")
    run.read_all()
    assert [(kind.name, fields["meaning"]) for kind, _, fields in run.emitted.events] == [
        ("denied", "denied"),
        ("logged", "allowed"),
    ]
    run.check_sums()


def test_unparsed_lines_are_kept_and_counted() -> None:
    """The first ones are events with the raw line; a flood of them is counted; the sum is exact."""
    run = Run(AggregationLimits(first=2))
    for number in range(9):
        run.source.line(f"iptables denied: nonsense {number}")
    run.read_all()
    run.pipeline.finish()
    found = run.emitted.of(events.DENIALS_UNPARSED)
    assert [fields.get("line") for fields in found] == [
        "iptables denied: nonsense 0",
        "iptables denied: nonsense 1",
        None,
    ]
    assert found[2]["count"] == 7
    assert run.pipeline.counts()["unparsed"] == 9
    run.check_sums()


def test_losses_are_reported_at_once_and_then_together() -> None:
    """The first loss is an event at once, those that follow soon are one event; the number is exact."""
    run = Run(AggregationLimits())
    for count in (1, 20, 300):
        run.source.waiting.append(Lost(count))
        run.read_all()
    assert [fields["count"] for fields in run.emitted.of(events.DENIALS_LOST)] == [1]
    assert run.pipeline.counts()["lost"] == 321
    before = time.monotonic()
    due = run.pipeline.due()
    assert due is not None and due > before
    run.pipeline.finish()
    assert [fields["count"] for fields in run.emitted.of(events.DENIALS_LOST)] == [1, 320]
    assert all("add a limit to the rules that log" in message for _, message, _ in run.emitted.events)
    assert run.pipeline.due() is None


def test_denials_that_a_source_has_parsed_are_reported_too() -> None:
    """A source of packets hands out denials and not lines; they take the same run."""
    run = Run(AggregationLimits(first=1))
    run.source.denial()
    text = run.source.waiting.pop()
    assert isinstance(text, Record)
    read = LineReader([DENIED]).read(text.text)
    assert read is not None
    run.source.waiting += [read, read]
    run.read_all()
    assert [fields["dpt"] for fields in run.emitted.of(events.DENIED)] == [23]
    run.pipeline.finish()
    run.check_sums()


def test_scans_are_reported_and_marked_as_spoofable() -> None:
    """A source that was denied at many ports is one notice, which says that its address may be forged."""
    run = Run(AggregationLimits(scan_ports=5))
    for port in range(1, 9):
        run.source.denial(dpt=port)
        run.source.denial(OUTPUT.prefix, src="192.0.2.2", dpt=port)
    run.read_all()
    assert run.emitted.of(events.SCAN) == [
        {"src": "192.0.2.1", "count": 5, "ports": ("tcp/1", "tcp/2", "tcp/3", "tcp/4", "tcp/5"), "spoofable": "yes"}
    ]
    (message,) = (message for kind, message, _ in run.emitted.events if kind is events.SCAN)
    assert message.startswith("192.0.2.1 was denied at 5 ports within 0.")
    assert message.endswith(", tcp/1 to tcp/5: a port scan, if the address is not forged")


def test_answers_are_no_scan() -> None:
    """Late answers of a name server to many ports, and segments of dead connections, are no scan."""
    run = Run(AggregationLimits(scan_ports=5))
    head = f"{DENIED.prefix}IN=eth0 OUT= MAC= SRC=192.0.2.1 DST=10.0.0.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 "
    for port in range(40000, 40020):
        run.source.line(f"{head}PROTO=UDP SPT=53 DPT={port} LEN=20 ")
        run.source.line(f"{head}PROTO=TCP SPT=443 DPT={port} WINDOW=1 RES=0x00 ACK FIN URGP=0 ")
    run.read_all()
    assert run.emitted.of(events.SCAN) == []
    for port in range(5):
        run.source.line(f"{head}PROTO=UDP SPT=40000 DPT={port + 2000} LEN=20 ")
    run.read_all()
    assert len(run.emitted.of(events.SCAN)) == 1


def test_without_room_lines_are_counted_and_reported_later() -> None:
    """While the sink has no room nothing is emitted; summaries wait, and are tried again soon."""
    run = Run(AggregationLimits(window=0))
    run.room = False
    for _ in range(5):
        run.source.denial()
    run.read_all()
    run.pipeline.tick()
    assert run.emitted.events == []
    before = time.monotonic()
    due = run.pipeline.due()
    assert due is not None and due > before, "the loop must not turn for nothing"
    run.room = True
    run.pipeline.tick()
    assert [fields["count"] for fields in run.emitted.of(events.DENIED_SUMMARY)] == [5]
    run.check_sums()


def test_a_turn_is_bounded() -> None:
    """However much there is, one call reads a bounded part; however many summaries are due, one call emits
    some of them."""
    run = Run(AggregationLimits(window=0))
    for number in range(20_000):
        run.source.denial(src=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    run.pipeline.read()
    assert SLICE <= len(run.emitted.events) < 10_000
    assert run.source.waiting
    run = Run(AggregationLimits(window=0))
    run.room = False
    for number in range(SUMMARIES_PER_TURN + 7):
        run.source.denial(dpt=number)
    run.read_all()
    run.room = True
    run.emitted.events.clear()
    run.pipeline.tick()
    assert len(run.emitted.events) == SUMMARIES_PER_TURN
    due = run.pipeline.due()
    assert due is not None and due <= time.monotonic()


def test_the_backlog_is_skipped() -> None:
    """Lines from before are only counted, for the message; none becomes an event."""
    run = Run(AggregationLimits())
    for _ in range(3):
        run.source.denial()
    run.source.line("eth0: link is up")
    assert run.pipeline.skip_backlog() == 3
    run.source.denial(dpt=25)
    run.read_all()
    assert [fields["dpt"] for fields in run.emitted.of(events.DENIED)] == [25]


def test_other_settings_keep_what_is_counted() -> None:
    """New prefixes and limits hold from now on; what was counted before is still reported."""
    run = Run(AggregationLimits(first=0))
    run.source.denial()
    run.read_all()
    other = Watched("other", "other: ", Meaning.LOGGED)
    run.pipeline.watch([other], AggregationLimits(first=5))
    assert list(run.source.watched) == [other]
    run.source.denial("other: ")
    run.read_all()
    run.pipeline.finish()
    assert [fields["name"] for fields in run.emitted.of(events.LOGGED)] == ["other"]
    assert [fields["prefix"] for fields in run.emitted.of(events.DENIED_SUMMARY)] == [DENIED.prefix]
    run.check_sums()


def test_another_pipeline_resumes() -> None:
    """What waits in one pipeline is reported by the next, with the counts that belong to it."""
    run, next_run = Run(AggregationLimits(first=0)), Run(AggregationLimits(first=0))
    for _ in range(3):
        run.source.denial()
    run.source.line("iptables denied: nonsense")
    run.source.waiting += [Lost(1), Lost(5)]
    run.read_all()
    next_run.pipeline.resume(*run.pipeline.waiting())
    next_run.source.denial()
    next_run.read_all()
    next_run.pipeline.finish()
    assert [fields["count"] for fields in next_run.emitted.of(events.DENIED_SUMMARY)] == [4]
    assert next_run.pipeline.counts()["unparsed"] == 1
    next_run.check_sums()


@pytest.mark.parametrize("kind", list(events.ALL_EVENTS.values()), ids=lambda kind: kind.name)
def test_no_event_about_packets_is_above_warning(kind: EventKind) -> None:
    """Journald syncs its files for each message at critical or above; a flood must not make it do so."""
    if kind.name.startswith(("denied", "logged", "denials", "events")):
        assert kind.priority >= events.WARNING


def when(text: str) -> float:
    """Seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def test_the_time_of_a_line_that_was_read_later_is_that_of_its_packet() -> None:
    """A line from before the start has the time at which the packet was logged, and so have summaries; a line that has
    just been made has no such field."""
    run = Run(AggregationLimits(first=1))
    for _ in range(4):
        run.source.denial()
    run.source.date_back(50.0, 40.0, 30.0, 0.0)
    now = time.time()
    run.read_all()
    run.pipeline.finish()
    (event,), (summary,) = run.emitted.of(events.DENIED), run.emitted.of(events.DENIED_SUMMARY)
    assert abs(when(event["time"]) - (now - 50)) < 5
    assert abs(when(summary["first"]) - (now - 40)) < 5
    assert abs(when(summary["last"]) - now) < 5
    run.source.denial(dpt=24)
    run.source.date_back(0.1)
    run.read_all()
    assert "time" not in run.emitted.of(events.DENIED)[1]


def test_a_line_from_before_a_suspend_is_dated_by_the_time_that_was_spent_suspended() -> None:
    """The printk clock stops in a suspend. Lines before the record that begins one are that much older, and lines
    after it are not."""
    run = Run(AggregationLimits())
    suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    run.pipeline.resume((), 0, suspended - 3600)
    run.source.denial(dpt=1)
    run.source.line("PM: suspend entry (deep)")
    run.source.denial(dpt=2)
    run.source.date_back(40.0, 39.0, 38.0)
    now = time.time()
    run.read_all()
    before, after = (when(event["time"]) for event in run.emitted.of(events.DENIED))
    assert abs(before - (now - 3640)) < 5
    assert abs(after - (now - 38)) < 5
    assert run.pipeline.suspended == pytest.approx(suspended, abs=0.1)


def test_which_suspend_a_line_is_from_before() -> None:
    """A suspend whose first record was read before it accounts for itself; without that record, all that is unread
    when it is over counts as from before, until nothing is left."""
    clock = SuspendClock()
    clock.look(100.0)
    clock.pass_by("PM: suspend entry (s2idle)")
    seen = [(clock.missing, clock.accounted)]
    for suspended in (400.0, 500.0, 500.1):
        clock.look(suspended)
        clock.pass_by("usb 1-1: new device")
        seen.append((clock.missing, clock.accounted))
    clock.all_read()
    seen.append((clock.missing, clock.accounted))
    assert seen == [(0.0, None), (0.0, 400.0), (100.0, 400.0), (100.0, pytest.approx(400.1)), (0.0, 500.1)]


def test_what_the_kernel_suppressed_is_a_loss_of_its_own() -> None:
    """Messages that a rate limit of the kernel suppressed are counted, and reported apart from records that were
    overwritten; a line that only looks like such a report is not one."""
    run = Run(AggregationLimits())
    run.source.line("net_ratelimit: 42 callbacks suppressed")
    run.source.line("usb 1-1: the output was suppressed")
    run.source.waiting.append(Lost(7))
    run.read_all()
    losses = run.emitted.of(events.DENIALS_LOST)
    assert [(fields["source"], fields["count"]) for fields in losses] == [("kernel", 42), ("given", 7)]
    assert run.pipeline.counts()["lost"] == 49


def test_a_scan_is_found_by_the_times_of_its_packets() -> None:
    """Packets that came minutes apart are no scan, though they were read at once; those of a few seconds are, and its
    length is theirs."""
    limits = AggregationLimits(scan_ports=5)
    slow = Run(limits)
    for port in range(10):
        slow.source.denial(dpt=port)
    slow.source.date_back(*(30.0 * (10 - place) + 10 for place in range(10)))
    slow.read_all()
    assert slow.emitted.of(events.SCAN) == []
    fast = Run(limits)
    for port in range(5):
        fast.source.denial(dpt=port)
    fast.source.date_back(40.0, 35.0, 30.0, 25.0, 22.0)
    fast.read_all()
    ((message, fields),) = [(message, fields) for kind, message, fields in fast.emitted.events if kind is events.SCAN]
    assert "5 ports within 18 s" in message
    assert "time" in fields


def test_the_printk_clock_may_run_away() -> None:
    """How far the clock is behind is learned from records that were waited for; one that is made long before is not
    taken for one of them, and small delays do not add up."""
    clock = RecordClock()
    assert clock.age(99_000_000, 100.0) == 0.0
    assert clock.age(80_000_000, 100.0) == 20.0
    uptime = 1_000_000.0
    clock.sample(round((uptime - 300) * 1e6), uptime)
    assert clock.age(round((uptime - 300) * 1e6), uptime) == 0.0
    assert clock.age(round((uptime - 320) * 1e6), uptime) == 20.0
    clock.sample(round((uptime - 320) * 1e6), uptime)
    assert clock.age(round((uptime - 320) * 1e6), uptime) == 20.0
    for second in range(1, 100):
        clock.sample(round((uptime + second - 300.9) * 1e6), uptime + second)
    assert round(clock.age(round((uptime + 99 - 320) * 1e6), uptime + 99)) == 20
    fresh = RecordClock()
    fresh.sample(round((uptime - 5000) * 1e6), uptime)
    assert fresh.age(round((uptime - 5000) * 1e6), uptime) == 5000.0
