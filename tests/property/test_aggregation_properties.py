"""What must hold of the aggregator for every row of lines: exact sums, bounded memory; and of the quick look at
lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.denials.aggregation import AggregationLimits, Aggregator, Flow, FlowSummary, Malformed, Others, flow_of
from fwguardd.denials.checkpoint import Checkpoint, decode, encode
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Meaning, Watched

CORPUS: Final = Path(__file__).parents[1] / "corpus" / "denials"
LINES: Final = sorted(
    {line.split("\t")[2] for line in (CORPUS / "kernel-lines.txt").read_text(encoding="ascii").splitlines()}
)
PREFIXES: Final = json.loads((CORPUS / "prefixes.json").read_text(encoding="ascii"))
READER: Final = LineReader(Watched(name, prefix, Meaning(meaning)) for name, prefix, meaning in PREFIXES)

texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
flows = st.builds(Flow, texts, texts, texts, texts, texts, texts, st.integers(0, 9).map(str))
few_flows = st.sampled_from([Flow("p", "", "", str(number), "", "tcp", "1") for number in range(12)] + [Malformed("p")])
limits = st.builds(
    AggregationLimits,
    window=st.sampled_from([0.0, 1.0, 60.0]),
    first=st.integers(0, 3),
    per_second=st.integers(0, 5),
    flows=st.integers(1, 6),
)
steps = st.lists(st.tuples(few_flows, st.floats(0, 20), st.booleans(), st.integers(0, 3)), max_size=80)


@given(limits, steps)
def test_every_line_is_an_event_or_counted_once(
    bounds: AggregationLimits, row: list[tuple[Flow, float, bool, int]]
) -> None:
    """Whatever comes, whenever: lines that are events, lines in summaries and lines that wait add up to all lines; no
    more flows are remembered than there is room for; and a summary waits for a window at most."""
    aggregator, now, shown, summarised = Aggregator(bounds), 0.0, 0, 0
    for number, (flow, later, room, take) in enumerate(row, 1):
        now += later
        shown += aggregator.count(flow, now, now, room=room)
        taken = aggregator.take(now, take)
        for summary in taken:
            assert summary.count > 0
            assert 0 <= summary.first <= summary.last <= now
        summarised += sum(summary.count for summary in taken)
        assert shown + summarised + aggregator.waiting == number
        assert len(aggregator._flows) <= bounds.flows
        assert (aggregator.due() is None) == (aggregator.waiting == 0)
    summarised += sum(summary.count for summary in aggregator.take_all())
    assert shown + summarised == len(row)
    assert aggregator.waiting == 0
    assert aggregator.due() is None


@given(limits, limits, steps)
def test_carrying_over_keeps_the_sum(
    before: AggregationLimits, after: AggregationLimits, row: list[tuple[Flow, float, bool, int]]
) -> None:
    """A aggregator with any other limits that takes over has as many lines waiting as the one before."""
    aggregator, other = Aggregator(before), Aggregator(after)
    for flow, when, room, _ in row:
        aggregator.count(flow, when, when, room=room)
    other.restore(aggregator.pending(), 0.0)
    assert other.waiting == aggregator.waiting == sum(summary.count for summary in other.take_all())


keys = flows | texts.map(Others) | texts.map(Malformed)
times = st.floats(0, 1e9)
summaries = st.builds(
    lambda key, count, times: FlowSummary(key, count, *sorted(times)), keys, st.integers(0), st.tuples(times, times)
)
checkpoints = st.builds(
    Checkpoint,
    texts,
    texts,
    st.none() | texts,
    st.lists(summaries, max_size=4).map(tuple),
    st.integers(0),
    st.none() | st.floats(0, 1e9),
)


@given(checkpoints)
def test_a_checkpoint_comes_back_as_it_was(checkpoint: Checkpoint) -> None:
    """What is written down is what is read back."""
    assert decode(encode(checkpoint)) == checkpoint


@given(checkpoints, st.data())
def test_a_damaged_checkpoint_is_none(checkpoint: Checkpoint, data: st.DataObject) -> None:
    """Whatever happened to the bytes: a checkpoint, or None, and never an exception."""
    good = encode(checkpoint)
    position = data.draw(st.integers(0, len(good)))
    bad = good[:position] + data.draw(st.binary(max_size=3)) + good[position + data.draw(st.integers(0, 3)) :]
    assert isinstance(decode(bad), (Checkpoint, type(None)))


def check_flow(text: str) -> bool:
    """Compare the flow of a text with that of the parsed denial; whether it has a flow."""
    seen = READER.read_flow(text)
    if seen is None:
        return False
    denial = READER.read(text)
    assert isinstance(denial, Denial), text
    assert flow_of(denial) == seen, text
    return True


def test_the_flow_of_a_text_is_that_of_its_denial() -> None:
    """Of every line of the corpus that the quick look knows, reading finds the same flow; it knows the plain ones."""
    assert sum(check_flow(line) for line in LINES) >= 80


@pytest.mark.parametrize("replacement", ["", " ", "0", "9", "f", "S", "\\", "\n", "é", "  ", " SRC=6.6.6.6 ", "ACK "])
def test_a_changed_text_has_the_right_flow_or_none(replacement: str) -> None:
    """What the quick look knows of a line with any byte replaced is what reading finds, and such a line is readable."""
    for line in LINES:
        if READER.read_flow(line) is not None:
            for position in range(len(line)):
                check_flow(line[:position] + replacement + line[position + 1 :])


numbers = st.sampled_from(["0", "1", "23", "255", "256", "1023", "1024", "65535", "65536", "99999", "007", "x"])


@given(numbers, numbers, numbers, st.sampled_from(["ACK ", "SYN ", "RST ", "ACK SYN ", "SYN ACK ", ""]))
def test_numbers_are_checked_as_in_reading(ttl: str, spt: str, dpt: str, flags: str) -> None:
    """Numbers and flags that reading would refuse are refused by the quick look too."""
    link = "IN=eth0 OUT= MAC= SRC=1.2.3.4 DST=1.2.3.5 LEN=40 TOS=0x00 PREC=0x00"
    head = f"iptables denied: {link} TTL={ttl} ID=1 "
    check_flow(f"{head}PROTO=TCP SPT={spt} DPT={dpt} WINDOW=1 RES=0x00 {flags}URGP=0 ")
    check_flow(f"{head}PROTO=UDP SPT={spt} DPT={dpt} LEN=8 ")
