"""Questions to denials: which ones, counted by what, over time, as CSV; and scans that are found in a file."""

from __future__ import annotations

import csv
import io
import json
import time
from argparse import ArgumentTypeError
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.denials import csv_form
from fwguardd.ctl.denials.event import Event
from fwguardd.ctl.denials.filters import PARSERS, Filter, Filters, excluded
from fwguardd.ctl.denials.groups import Groups, UniqueCount, key, keys
from fwguardd.ctl.denials.histogram import AUTOMATIC, Histogram, step
from fwguardd.ctl.denials.log_files import LogFileReader
from fwguardd.ctl.denials.times import StampReader
from fwguardd.ctl.denials.top import Top
from fwguardd.denials.aggregation import AggregationLimits
from fwguardd.denials.model import Meaning, Watched

if TYPE_CHECKING:
    from collections.abc import Iterator

DENIED = Watched("denied", "iptables denied: ", Meaning.DENIED)
WRITTEN = datetime(2026, 11, 23, 12, 0, 0)  # noqa: DTZ001 - local time is meant.
PLAIN = AnswerPainter(colours=False)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC here."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def line(
    src: str,
    dpt: int,
    *,
    clock: str = "21:14:25",
    dst: str = "10.0.0.1",
    proto: str = "TCP",
    out: str = "",
    tail: str = "",
) -> bytes:
    """A line of a log about a request."""
    end = f"SPT=40000 DPT={dpt} LEN=40 "
    if proto == "TCP":
        end = f"SPT=40000 DPT={dpt} WINDOW=64240 RES=0x00 SYN URGP=0 "
    incoming = "" if out else "eth0"
    return (
        f"Nov 22 {clock} gate kernel: iptables denied: IN={incoming} OUT={out} SRC={src} DST={dst} LEN=60 TOS=0x00 "
        f"PREC=0x00 TTL=54 ID=4711 DF PROTO={proto} {end}{tail}"
    ).encode()


LINES = [
    line("203.0.113.9", 22),
    line("203.0.113.9", 22, clock="22:00:00"),
    line("203.0.113.77", 80, proto="UDP"),
    line("198.51.100.7", 8000, dst="10.0.0.2"),
    line("10.0.0.1", 25, out="eth1", dst="192.0.2.5", tail="UID=33 GID=33 "),
]


def events(*options: tuple[str, str], lines: list[bytes] = LINES, flows_only: bool = False, **more: Any) -> list[Event]:
    """The events of the lines that pass filters; a key with ! excludes."""
    found = [Filter(name.strip("!"), PARSERS[name.strip("!")](text), negated="!" in name) for name, text in options]
    reader = LogFileReader((DENIED,), Filters(tuple(found)), StampReader(WRITTEN), flows_only=flows_only, **more)
    return list(reader.events(lines))


@pytest.mark.parametrize("flows_only", [False, True])
@pytest.mark.parametrize(
    ("options", "ports"),
    [
        ([("src", "203.0.113.0/24")], [22, 22, 80]),
        ([("src", "203.0.113.9,198.51.100.7")], [22, 22, 8000]),
        ([("!src", "203.0.113.9,10.0.0.0/8")], [80, 8000]),
        ([("dst", "10.0.0.2")], [8000]),
        ([("dport", "ssh,7000-8000")], [22, 22, 8000]),
        ([("!dport", "22"), ("in", "eth+")], [80, 8000]),
        ([("proto", "17")], [80]),
        ([("out", "eth1")], [25]),
        ([("in", "eth1")], []),
        ([("rule", "denied")], [22, 22, 80, 8000, 25]),
        ([("rule", "other")], []),
        ([("host", "GATE")], [22, 22, 80, 8000, 25]),
        ([("!host", "gate")], []),
    ],
)
def test_filters(options: list[tuple[str, str]], ports: list[int], flows_only: bool) -> None:  # noqa: FBT001
    """Values of one key are alternatives, and all keys must match, whether a line is read whole or only counted."""
    assert [event.fields["dpt"] for event in events(*options, flows_only=flows_only)] == ports


def test_a_rule_is_named_by_file_and_line_or_by_file() -> None:
    """As it stands in events of the daemon."""
    event = Event("denied", "m", {"rule": "/etc/fwguard.d/10-ssh.rules:4", "name": "denied"}, 1)
    for text in ("/etc/fwguard.d/10-ssh.rules:4", "10-ssh.rules:4", "10-ssh.rules", "x,/etc/fwguard.d/10-ssh.rules"):
        assert Filters((Filter("rule", PARSERS["rule"](text)),)).takes(event)
    assert not Filters((Filter("rule", PARSERS["rule"]("10-ssh.rules:5")),)).takes(event)


def test_what_is_excluded_has_a_key() -> None:
    """--not takes a key and values; anything else is refused with the keys."""
    assert excluded("dport=22,80-81") == ("dport", (range(22, 23), range(80, 82)))
    for text in ("22", "port=22", "=1", "src=x"):
        with pytest.raises(ArgumentTypeError, match=r"the keys are|neither an address"):
            excluded(text)


def groups(by: str, unique: str | None = None) -> Groups:
    """The groups of the lines."""
    found = Groups(keys(by), unique)
    found.add(events(flows_only=True))
    return found


def test_packets_are_counted_by_any_keys() -> None:
    """With their shares, and with the different values of another key."""
    assert groups("net,dport", "src").lines(10, PLAIN) == [
        "5 packets",
        "",
        "PACKETS         UNIQUE SRC  NET              DPORT",
        "      2  40.0%           1  203.0.113.0/24   tcp 22",
        "      1  20.0%           1  203.0.113.0/24   udp 80",
        "      1  20.0%           1  198.51.100.0/24  tcp 8000",
        "      1  20.0%           1  10.0.0.0/24      tcp 25",
    ]
    assert groups("out,uid").document(1)["groups"] == [{"out": "-", "uid": "-", "count": 4}]
    assert groups("hour").table(None) == (["hour", "packets"], [["2026-11-22 21:00", 4], ["2026-11-22 22:00", 1]])
    assert groups("net/16").table(1)[1] == [["203.0.0.0/16", 3]]
    assert Groups((), "src").document(1)["groups"] == []


def test_a_network_of_ipv6_has_bits_of_its_own() -> None:
    """Bits above 32 are for IPv6, and those of IPv4 stay as they are."""
    six = Event("denied", "m", {"src": "2001:db8:1:2::9"}, None)
    for text, network in (("net", "2001:db8:1:2::/64"), ("net/48", "2001:db8:1::/48"), ("net/16", "2001:db8:1:2::/64")):
        found = Groups(keys(text), None)
        found.add([six])
        assert found.table(1)[1] == [[network, 1]]


@pytest.mark.parametrize("text", ["", "src,", "port", "net/129", "net/x", "N"])
def test_what_is_no_key(text: str) -> None:
    """Anything else is refused with the list of keys."""
    with pytest.raises(ArgumentTypeError, match="is not a key; write one of src, net"):
        keys(text)
    with pytest.raises(ArgumentTypeError):
        key("src,dst")


def test_many_different_values_are_estimated() -> None:
    """Up to 1024 the number is exact; above it is off by a few percent, in a fixed amount of memory."""
    count = UniqueCount()
    for number in range(1024):
        count.add(str(number % 700))
    assert (count.number, count.is_exact) == (700, True)
    for number in range(50_000):
        count.add(str(number))
    assert not count.is_exact
    assert abs(count.number - 50_000) < 5_000


def test_a_histogram_finds_its_step() -> None:
    """Steps are joined until there are few; intervals without packets are shown between others."""
    found = Histogram(AUTOMATIC)
    found.add(events(flows_only=True))
    found.add([Event("denied", "m", {"count": 2}, None)])
    lines = found.lines(60, "#", PLAIN)
    assert lines[:3] == ["7 packets", "2 packets without a time of day", ""]
    assert lines[3:5] == ["2026-11-22 21:14  4  " + "#" * 42, "2026-11-22 21:15  0"]
    assert (len(lines), lines[-1]) == (50, "2026-11-22 22:00  1  " + "#" * 11)
    day = Histogram(step("1d"))
    day.add(events(flows_only=True))
    assert day.document() == {
        "packets": 5, "undated": 0, "seconds": 86400, "intervals": [{"time": "2026-11-22 00:00", "count": 5}],
    }  # fmt: skip
    hours = Histogram(AUTOMATIC)
    hours.add(Event("denied", "m", {}, number * 3_600_000_000) for number in range(12))
    assert hours.lines(60, "#", PLAIN)[2:4] == ["1970-01-01 00:00  1  " + "#" * 42, "1970-01-01 00:15  0"]
    years = Histogram(AUTOMATIC)
    years.add([Event("denied", "m", {}, number * 86_400_000_000) for number in range(20_000)])
    assert len(years.lines(80, "#", PLAIN)) < 60
    for text in ("", "0m", "1w", "h", "-1h"):
        with pytest.raises(ArgumentTypeError, match="is not an interval"):
            step(text)


def test_csv_is_read_back_and_is_no_formula() -> None:
    """A row for each event; a text that a spreadsheet would compute begins with a quote."""
    hostile = Event("denied", "m", {"in": "=1+1", "src": "::1", "flags": ("ACK", "SYN"), "prefix": 'a,"b"'}, 1_000_000)
    lost = Event("denials.lost", "3 messages were lost", {"count": 3}, None)
    head, first, second = list(csv.reader(io.StringIO("".join(csv_form.rows([hostile, lost])))))
    row = dict(zip(head, first, strict=True))
    assert (row["in"], row["flags"], row["prefix"], row["packets"]) == ("'=1+1", "ACK SYN", 'a,"b"', "1")
    assert row["time"] == "1970-01-01T00:00:01.000000Z"
    assert dict(zip(head, second, strict=True))["message"] == "3 messages were lost"


def test_scans_and_sweeps_are_found_in_a_file_as_live() -> None:
    """By the times of the lines: fifteen ports within a minute are a scan, and over an hour they are not."""
    fast = [line("203.0.113.9", port, clock=f"21:14:{port % 60:02}") for port in range(1, 21)]
    slow = [line("203.0.113.8", port, clock=f"21:{port:02}:00") for port in range(1, 41)]
    hosts = [line("203.0.113.7", 23, dst=f"10.0.0.{number}", clock="22:00:00") for number in range(1, 16)]
    for flows_only in (False, True):
        found = events(lines=fast + slow + hosts, flows_only=flows_only, scans=AggregationLimits())
        notices = [event for event in found if not event.is_of_packets]
        assert [(one.name, one.fields["src"], one.fields["count"]) for one in notices] == [
            ("denials.scan", "203.0.113.9", 15),
            ("denials.sweep", "203.0.113.7", 15),
        ]
        assert "15 ports within 14 s" in notices[0].message
        assert found.index(notices[0]) == 15
        top = Top()
        top.add(found)
        assert [one["targets"] for one in top.document(9)["scans"]] == [15, 15]
        assert json.dumps(top.document(9))
    off = AggregationLimits(scan_ports=0, sweep_hosts=0)
    assert all(event.is_of_packets for event in events(lines=fast + hosts, scans=off))
