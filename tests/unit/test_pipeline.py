"""From what a source hands out to events: what is told, what is counted, and that it all adds up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd import events
from fwguardd.denials.aggregation import AggregationLimits
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Meaning, Watched
from fwguardd.denials.pipeline import SLICE, SUMMARIES_A_TURN, Pipeline
from fwguardd.kernel.kmsg import Lost, Record
from fwguardd.ruleset.model import Origin
from tests.unit.emitted import check_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.denials.pipeline import Heard
    from fwguardd.events import EventKind

DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
OUTPUT = Watched("output", "[Output Log] ", Meaning.LOGGED)


class Told:
    """The events that were told."""

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
    position = "7"

    def __init__(self) -> None:
        self.waiting: list[Heard] = []
        self.watched: Sequence[Watched] = ()
        self._seq = 0

    def line(self, text: str) -> None:
        """A record of the kernel with this text."""
        self._seq += 1
        self.waiting.append(Record(0, 4, self._seq, 0, text))

    def denial(self, prefix: str = DENIED.prefix, src: str = "192.0.2.1", dpt: int = 23, spt: int = 40000) -> None:
        """A line about a TCP SYN."""
        self.line(
            f"{prefix}IN=eth0 OUT= MAC= SRC={src} DST=10.0.0.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 "
            f"PROTO=TCP SPT={spt} DPT={dpt} WINDOW=1 RES=0x00 SYN URGP=0 "
        )

    def fileno(self) -> int:
        """There is no descriptor: the test says when to read."""
        raise NotImplementedError

    def read_available(self, limit: int) -> Sequence[Heard]:
        """The next things."""
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def watch(self, watched: Sequence[Watched]) -> None:
        """Remembered."""
        self.watched = watched

    def close(self) -> None:
        """Nothing to give back."""


class Road:
    """A tail between a given source and told events."""

    def __init__(self, limits: AggregationLimits, watched: Sequence[Watched] = (DENIED, OUTPUT)) -> None:
        self.source, self.told, self.room = Given(), Told(), True
        self.tail = Pipeline(self.source, watched, limits, self.told, lambda: self.room)

    def read_all(self) -> None:
        """Read until nothing is left."""
        while self.source.waiting:
            self.tail.read()

    def check_sums(self) -> None:
        """The counts add up by kind and by fate, and are those of the events."""
        counts: dict[str, Any] = self.tail.counts()
        assert counts["lines"] == counts["denied"] + counts["logged"] + counts["unparsed"]
        assert counts["lines"] == counts["told"] + counts["summarised"] + counts["waiting"]
        assert self.told.lines() == counts["told"] + counts["summarised"]


def test_first_lines_and_summary_add_up() -> None:
    """The first lines of a flow are events, the others one summary with count and times; all add up to what came."""
    road = Road(AggregationLimits(first=2))
    for number in range(10):
        road.source.denial(spt=40000 + number)
    road.source.line("eth0: link is up")
    before = time.time()
    road.read_all()
    assert [fields["spt"] for fields in road.told.of(events.DENIED)] == [40000, 40001]
    road.check_sums()
    assert road.tail.counts()["waiting"] == 8
    road.tail.finish()
    (summary,) = road.told.of(events.DENIED_SUMMARY)
    first, last = summary.pop("first"), summary.pop("last")
    assert summary == {
        "count": 8, "src": "192.0.2.1", "dst": "10.0.0.1", "proto": "tcp", "dpt": 23, "in": "eth0",
        "prefix": "iptables denied: ", "name": "denied", "meaning": "denied",
    }  # fmt: skip
    assert first <= last
    assert first[:4] == time.strftime("%Y", time.gmtime(before))
    road.check_sums()


def test_messages_name_the_rule_that_logged() -> None:
    """Where one rule alone has the prefix, sentence and field name the place where it was written."""
    road = Road(AggregationLimits(first=1))
    road.tail.use_rules({("ipv4", DENIED.prefix): Origin("/etc/fwguard.d/99-log.rules", 4)})
    for _ in range(3):
        road.source.denial()
    road.source.denial(OUTPUT.prefix)
    road.read_all()
    road.tail.finish()
    words = [message for _, message, _ in road.told.events]
    assert words[0] == "denied TCP SYN 192.0.2.1:40000 → 10.0.0.1:23 in eth0 (99-log.rules:4)"
    assert words[1] == "logged TCP SYN 192.0.2.1:40000 → 10.0.0.1:23 in eth0"
    assert words[2] == "denied 2 more: TCP 192.0.2.1 → 10.0.0.1:23 in eth0, within 0.0 s (99-log.rules:4)"
    rules = [fields.get("rule") for _, _, fields in road.told.events]
    assert rules == ["/etc/fwguard.d/99-log.rules:4", None, "/etc/fwguard.d/99-log.rules:4"]


def test_lines_that_nobody_can_read_are_kept_and_counted() -> None:
    """The first ones are told with the raw line; a flood of them is counted; all add up."""
    road = Road(AggregationLimits(first=2))
    for number in range(9):
        road.source.line(f"iptables denied: nonsense {number}")
    road.read_all()
    road.tail.finish()
    told = road.told.of(events.DENIALS_UNPARSED)
    assert [fields.get("line") for fields in told] == [
        "iptables denied: nonsense 0",
        "iptables denied: nonsense 1",
        None,
    ]
    assert told[2]["count"] == 7
    assert road.tail.counts()["unparsed"] == 9
    road.check_sums()


def test_losses_are_told_at_once_and_then_together() -> None:
    """The first loss is told at once, those that follow soon are told together; the number is exact."""
    road = Road(AggregationLimits())
    for count in (1, 20, 300):
        road.source.waiting.append(Lost(count))
        road.read_all()
    assert [fields["count"] for fields in road.told.of(events.DENIALS_LOST)] == [1]
    assert road.tail.counts()["lost"] == 321
    due = road.tail.due()
    assert due is not None and due > time.monotonic()
    road.tail.finish()
    assert [fields["count"] for fields in road.told.of(events.DENIALS_LOST)] == [1, 320]
    assert all("put a limit on the rules that log" in message for _, message, _ in road.told.events)
    assert road.tail.due() is None


def test_denials_that_a_source_has_read_itself_are_told_too() -> None:
    """A source of packets hands out denials and not lines; they take the same road."""
    road = Road(AggregationLimits(first=1))
    road.source.denial()
    text = road.source.waiting.pop()
    assert isinstance(text, Record)
    read = LineReader([DENIED]).read(text.text)
    assert read is not None
    road.source.waiting += [read, read]
    road.read_all()
    assert [fields["dpt"] for fields in road.told.of(events.DENIED)] == [23]
    road.tail.finish()
    road.check_sums()


def test_scans_are_told_and_marked_as_spoofable() -> None:
    """A source that was denied many ports is told of once, with a warning that its address may be forged."""
    road = Road(AggregationLimits(scan_ports=5))
    for port in range(1, 9):
        road.source.denial(dpt=port)
        road.source.denial(OUTPUT.prefix, src="192.0.2.2", dpt=port)
    road.read_all()
    assert road.told.of(events.SCAN) == [
        {"src": "192.0.2.1", "count": 5, "ports": ("tcp/1", "tcp/2", "tcp/3", "tcp/4", "tcp/5"), "spoofable": "yes"}
    ]
    (message,) = (message for kind, message, _ in road.told.events if kind is events.SCAN)
    assert message.startswith("192.0.2.1 was denied 5 ports within 0.")
    assert message.endswith(", tcp/1 to tcp/5: a port scan, if the address is not forged")


def test_answers_are_no_scan() -> None:
    """Late answers of a name server to many ports, and segments of dead connections, are no scan."""
    road = Road(AggregationLimits(scan_ports=5))
    head = f"{DENIED.prefix}IN=eth0 OUT= MAC= SRC=192.0.2.1 DST=10.0.0.1 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 "
    for port in range(40000, 40020):
        road.source.line(f"{head}PROTO=UDP SPT=53 DPT={port} LEN=20 ")
        road.source.line(f"{head}PROTO=TCP SPT=443 DPT={port} WINDOW=1 RES=0x00 ACK FIN URGP=0 ")
    road.read_all()
    assert road.told.of(events.SCAN) == []
    for port in range(5):
        road.source.line(f"{head}PROTO=UDP SPT=40000 DPT={port + 2000} LEN=20 ")
    road.read_all()
    assert len(road.told.of(events.SCAN)) == 1


def test_without_room_lines_are_counted_and_told_later() -> None:
    """While nobody takes events nothing is told; summaries wait, and are tried again soon; then all is told."""
    road = Road(AggregationLimits(window=0))
    road.room = False
    for _ in range(5):
        road.source.denial()
    road.read_all()
    road.tail.tick()
    assert road.told.events == []
    due = road.tail.due()
    assert due is not None and due > time.monotonic(), "the loop must not turn for nothing"
    road.room = True
    road.tail.tick()
    assert [fields["count"] for fields in road.told.of(events.DENIED_SUMMARY)] == [5]
    road.check_sums()


def test_a_turn_is_bounded() -> None:
    """However much there is, one call reads for milliseconds only; however many summaries are due, one tells some."""
    road = Road(AggregationLimits(window=0))
    for number in range(20_000):
        road.source.denial(src=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    road.tail.read()
    assert SLICE <= len(road.told.events) < 10_000
    assert road.source.waiting
    road = Road(AggregationLimits(window=0))
    road.room = False
    for number in range(SUMMARIES_A_TURN + 7):
        road.source.denial(dpt=number)
    road.read_all()
    road.room = True
    road.told.events.clear()
    road.tail.tick()
    assert len(road.told.events) == SUMMARIES_A_TURN
    due = road.tail.due()
    assert due is not None and due <= time.monotonic()


def test_old_lines_are_passed_over() -> None:
    """What was there before is counted for the one sentence that says so, and nothing of it is told."""
    road = Road(AggregationLimits())
    for _ in range(3):
        road.source.denial()
    road.source.line("eth0: link is up")
    assert road.tail.pass_over() == 3
    road.source.denial(dpt=25)
    road.read_all()
    assert [fields["dpt"] for fields in road.told.of(events.DENIED)] == [25]


def test_other_settings_keep_what_is_counted() -> None:
    """New prefixes and limits hold from now on; what was counted before is told all the same."""
    road = Road(AggregationLimits(first=0))
    road.source.denial()
    road.read_all()
    other = Watched("other", "other: ", Meaning.LOGGED)
    road.tail.watch([other], AggregationLimits(first=5))
    assert list(road.source.watched) == [other]
    road.source.denial("other: ")
    road.read_all()
    road.tail.finish()
    assert [fields["name"] for fields in road.told.of(events.LOGGED)] == ["other"]
    assert [fields["prefix"] for fields in road.told.of(events.DENIED_SUMMARY)] == [DENIED.prefix]
    road.check_sums()


def test_another_tail_goes_on() -> None:
    """What waits in one tail is told by the next, with the counts that belong to it."""
    road, next_road = Road(AggregationLimits(first=0)), Road(AggregationLimits(first=0))
    for _ in range(3):
        road.source.denial()
    road.source.line("iptables denied: nonsense")
    road.source.waiting += [Lost(1), Lost(5)]
    road.read_all()
    next_road.tail.go_on(*road.tail.waiting())
    next_road.source.denial()
    next_road.read_all()
    next_road.tail.finish()
    assert [fields["count"] for fields in next_road.told.of(events.DENIED_SUMMARY)] == [4]
    assert next_road.tail.counts()["unparsed"] == 1
    next_road.check_sums()


@pytest.mark.parametrize("kind", list(events.ALL_EVENTS.values()), ids=lambda kind: kind.name)
def test_no_event_about_packets_is_above_warning(kind: EventKind) -> None:
    """Journald syncs its files for each message at critical or above; a flood must not make it do so."""
    if kind.name.startswith(("denied", "logged", "denials", "events")):
        assert kind.priority >= events.WARNING
