"""Which lines become events at once, which are counted, and when the counts are due."""

from __future__ import annotations

import pytest

from fwguardd.denials.aggregation import (
    AggregationLimits,
    Aggregator,
    Flow,
    FlowSummary,
    Malformed,
    Others,
    TokenBucket,
)
from fwguardd.denials.scan import Scan, ScanDetector, Sweep

WHEN = 1_700_000_000.0


def flow(src: str = "192.0.2.1", port: str = "23", dst: str = "10.0.0.1") -> Flow:
    """A flow of TCP."""
    return Flow("denied: ", "eth0", "", src, dst, "tcp", port)


def count(aggregator: Aggregator, key: Flow, times: list[float]) -> list[bool]:
    """Count a line of a flow at each of these times."""
    return [aggregator.count(key, now, WHEN + now) for now in times]


def test_first_lines_are_events_and_the_others_counted() -> None:
    """The first lines of a flow are events at once; the others are one summary, a window after the first of them."""
    aggregator = Aggregator(AggregationLimits(window=60, first=2))
    assert count(aggregator, flow(), [0, 1, 5, 7, 30]) == [True, True, False, False, False]
    assert aggregator.due() == 65
    assert aggregator.take(64.9, 10) == []
    assert aggregator.take(65, 10) == [FlowSummary(flow(), 3, WHEN + 5, WHEN + 30)]
    assert (aggregator.due(), aggregator.waiting) == (None, 0)


def test_nothing_is_due_while_nothing_waits() -> None:
    """Lines that were events need no wake-up later."""
    aggregator = Aggregator(AggregationLimits(first=3))
    assert aggregator.due() is None
    assert count(aggregator, flow(), [0, 1, 2]) == [True, True, True]
    assert aggregator.due() is None


def test_a_flow_that_goes_on_is_one_summary_a_window() -> None:
    """The lines of a flow that continues do not become events again: each window is one summary."""
    aggregator = Aggregator(AggregationLimits(window=60, first=1))
    shown = 0
    counts = []
    for second in range(600):
        shown += aggregator.count(flow(), second, WHEN)
        counts += [summary.count for summary in aggregator.take(second, 10)]
    assert shown == 1
    assert sum(counts) + aggregator.waiting == 599
    assert len(counts) == 9


def test_after_a_window_of_silence_a_flow_is_new() -> None:
    """After a window without lines, the first lines of a flow are events at once again."""
    aggregator = Aggregator(AggregationLimits(window=60, first=1))
    assert count(aggregator, flow(), [0, 59, 118]) == [True, False, False]
    assert [summary.count for summary in aggregator.take(119, 10)] == [2]
    assert count(aggregator, flow(), [177.9]) == [False]
    aggregator.take_all()
    assert count(aggregator, flow(), [238]) == [True]


def test_events_of_a_second_are_bounded() -> None:
    """When the events of a second are used up, lines are counted, whosever they are; a second later there are more."""
    aggregator = Aggregator(AggregationLimits(per_second=10))
    shown = [aggregator.count(flow(port=str(port)), 0.0, WHEN) for port in range(25)]
    assert shown == [True] * 10 + [False] * 15
    assert aggregator.waiting == 15
    assert [aggregator.count(flow(port=str(port)), 1.0, WHEN) for port in range(100, 120)].count(True) == 10


def test_memory_is_bounded_and_the_others_are_counted() -> None:
    """When every flow that is remembered has lines to tell, lines of more flows are counted together, none is lost."""
    aggregator = Aggregator(AggregationLimits(first=0, flows=3))
    for number in range(10):
        assert not aggregator.count(flow(src=f"192.0.2.{number}"), number, WHEN + number)
    summaries = aggregator.take_all()
    assert summaries[-1] == FlowSummary(Others("denied: "), 7, WHEN + 3, WHEN + 9)
    assert sum(summary.count for summary in summaries) == 10


def test_the_flow_that_was_silent_longest_is_forgotten_first() -> None:
    """A flow without lines to tell makes room; the one that was heard of last is still known."""
    aggregator = Aggregator(AggregationLimits(first=1, flows=2))
    first, second, third = (flow(src=f"192.0.2.{number}") for number in range(3))
    assert [aggregator.count(each, 0, WHEN) for each in (first, second)] == [True, True]
    assert not aggregator.count(first, 1, WHEN)
    assert aggregator.count(third, 2, WHEN)
    assert not aggregator.count(first, 3, WHEN)
    assert aggregator.count(second, 4, WHEN), "it was forgotten, so it is new"
    assert not aggregator.count(first, 5, WHEN), "it has lines to tell, so it is not forgotten"


def test_a_window_of_zero_makes_an_event_of_every_line() -> None:
    """With a window of 0 every line is an event, however many come."""
    aggregator = Aggregator(AggregationLimits(window=0, first=0, per_second=0))
    assert all(aggregator.count(flow(), 0, WHEN) for _ in range(1000))
    assert aggregator.due() is None


@pytest.mark.parametrize("window", [0.0, 60.0])
def test_without_room_lines_are_counted(window: float) -> None:
    """While the sink has no room, lines are counted, also with a window of 0."""
    aggregator = Aggregator(AggregationLimits(window=window))
    assert not aggregator.count(flow(), 0, WHEN, room=False)
    assert aggregator.due() == window
    assert [summary.count for summary in aggregator.take(window, 10)] == [1]


def test_summaries_that_are_nearly_due_come_together() -> None:
    """Summaries that are due within a tenth of the window come with those that are due now: fewer wake-ups."""
    aggregator = Aggregator(AggregationLimits(window=60, first=0))
    for number, now in enumerate([0, 5, 7]):
        aggregator.count(flow(src=f"192.0.2.{number}"), now, WHEN)
    assert len(aggregator.take(60, 10)) == 2
    assert aggregator.due() == 67


def test_summaries_are_taken_piece_by_piece() -> None:
    """No more are taken than asked for; the rest stays due, the oldest first."""
    aggregator = Aggregator(AggregationLimits(window=60, first=0))
    for number in range(5):
        aggregator.count(flow(src=f"192.0.2.{number}"), 0, WHEN)
    taken = [aggregator.take(60, 2) for _ in range(4)]
    assert [len(each) for each in taken] == [2, 2, 1, 0]
    assert [summary.key for each in taken for summary in each] == [flow(src=f"192.0.2.{number}") for number in range(5)]


def test_what_waits_can_be_carried_over() -> None:
    """Another aggregator continues the counts: the sum is exact, and the flow has no first lines again."""
    aggregator = Aggregator(AggregationLimits(window=60, first=1))
    count(aggregator, flow(), [0, 1, 2])
    aggregator.count(Malformed("denied: "), 2, WHEN)
    aggregator.count(Malformed("denied: "), 2, WHEN + 2)
    other = Aggregator(AggregationLimits(window=60, first=1))
    other.restore(aggregator.pending(), 100)
    assert other.waiting == aggregator.waiting == 3
    assert not other.count(flow(), 101, WHEN + 101)
    assert other.due() == 160
    assert other.take(160, 10)[0] == FlowSummary(flow(), 3, WHEN + 1, WHEN + 101)


def test_allowance_is_an_average() -> None:
    """So many in one second, at once or one by one; what was not used in a quiet minute is not saved up."""
    allowance = TokenBucket(5)
    assert [allowance.spend(60.0) for _ in range(6)] == [True] * 5 + [False]
    assert [allowance.spend(60.2), allowance.spend(60.2)] == [True, False]
    assert not TokenBucket(0).spend(60.0)


def asked(scans: ScanDetector, flows: list[Flow], seconds: float = 0.1) -> list[object]:
    """The notices about packets that come one after the other."""
    found = [scans.observe(each, number * seconds) for number, each in enumerate(flows)]
    return [notice for notice in found if notice is not None]


def test_many_ports_are_a_scan() -> None:
    """One source that tries so many ports is one notice a window, with the ports, however many more follow."""
    scans = ScanDetector(AggregationLimits(scan_ports=3))
    notices = asked(scans, [flow(port=str(port)) for port in (1, 2, 2, 1, 3, 4, 5, 6, 7, 8)])
    assert notices == [Scan("192.0.2.1", ("tcp/1", "tcp/2", "tcp/3"), 0.4)]


def test_many_hosts_are_a_sweep() -> None:
    """One source that tries so many hosts is one notice a window, with the hosts."""
    scans = ScanDetector(AggregationLimits(sweep_hosts=3))
    notices = asked(scans, [flow(dst=f"10.0.0.{number % 8}") for number in range(16)])
    assert notices == [Sweep("192.0.2.1", ("10.0.0.0", "10.0.0.1", "10.0.0.2"), 0.2)]


def test_slow_asking_is_no_scan() -> None:
    """Ports that a source tried before the window do not count."""
    assert (
        asked(
            ScanDetector(AggregationLimits(window=60, scan_ports=5)), [flow(port=str(port)) for port in range(50)], 20
        )
        == []
    )


def test_scans_can_be_switched_off() -> None:
    """With 0 ports and 0 hosts nothing is a scan or a sweep."""
    flows = [flow(port=str(number), dst=f"10.0.0.{number}") for number in range(50)]
    assert asked(ScanDetector(AggregationLimits(scan_ports=0, sweep_hosts=0)), flows) == []


def test_forged_sources_take_no_memory() -> None:
    """The latest sources are remembered, so many and no more, and of each no more than a notice needs."""
    scans = ScanDetector(AggregationLimits(flows=10, scan_ports=3, sweep_hosts=3, per_second=0))
    for number in range(1000):
        scans.observe(flow(src=f"10.0.{number >> 8}.{number & 255}"), 0.0)
        scans.observe(flow(src="192.0.2.1", port=str(number), dst=f"10.1.{number >> 8}.{number & 255}"), 0.0)
    assert len(scans._sources) == 10
    assert all(len(asked.ports or ()) <= 3 and len(asked.hosts or ()) <= 3 for asked in scans._sources.values())
