"""The forms of the answer: table, top, JSON, ECS. Golden, since people and programs read them."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.denials.event import Event, KernelLine, from_denial, from_unparsed
from fwguardd.ctl.denials.formats import ecs, event_object, last_piece, pieces
from fwguardd.ctl.denials.table import TextTable
from fwguardd.ctl.denials.top import BoundedCount, Top
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Meaning, Unparsed, Watched

if TYPE_CHECKING:
    from collections.abc import Iterator

READER = LineReader([Watched("denied", "iptables denied: ", Meaning.DENIED), Watched("output", "out ", Meaning.LOGGED)])
IP = "LEN=60 TOS=0x00 PREC=0x00 TTL=51 ID=4711 DF "
IP6 = "LEN=60 TC=0 HOPLIMIT=64 FLOWLBL=0 "
SYN = (
    f"iptables denied: IN=eth0 OUT= MAC=52:54:00:12:34:56:52:54:00:65:43:21:08:00 SRC=203.0.113.9 DST=10.0.0.1 {IP}"
    "PROTO=TCP SPT=51234 DPT=23 WINDOW=64240 RES=0x00 ACK SYN URGP=0 "
)
PING6 = (
    "iptables denied: IN=br0 OUT=eth1 PHYSIN=eth0 MAC= "
    "SRC=2001:0db8:0000:0000:0000:0000:0000:0002 DST=2001:0db8:0000:0000:0000:0000:0000:0001 "
    f"{IP6}PROTO=ICMPv6 TYPE=128 CODE=0 ID=1 SEQ=2 "
)
GRE = f"out IN= OUT=e\\x1b[2J SRC=10.0.0.1 DST=203.0.113.9 {IP}PROTO=47 UID=33 GID=34 "
ODD = "iptables denied: IN=\x1b[2J"
THEN = 1795390395_123456


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC here."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def event(text: str, realtime: int | None = THEN, uptime: int | None = None, times: int = 1) -> Event:
    """The event that a line would have become."""
    read = READER.read(text)
    if isinstance(read, Unparsed):
        return from_unparsed(read, KernelLine(text, realtime, uptime, "gate"))
    assert isinstance(read, Denial)
    return from_denial(read, KernelLine(text, realtime, uptime, "gate", times))


SCAN = Event(
    "denials.scan",
    "203.0.113.9 was denied at 15 ports",
    {"src": "203.0.113.9", "count": 15, "ports": ("tcp/1", "tcp/2"), "spoofable": "yes"},
    THEN,
)
PINGS = Event(
    "denied.summary",
    "9 more",
    {"meaning": "denied", "proto": "icmp", "icmp_type": 8, "count": 9, "rule": "/etc/fwguard.d/9.rules:4"},
    THEN,
)
SUMMARY = Event(
    "denied.summary",
    "120 more",
    {"meaning": "denied", "src": "203.0.113.9", "dpt": 23, "proto": "tcp", "count": 120},
    THEN,
)
EVENTS = [event(SYN), event(PING6, None, 5678901), event(GRE), event(ODD), SUMMARY, PINGS, SCAN]


TABLE = r"""
TIME                 MEANING      IN → OUT          PROTOCOL                SOURCE             DESTINATION  RULE
2026-11-22 23:33:15  denied       eth0 →            tcp SYN+ACK             203.0.113.9:51234  10.0.0.1:23  denied
[5.678901]           denied       br0(eth0) → eth1  ipv6-icmp echo-request  2001:db8::2        2001:db8::1  denied
2026-11-22 23:33:15  logged       → e\x1b[2J        47                      10.0.0.1           203.0.113.9  output
2026-11-22 23:33:15  a kernel line has the prefix 'iptables denied: ' and an unknown form: iptables denied: IN=\x1b[2J
2026-11-22 23:33:15  denied ×120                    tcp                     203.0.113.9        *:23
2026-11-22 23:33:15  denied ×9                      icmp echo-request                                       9.rules:4
2026-11-22 23:33:15  203.0.113.9 was denied at 15 ports
"""


def test_table() -> None:
    """Columns as wide as the first events need, an event a line, and nothing that could move a terminal's cursor."""
    assert list(TextTable(AnswerPainter(colours=False)).lines(EVENTS)) == TABLE.strip().split("\n")


def test_a_live_table_has_its_head_at_once() -> None:
    """The heading is printed before the first event comes; a table without events has no heading."""
    assert next(TextTable(AnswerPainter(colours=False)).live_lines(iter([]))).startswith("TIME ")
    assert list(TextTable(AnswerPainter(colours=False)).lines([])) == []


def test_only_our_own_escape_sequences_reach_a_terminal() -> None:
    """With colours on, no byte of an event is a control character, whatever a device, a prefix or a line is called."""
    hostile = dict.fromkeys(("in", "out", "src", "dst", "proto", "rule", "meaning"), "\x1b]0;x\x07\x9b\u202e")
    bad = [Event("denied", "m", hostile, THEN), Event("denials.unparsed", "\x1b[2J", {}, THEN)]
    top = Top()
    top.add(bad)
    for line in [*TextTable(AnswerPainter(colours=True)).lines(bad), *top.lines(10, AnswerPainter(colours=True))]:
        plain = line
        for colour in ("[1m", "[2m", "[32m", "[33m", "[1;31m", "[0m"):
            plain = plain.replace(f"\x1b{colour}", "")
        assert plain.isprintable()


def test_top_counts_packets() -> None:
    """A summary counts as many packets as it stands for; events that are not about packets are listed separately."""
    top = Top()
    top.add(EVENTS)
    assert top.lines(2, AnswerPainter(colours=False)) == [
        "132 packets",
        "",
        "PACKETS         SOURCE",
        "    121  91.7%  203.0.113.9",
        "      1   0.8%  2001:db8::2",
        "",
        "PACKETS         PORT",
        "    121  91.7%  tcp 23",
        "      9   6.8%  icmp echo-request",
        "",
        "PACKETS         RULE",
        "      9   6.8%  9.rules:4",
        "      2   1.5%  denied",
        "",
        "TARGETS         SOURCE OF SCANS AND SWEEPS",
        "     15         203.0.113.9",
        "",
        "denials.scan: 1, not counted above",
        "denials.unparsed: 1, not counted above",
    ]
    assert top.document(1) == {
        "packets": 132,
        "top": {
            "source": [{"key": "203.0.113.9", "count": 121}],
            "port": [{"key": "tcp 23", "count": 121}],
            "rule": [{"key": "9.rules:4", "count": 9}],
        },
        "scans": [{"key": "203.0.113.9", "targets": 15}],
        "count_errors": {"source": 0, "port": 0, "rule": 0},
        "notes": {"denials.scan": 1, "denials.unparsed": 1},
    }


def test_the_count_is_bounded_and_says_how_wrong_it_may_be() -> None:
    """However many keys there are, few are kept, and no number is off by more than the printed error."""
    bounded, exact = BoundedCount[str](100), Counter[str]()
    for number in range(20_000):
        key = f"talker{number % 3}" if number % 2 else f"forged{number}"
        bounded.add(key, 1)
        exact[key] += 1
        assert len(bounded._counts) <= 100
    highest = bounded.highest(3)
    assert {key for key, _ in highest} == {"talker0", "talker1", "talker2"}
    assert all(exact[key] - bounded.error <= count <= exact[key] for key, count in highest)
    assert 0 < bounded.error <= 20_000 * 2 // 100


def test_json_is_one_document_of_what_the_daemon_writes() -> None:
    """The pieces are one document; an event has the keys of --log json, and the time since boot if that is all."""
    document = json.loads("".join(pieces(EVENTS)) + last_piece({"lines": 5}))
    assert [shown["event"] for shown in document["denials"]] == [
        "denied",
        "denied",
        "logged",
        "denials.unparsed",
        "denied.summary",
        "denied.summary",
        "denials.scan",
    ]
    assert document["read"] == {"lines": 5}
    assert document["denials"][1] | {"line": ""} == {
        "timestamp": None, "event": "denied", "uptime": 5.678901, "host": "gate",
        "message": "denied ICMPv6 echo-request 2001:db8::2 → 2001:db8::1 in br0 port eth0 out eth1",
        "name": "denied", "prefix": "iptables denied: ", "meaning": "denied", "family": "ipv6", "in": "br0",
        "out": "eth1", "physin": "eth0", "src": "2001:db8::2", "dst": "2001:db8::1", "proto": "ipv6-icmp", "len": 60,
        "ttl": 64, "tos": 0, "icmp_type": 128, "icmp_code": 0, "icmp_name": "echo-request", "icmp_id": 1,
        "icmp_seq": 2, "line": "",
    }  # fmt: skip
    assert json.loads("".join(pieces([])) + last_piece(None)) == {"denials": [], "read": None}
    assert event_object(event(SYN))["timestamp"] == "2026-11-22T23:33:15.123456Z"


def test_ecs() -> None:
    """What the schema has a place for is there, under the schema's names and in its spelling; the rest is ours."""
    assert ecs(event(SYN, uptime=5678901, times=3)) == {
        "@timestamp": "2026-11-22T23:33:15.123456Z",
        "message": "denied TCP SYN+ACK 203.0.113.9:51234 → 10.0.0.1:23 in eth0",
        "ecs": {"version": "8.11.0"},
        "event": {
            "kind": "event", "category": ["network"], "type": ["connection", "denied"], "action": "denied",
            "module": "fwguardd", "dataset": "fwguardd.denied", "original": SYN,
        },
        "observer": {
            "type": "firewall", "product": "fwguardd", "version": ecs(SUMMARY)["observer"]["version"],
            "hostname": "gate", "ingress": {"interface": {"name": "eth0"}},
        },
        "network": {
            "type": "ipv4", "transport": "tcp", "iana_number": "6", "direction": "ingress", "bytes": 60, "packets": 3,
            "community_id": "1:yO4yEk90YLmeJYb8UvxBBdL4TrQ=",
        },
        "source": {"ip": "203.0.113.9", "port": 51234, "mac": "52-54-00-65-43-21"},
        "destination": {"ip": "10.0.0.1", "port": 23, "mac": "52-54-00-12-34-56"},
        "related": {"ip": ["203.0.113.9", "10.0.0.1"]},
        "rule": {"name": "denied"},
        "fwguard": {
            "prefix": "iptables denied: ", "ethertype": "0800", "ttl": 51, "tos": 0, "id": 4711, "ip_flags": ("DF",),
            "flags": ("ACK", "SYN"), "window": 64240, "uptime": 5.678901,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "kind", "types", "direction", "number"),
    [
        (event(PING6), "event", ["connection", "denied"], None, "58"),
        (event(GRE), "event", ["connection", "info"], "egress", "47"),
        (event(ODD), "event", ["info"], None, None),
        (SCAN, "alert", ["info"], None, None),
    ],
)
def test_ecs_of_the_others(
    shown: Event, kind: str, types: list[str], direction: str | None, number: str | None
) -> None:
    """What is logged and not denied is no denial there either; of what is forwarded no direction is claimed; a scan is
    an alert."""
    found = ecs(shown)
    assert (found["event"]["kind"], found["event"]["type"]) == (kind, types)
    assert found.get("network", {}).get("direction") == direction
    assert found.get("network", {}).get("iana_number") == number
