"""Reading old lines, whatever they hold: never an exception, never a byte that a terminal would act on."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.denials.event import Event, from_entry
from fwguardd.ctl.denials.filters import Filters
from fwguardd.ctl.denials.formats import ecs, last_piece, pieces
from fwguardd.ctl.denials.log_files import LogFileReader
from fwguardd.ctl.denials.table import TextTable
from fwguardd.ctl.denials.times import StampReader, time_spec
from fwguardd.ctl.denials.top import Top
from fwguardd.denials.grammar import TCP_FLAGS
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Meaning, Watched
from fwguardd.event_fields import FieldType
from fwguardd.events import DENIED
from fwguardd.sinks.journal import encode_entry
from tests.unit.test_journal import decode

NUMBERS = sorted(field.name for field in DENIED.fields if field.type is FieldType.NUMBER)
WATCHED = (Watched("denied", "iptables denied: ", Meaning.DENIED), Watched("odd", "\\\u00e9", Meaning.LOGGED))
WRITTEN = datetime(2026, 11, 23, 12, 0, 0)  # noqa: DTZ001 - local time is meant.
CORPUS = Path(__file__).parents[1] / "corpus" / "denials" / "kernel-lines.txt"
TEXTS = [line.split("\t")[2].encode("latin-1") for line in CORPUS.read_text(encoding="ascii").splitlines()]
HEADS = [
    b"", b"Nov 22 23:33:15 gate kernel: ", b"Feb 30 25:61:61 gate kernel: ", b"4,1,99,-;",
    b"[   12.345678] ", b"<4>[    1.000000] ",
    b"2026-11-22T23:33:15.123456+00:00 gate kernel: [   12.345678] ", b"0000-00-00T99:99:99 kernel: ",
    b"99999999999.999999 gate kernel: ", b"[Sun Nov 22 23:33:15 2026] ", b"Sun 2026-11-22 23:33:15 UTC gate kernel: ",
    b"[9999999999.999999] kernel: message repeated 999999999 times: [ ",
]  # fmt: skip
VALUES: list[object] = [
    None,
    "0",
    "1",
    1,
    {},
    [],
    [[]],
    ["0", "kernel"],
    "kernel",
    "17",
    "9" * 17,
    "iptables denied: IN=eth0",
    TEXTS[0].decode(),
]
OURS = re.compile(r"\x1b\[(?:1|2|32|33|1;31|0)m")


@st.composite
def hostile_lines(draw: st.DrawFn) -> bytes:
    """A line that looks like one of the kernel's, with a piece of it replaced."""
    line = draw(st.sampled_from(HEADS)) + draw(st.sampled_from(TEXTS))
    start = draw(st.integers(0, len(line)))
    return line[:start] + draw(st.binary(max_size=12)).replace(b"\n", b"") + line[start + draw(st.integers(0, 12)) :]


@st.composite
def hostile_entries(draw: st.DrawFn) -> bytes:
    """An entry of the journal, of the kernel's or not, its message and anything else in any form."""
    values = st.sampled_from(VALUES) | st.text(max_size=8) | st.lists(st.integers(-1, 256), max_size=8)
    keys = st.sampled_from(
        ["MESSAGE", "_TRANSPORT", "SYSLOG_FACILITY", "__REALTIME_TIMESTAMP", "_HOSTNAME", "FWGUARD_EVENT"]
    )
    return json.dumps(draw(st.dictionaries(keys, values))).encode()


@given(st.lists(hostile_lines() | hostile_entries() | st.binary(max_size=60), max_size=8), st.booleans())
def test_every_line_is_counted_and_shown_safely(lines: list[bytes], flows_only: bool) -> None:  # noqa: FBT001
    """The account adds up, and each form of the answer is printable, or JSON; nothing raises."""
    old = LogFileReader(WATCHED, Filters(), StampReader(WRITTEN), flows_only=flows_only)
    events = list(old.events(lines))
    counts = old.counts
    assert counts.lines == len(lines) == counts.ours + counts.unparsed + counts.foreign + counts.others
    assert len(events) == counts.ours + counts.unparsed
    top = Top()
    top.add(events)
    for line in [*TextTable(AnswerPainter(colours=True)).lines(events), *top.lines(9, AnswerPainter(colours=True))]:
        assert OURS.sub("", line).isprintable()
    assert len(json.loads("".join(pieces(events)) + last_piece(old.account()))["denials"]) == len(events)
    for event in events:
        assert json.dumps(ecs(event)).isascii()


REPORTS = [
    b"Nov 22 23:33:16 gate last message repeated 3 times",
    b"Nov 22 23:33:16 gate kernel: net_ratelimit: 42 callbacks suppressed",
    b"Nov 22 23:33:16 gate systemd-journald[1]: Missed 42 kernel messages",
    b"Nov 22 23:33:16 gate postfix/cleanup[1]: message-id=<1>; the messages are sent",
]


@given(
    st.lists(hostile_lines() | hostile_entries() | st.sampled_from(REPORTS) | st.just(b"") | st.just(b"x" * 4000)),
    st.integers(0, 30_000),
)
def test_blocks_of_lines_are_read_as_the_lines_are(lines: list[bytes], cut: int) -> None:
    """A block in which few lines are about packets is searched and not split, to the same events and counts."""
    text = b"".join(line + b"\n" for line in lines)
    end = text.find(b"\n", cut) + 1
    blocks = [block for block in (text[:end], text[end:]) if block]
    one, other = (LogFileReader(WATCHED[:1], Filters(), StampReader(WRITTEN)) for _ in range(2))
    assert list(one.events_of_blocks(blocks)) == list(other.events(lines))
    assert one.counts == other.counts


@given(st.text(max_size=30) | st.from_regex(r"[-+@]?[0-9]{1,12}[a-z:. ]{0,5}( ago)?", fullmatch=True))
def test_a_moment_is_a_number_or_a_sentence(text: str) -> None:
    """Whatever stands behind --since is a time, or wrong usage."""
    try:
        time_spec(text, WRITTEN)
    except ValueError as error:
        refused = str(error)
    else:
        refused = "write it as it is"
    assert "write it as" in refused


@given(
    st.dictionaries(st.sampled_from(NUMBERS), st.integers(0, 2**63)),
    st.dictionaries(st.sampled_from(["src", "dst", "in", "line", "name", "rule"]), st.text(min_size=1)),
    st.lists(st.sampled_from(TCP_FLAGS), unique=True).map(lambda flags: tuple(sorted(flags, key=TCP_FLAGS.index))),
)
def test_an_event_is_read_back_from_the_journal_as_it_was(
    numbers: dict[str, int], texts: dict[str, str], flags: tuple[str, ...]
) -> None:
    """Numbers, texts and lists go through the journal's protocol, and journalctl's JSON, and are the same again."""
    fields = {**numbers, **texts, **({"flags": flags} if flags else {})}
    entry: dict[str, str | list[str]] = {}
    encoded = {
        key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for key, value in fields.items()
    }
    for key, value in decode(encode_entry({"event": "denied", "message": "m", **encoded})):
        text = value.decode()
        before = entry.get(key)
        entry[key] = text if before is None else [*([before] if isinstance(before, str) else before), text]
    entry["__REALTIME_TIMESTAMP"] = "17"
    assert from_entry(json.loads(json.dumps(entry))) == Event("denied", "m", encoded, 17)


def test_the_corpus_is_read_alike_from_any_log() -> None:
    """A line of the real kernel's is the same packet, from whatever log it comes."""
    reader = LineReader(WATCHED)
    for text in TEXTS:
        read = reader.read(text.decode("latin-1"))
        heads = [head for head in HEADS if head and b"repeated" not in head and b"Feb 30" not in head]
        old = LogFileReader(WATCHED, Filters(), StampReader(WRITTEN))
        found = list(old.events(head + text for head in heads))
        assert len(found) == (0 if read is None else len(heads))
        assert all(event.fields == found[0].fields for event in found)
