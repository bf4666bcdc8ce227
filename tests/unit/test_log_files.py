"""Old kernel log lines: every form that a log leaves behind, and nothing that the kernel did not write."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl.denials.counts import Counts
from fwguardd.ctl.denials.event import KernelLine
from fwguardd.ctl.denials.filters import Filter, Filters, networks, ports
from fwguardd.ctl.denials.kernel_lines import read_line
from fwguardd.ctl.denials.log_files import LogFileReader
from fwguardd.ctl.denials.times import StampReader, to_usec
from fwguardd.ctl.denials.top import Top
from fwguardd.denials.model import Meaning, Watched

if TYPE_CHECKING:
    from fwguardd.ctl.denials.event import Event

CORPUS = Path(__file__).parents[1] / "corpus" / "denials" / "kernel-lines.txt"
DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
OUTPUT = Watched("output", "[Output Log] ", Meaning.LOGGED)
IP = "LEN=60 TOS=0x00 PREC=0x00 TTL=51 ID=4711 DF "
PACKET = f"IN=eth0 OUT= MAC= SRC=203.0.113.9 DST=10.0.0.1 {IP}PROTO=TCP SPT=51234 DPT=23 WINDOW=1 RES=0x00 SYN URGP=0 "
LINE = f"iptables denied: {PACKET}"
WRITTEN = datetime(2026, 11, 23, 12, 0, 0)  # noqa: DTZ001 - local time is meant.
THEN = to_usec(datetime(2026, 11, 22, 23, 33, 15))  # noqa: DTZ001 - as above.
UTC = 1795390395_000000


def read(text: str) -> KernelLine | None:
    """The kernel line in one line of a file."""
    found = read_line(text.encode("latin-1"), StampReader(WRITTEN))
    if isinstance(found, KernelLine):
        return found
    return None


def run(*lines: str, watched: tuple[Watched, ...] = (DENIED, OUTPUT), wanted: Filters | None = None) -> list[Event]:
    """The events that lines would have become."""
    return account(*lines, watched=watched, wanted=wanted)[0]


def account(
    *lines: str, watched: tuple[Watched, ...] = (DENIED, OUTPUT), wanted: Filters | None = None
) -> tuple[list[Event], Counts]:
    """The events that lines would have become, and the account of the lines."""
    old = LogFileReader(watched, wanted or Filters(), StampReader(WRITTEN))
    return list(old.events(line.encode("latin-1") for line in lines)), old.counts


@pytest.mark.parametrize(
    ("head", "realtime", "uptime", "host"),
    [
        ("4,1234,5678901,-;", None, 5678901, None),
        ("Nov 22 23:33:15 gate kernel: ", THEN, None, "gate"),
        ("Nov 22 23:33:15 kernel: ", THEN, None, None),
        ("Nov 22 23:33:15 gate kernel: [    5.678901] ", THEN, 5678901, "gate"),
        ("Nov 22 23:33:15.123456 gate kernel: ", THEN + 123456, None, "gate"),
        ("2026-11-22T23:33:15+0000 gate kernel: ", UTC, None, "gate"),
        ("2026-11-23T00:33:15.500000+01:00 gate kernel: [12345.678901] ", UTC + 500000, 12345678901, "gate"),
        ("2026-11-22T23:33:15Z 2001:db8::5 kernel: ", UTC, None, "2001:db8::5"),
        ("2026-11-22 23:33:15 gate kernel: ", THEN, None, "gate"),
        ("Sun 2026-11-22 23:33:15 UTC gate kernel: ", UTC, None, "gate"),
        ("Sun 2026-11-22 23:33:15 CET gate kernel: ", THEN, None, "gate"),
        ("1795390395.123456 gate kernel: ", UTC + 123456, None, "gate"),
        ("[12345.678901] gate kernel: ", None, 12345678901, "gate"),
        ("[    5.678901 <    0.000123 >] gate kernel: ", None, 5678901, "gate"),
        ("[    5.678901] ", None, 5678901, None),
        ("<4>[    5.678901] ", None, 5678901, None),
        ("kern  :warn  : [    5.678901] ", None, 5678901, None),
        ("[Sun Nov 22 23:33:15 2026] ", THEN, None, None),
        ("2026-11-22T23:33:15,123456+00:00 ", UTC + 123456, None, None),
    ],
)
def test_every_form_gives_text_time_and_host(
    head: str, realtime: int | None, uptime: int | None, host: str | None
) -> None:
    """Records, syslog text old and new, each short form of journalctl, and dmesg: the same text, and their times."""
    assert read(head + LINE) == KernelLine(LINE, realtime, uptime, host)


@pytest.mark.parametrize(
    "line",
    [
        f"12,1234,5678901,-;{LINE}",
        f"<12>[    5.678901] {LINE}",
        f"user  :warn  : [    5.678901] {LINE}",
        f"Nov 22 23:33:15 gate sshd[12]: kernel: {LINE}",
        f"Nov 22 23:33:15 sshd[12]: kernel: {LINE}",
        f"Nov 22 23:33:15 gate kernel[12]: {LINE}",
        f"Nov 22 23:33:15 gate logger: {LINE}",
        f"Nov 22 23:33:15 {LINE}",
        f"2026-11-22T23:33:15Z {LINE}",
        f"    {LINE}",
        f"gate kernel: {LINE}",
        json.dumps({"_TRANSPORT": "syslog", "__REALTIME_TIMESTAMP": "1", "MESSAGE": LINE}),
        json.dumps({"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "1", "__REALTIME_TIMESTAMP": "1", "MESSAGE": LINE}),
        json.dumps(
            {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": ["1", "0"], "__REALTIME_TIMESTAMP": "1", "MESSAGE": LINE}
        ),
        json.dumps({"__REALTIME_TIMESTAMP": "1", "MESSAGE": LINE}),
        f'{{"_TRANSPORT":"kernel","MESSAGE":"{LINE}"',
    ],
)
def test_what_is_not_the_kernels_is_passed_over_and_counted(line: str) -> None:
    """Another facility, another program, another transport, or no sign of whose it is: no event, but a number."""
    events, counts = account(line)
    assert events == []
    assert counts == Counts(lines=1, foreign=1)


def test_entries_of_the_journal() -> None:
    """An entry of the kernel's, as journalctl -o json prints it; the journal has decoded the kernel's spelling."""
    entry = {"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "__REALTIME_TIMESTAMP": "17", "_HOSTNAME": "gate"}
    name = "e\\th\x1b\u00e9"
    hostile = LINE.replace("eth0", name)
    spelled = LINE.replace("eth0", "e\\x5cth\\x1b\\xc3\\xa9")
    as_bytes = list(hostile.encode())
    for message in (hostile, as_bytes):
        found = read(json.dumps({**entry, "MESSAGE": message}, separators=(",", ":")))
        assert found == KernelLine(spelled, 17, None, "gate")
    [event] = run(json.dumps({**entry, "MESSAGE": as_bytes}, separators=(",", ":")))
    assert event.fields["in"] == "e\\x5cth\\x1b\\xc3\\xa9"


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"a":' * 100_000, '{"MESSAGE":[300]}', "{}", "", "[]", '{"MESSAGE":[[]]}']
)
def test_nothing_raises(line: str) -> None:
    """A line that is not a log line counts as one of the others, also when it holds a part of a prefix."""
    assert read(line) is None
    assert account(line, watched=(Watched("odd", "\\", Meaning.DENIED),))[1].others == 1


def test_syslog_text_is_brought_into_the_kernels_spelling() -> None:
    """Syslog daemons write a device's bytes as they are, or as the kernel spells them: both become the latter."""
    raw = LINE.replace("eth0", "a\x1b[2J\\b\xff")
    spelled = LINE.replace("eth0", "a\\x1b[2J\\x5cb\\xff")
    for line in (raw, spelled):
        [event] = run(f"Nov 22 23:33:15 gate kernel: {line}")
        assert event.fields["in"] == "a\\x1b[2J\\x5cb\\xff"


def test_the_account_adds_up() -> None:
    """Every line is counted once: parsed, of unknown form, not the kernel's, or without a watched prefix."""
    head = "Nov 22 23:33:15 gate kernel: "
    events, counts = account(
        head + LINE,
        head + LINE.replace("iptables denied: ", "[Output Log] "),
        head + "iptables denied: IN=eth0 and no more",
        head + f"usb 1-1: {LINE}",
        head + "usb 1-1: new device",
        "",
    )
    assert [event.name for event in events] == ["denied", "logged", "denials.unparsed"]
    assert counts == Counts(lines=6, ours=2, unparsed=1, other_prefixes={"usb 1-1: iptables denied: ": 1})


def test_an_event_of_fwguardd_about_a_line_is_not_foreign() -> None:
    """A whole journal holds the kernel's line and fwguardd's event of it: one packet, and not a forgery."""
    kernel = {"_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": "17", "MESSAGE": LINE}
    own = {"_TRANSPORT": "journal", "__REALTIME_TIMESTAMP": "18", "FWGUARD_EVENT": "denied", "FWGUARD_LINE": LINE}
    events, counts = account(json.dumps(kernel), json.dumps(own))
    assert (len(events), counts) == (1, Counts(lines=2, ours=1))


def test_a_carriage_return_at_the_end_is_no_part_of_the_line() -> None:
    """A log that came through another system, or a serial console, is read as if it had not."""
    assert read(f"Nov 22 23:33:15 gate kernel: {LINE}\r") == read(f"Nov 22 23:33:15 gate kernel: {LINE}")


def test_folded_repeats_are_counted_as_packets() -> None:
    """Where rsyslog folded equal lines into one, that one stands for as many packets as it says."""
    [event] = run(f"Nov 22 23:33:15 gate kernel: message repeated 3 times: [ {LINE}]")
    assert (event.weight, event.fields["count"], event.fields["src"]) == (3, 3, "203.0.113.9")


def test_an_odd_prefix_is_found_in_every_form() -> None:
    """A prefix with a backslash, a quote and a letter beyond ASCII is found however the file spells it."""
    odd = Watched("odd", 'r\\"\u00e9" ', Meaning.LOGGED)
    text = odd.prefix + PACKET
    raw = text.encode().decode("latin-1")
    assert len(run(f"Nov 22 23:33:15 gate kernel: {raw}", watched=(odd,))) == 1
    assert len(run("4,1,1,-;" + 'r\\x5c"\\xc3\\xa9" ' + PACKET, watched=(odd,))) == 1
    entry = (
        json.dumps({"_TRANSPORT": "kernel", "__REALTIME_TIMESTAMP": "17", "MESSAGE": text}, ensure_ascii=False)
        .encode()
        .decode("latin-1")
    )
    assert len(run(entry, watched=(odd,))) == 1


@pytest.mark.parametrize(
    ("stamp", "written", "year"),
    [
        ("Dec 31 23:59:59", datetime(2027, 1, 1, 0, 5), 2026),  # noqa: DTZ001
        ("Jan  1 00:00:01", datetime(2027, 1, 1, 0, 5), 2027),  # noqa: DTZ001
        ("Jan  2 00:00:00", datetime(2027, 1, 1, 0, 5), 2027),  # noqa: DTZ001
        ("Jan  3 00:00:00", datetime(2027, 1, 1, 0, 5), 2026),  # noqa: DTZ001
        ("Feb 29 12:00:00", datetime(2027, 2, 1), 2024),  # noqa: DTZ001
        ("Nov 22 00:00:00", datetime(2026, 11, 22), 2026),  # noqa: DTZ001
    ],
)
def test_a_year_that_is_not_said(stamp: str, written: datetime, year: int) -> None:
    """It is the latest in which the line is not later than the file's last change, and it is reported."""
    stamps = StampReader(written)
    usec = stamps.read(stamp, None)
    assert usec is not None
    assert datetime.fromtimestamp(usec / 1e6).year == year  # noqa: DTZ006 - stamps are local times.
    assert stamps.years == {year}


@pytest.mark.parametrize("stamp", ["Feb 30 12:00:00", "Abc 22 12:00:00", "Nov 22 25:00:00", "2026-13-01 00:00:00"])
def test_a_stamp_that_is_no_time(stamp: str) -> None:
    """There is no such time, and the line counts nevertheless."""
    [event] = run(f"{stamp} gate kernel: {LINE}")
    assert event.realtime is None


def test_filters() -> None:
    """By source network, by port, and by time; a line without a time of day is left out by a time, and counted."""
    head = "Nov 22 23:33:15 gate kernel: "
    other = LINE.replace("203.0.113.9", "192.0.2.1").replace("DPT=23", "DPT=22")
    lines = (head + LINE, head + other, "4,1,1,-;" + LINE)
    here = Filters((Filter("src", networks("203.0.113.0/24,2001:db8::/32")),))
    assert [event.fields["src"] for event in run(*lines, wanted=here)] == ["203.0.113.9"] * 2
    assert [event.fields["dpt"] for event in run(*lines, wanted=Filters((Filter("dport", ports("20-22")),)))] == [22]
    events, counts = account(*lines, wanted=Filters(since=THEN, until=THEN))
    assert (len(events), counts.undated) == (2, 1)
    assert run(*lines, wanted=Filters(since=THEN + 1)) == []
    assert run(*lines, wanted=Filters(until=THEN - 1)) == []
    assert run(head + "iptables denied: IN=odd", wanted=here) == []


def test_counting_needs_no_more_than_flows() -> None:
    """The top of lines of which only the flow was read is the top of lines that were parsed, and so is the account."""
    lines = [line.split("\t")[2] for line in CORPUS.read_text(encoding="ascii").splitlines()]
    data = [f"Nov 22 23:33:15 gate kernel: {line}".encode("latin-1") for line in [*lines, "iptables denied: IN=odd"]]
    data.append(data[0].replace(b"iptables", b"message repeated 3 times: [ iptables") + b"]")
    for wanted in (
        Filters(),
        Filters((Filter("dport", ports("20-59")),)),
        Filters((Filter("src", networks("10.9.0.0/16")),), since=THEN),
    ):
        found = []
        for flows_only in (True, False):
            old = LogFileReader((DENIED, OUTPUT), wanted, StampReader(WRITTEN), flows_only=flows_only)
            top = Top()
            top.add(old.events(data))
            found.append((top.document(1000), old.counts))
        assert found[0] == found[1]
        assert found[0][0]["packets"] > 50
