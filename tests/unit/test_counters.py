"""What rules have counted: across resets and reboots, on disk, and as text."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.counters_verb import lines_of, table, unused
from fwguardd.enforce.counting import Counting
from fwguardd.ruleset.counter_history import CountedRule, CounterHistory, PackedCounts, RuleCount, counted_rules
from fwguardd.ruleset.model import ZERO, Counters, Family, Origin
from fwguardd.ruleset.save_format import read_saved
from fwguardd.store.counter_codec import decode_counters, encode_counters
from fwguardd.store.durable import HostSystem
from fwguardd.store.model import DamagedError
from fwguardd.store.revisions import RevisionStore

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.control.documents import RuleCountDocument

DAY = 86400.0
RULE = CountedRule(Family.IPV4, "filter", "INPUT", "-j DROP", Origin("/etc/fwguard.d/90.rules", 7), Counters(3, 180))
SAVED = """*filter
:INPUT DROP [9:900]
[3:180] -A INPUT -p tcp -j LOG
[5:300] -A INPUT -p tcp -j LOG
[1:60] -A INPUT -s 10.0.0.1/32 -j ACCEPT
COMMIT
"""


def _at(packets: int) -> CountedRule:
    return CountedRule(RULE.family, RULE.table, RULE.chain, RULE.text, RULE.origin, Counters(packets, packets * 60))


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["look", "zero", "reboot"])), max_size=20))
def test_nothing_that_was_counted_is_lost_or_counted_twice(steps: list[tuple[int, str]]) -> None:
    """The total is what was counted, however often the kernel's counters are set to zero or the host reboots, if there
    was a look before that."""
    boot, live, total = 0, 0, 0
    history = CounterHistory("0")
    for now, (packets, event) in enumerate(steps):
        live, total = live + packets, total + packets
        history = history.in_boot(str(boot)).seen([_at(live)], float(now))
        if event != "look":
            live = 0
        if event == "zero":
            history = history.seen([_at(0)], float(now))
        if event == "reboot":
            boot += 1
    found = history.counts.unpacked()[RULE.key].total.packets if steps else 0
    assert found == total


def test_when_a_rule_counted_last_is_the_time_of_the_look() -> None:
    """A look that shows the same counters changes nothing; a rule that never counted has no time."""
    history = CounterHistory("a").seen([_at(0)], 10.0)
    assert history.counts.unpacked()[RULE.key] == RuleCount(ZERO, ZERO, 10.0, None)
    history = history.seen([_at(2)], 20.0).seen([_at(2)], 30.0)
    assert history.counts.unpacked()[RULE.key].last == 20.0


def test_equal_rules_count_each_for_itself() -> None:
    """Of equal rules in one chain the first is the first one; a policy counts, too; what is missing is left out."""
    live = {Family.IPV4: read_saved(Family.IPV4, SAVED).shown}
    wanted = {Family.IPV4: read_saved(Family.IPV4, SAVED.replace("10.0.0.1", "10.0.0.2")).shown}
    found = [(rule.text, rule.occurrence, rule.counters.packets) for rule in counted_rules(wanted, live)]
    assert found == [("-p tcp -j LOG", 0, 3), ("-p tcp -j LOG", 1, 5), ("policy DROP", 0, 9)]


def test_what_is_kept_is_what_is_read() -> None:
    """The file holds everything; one that is not understood is damaged, and no error of Python."""
    history = CounterHistory("boot").seen([_at(7)], 5.5)
    assert decode_counters(encode_counters(history)) == history
    for body in (b"", b"[]", b'{"boot": 1}', b'{"boot": "a", "rules": {"k": [1]}}', b'{"boot": "a", "rules": 3}'):
        with pytest.raises(DamagedError):
            decode_counters(body)


class UnreadableCounts(HostSystem):
    """The host, whose disk fails to read the counts for a while."""

    fails = True

    def open(self, path: Path, flags: int, mode: int) -> int:
        """As ever, or EIO."""
        if self.fails and path.name == "counters.json":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return super().open(path, flags, mode)


def test_counts_that_cannot_be_read_are_kept(tmp_path: Path) -> None:
    """They are read again at each count, nothing takes their place before, and then counting goes on from them."""
    live = {Family.IPV4: read_saved(Family.IPV4, SAVED).shown}
    (first, *_) = counted_rules(live, live)
    before = CounterHistory("another boot").seen([first], 5.0)
    RevisionStore(tmp_path / "state").keep_counters(before)
    disk = UnreadableCounts()
    store = RevisionStore(tmp_path / "state", system=disk)
    counting = Counting(store, lambda *_, **__: None, "this boot")
    counting.count(live, live)
    counting.keep()
    assert RevisionStore(tmp_path / "state").counters() == before
    disk.fails = False
    (_, count), *_ = counting.count(live, live)
    assert (count.total.packets, count.since) == (6, 5.0)
    counting.keep()
    kept = RevisionStore(tmp_path / "state").counters()
    assert isinstance(kept, CounterHistory)
    assert kept.counts.unpacked()[first.key] == count


def test_counts_are_not_held_by_the_store(tmp_path: Path) -> None:
    """They are as many as rules: whoever asks for them has the only copy in memory, read from the disk each time."""
    live = {Family.IPV4: read_saved(Family.IPV4, SAVED).shown}
    history = CounterHistory("this boot").seen(counted_rules(live, live), 5.0)
    store = RevisionStore(tmp_path / "state")
    store.keep_counters(history)
    first, second = store.counters(), store.counters()
    assert first == second == history
    assert len(set(map(id, (first, second, history)))) == 3


def test_equal_counts_are_read_as_one_object() -> None:
    """Of many rules most have never counted, and were first seen at the same time."""
    never, once = RuleCount(ZERO, ZERO, 5.0, None), RuleCount(ZERO, Counters(1, 60), 5.0, 6.0)
    counts = dict(zip(("a" * 24, "b" * 24, "c" * 24), (never, once, never), strict=True))
    read = decode_counters(encode_counters(CounterHistory("boot", PackedCounts.of(counts)))).counts
    assert read.unpacked() == counts
    assert read.counts[0] is read.counts[2]


def test_a_key_of_another_form_is_no_key() -> None:
    """The keys of all rules are one text, which is cut into pieces of one length."""
    with pytest.raises(ValueError, match="another length"):
        PackedCounts.of({"a": RuleCount(ZERO, ZERO, 5.0, None)})
    with pytest.raises(DamagedError):
        decode_counters(b'{"boot": "boot", "rules": {"a": [0, 0, 0, 0, 5.0, null]}}')


def _document(line: int, packets: int, last: float | None, family: str = "ipv4") -> RuleCountDocument:
    return {
        "family": family, "table": "filter", "chain": "INPUT", "rule": f"-p tcp --dport {line} -j ACCEPT",
        "file": "/etc/fwguard.d/20.rules", "line": line, "packets": packets, "bytes": packets * 60,
        "since": 0.0, "last": last,
    }  # fmt: skip


def test_a_line_of_both_families_is_one_line() -> None:
    """IPv4 and IPv6 are added up, and the later match counts."""
    (line,) = lines_of([_document(3, 20_000, DAY), _document(3, 5, 2 * DAY, "ipv6")])
    assert (line.packets, line.last, line.families) == (20_005, 2 * DAY, {"ipv4", "ipv6"})
    text = table([line], AnswerPainter(), unused_only=False)
    assert text[1].split() == ["20k", "1M", "1970-01-03", "00:00", "/etc/fwguard.d/20.rules:3"]


def test_unused_within_a_time_needs_that_time() -> None:
    """A line that is in force for a shorter time is not called unused."""
    lines = lines_of([_document(1, 0, None), _document(2, 9, 40 * DAY), _document(3, 9, 99 * DAY)])
    assert [line.place[-1] for line in unused(lines, 100 * DAY, None)] == ["1"]
    assert [line.place[-1] for line in unused(lines, 100 * DAY, 30 * DAY)] == ["1", "2"]
    assert unused(lines, 20 * DAY, 30 * DAY) == []
