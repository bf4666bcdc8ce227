"""Policy tests: what a file of them means, which mistakes are reported where, and the packets that come of them."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.packets.assumed_host import interfaces_of, reached_by
from fwguardd.packets.case_values import MOST_PACKETS
from fwguardd.packets.host import Host, Interface, Route
from fwguardd.packets.keys import Accounts
from fwguardd.packets.model import ConnectionState, Packet, Verdict
from fwguardd.packets.policy_cases import Cases, cases_of
from fwguardd.packets.tests_file import KEYS, read_policy_tests
from fwguardd.ruleset.model import MOST_FINDINGS, Family, RuleFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.packets.surroundings import Interfaces
    from fwguardd.packets.tests_of_files import PolicyTests

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "packaging" / "policy.tests.schema.json").read_text())
SHIPPED = (ROOT / "etc" / "fwguard.d" / "policy.tests.yaml").read_text()
USERS = {"root": 0, "www-data": 33, "nobody": 65534}
HOST: Interfaces = {
    "lo": (ip_interface("127.0.0.1/8"), ip_interface("::1/128")),
    "eth0": (ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64"), ip_interface("fe80::1/64")),
    "eth1": (ip_interface("10.0.0.1/24"),),
}
OF_DESIGN = """\
defaults: {in: eth0, to: 192.0.2.1}
tests:
  - {expect: accept, proto: tcp, from: 198.51.100.7, dport: [22, 443]}
  - {expect: drop, proto: tcp, from: 203.0.113.9, dport: 5432, because: "the database is for the office only"}
  - {expect: reject, out: eth0, proto: udp, to: 203.0.113.53, dport: 53, uid: www-data}
  - {expect: accept, state: established, proto: tcp, from: 198.51.100.7, dport: 22}
"""


def read(text: str) -> PolicyTests:
    """The tests of a file with this text."""
    return read_policy_tests([RuleFile("t.tests.yaml", text.encode())], Accounts(USERS.get, USERS.get))


def cases(*lines: str) -> Cases:
    """The cases of tests, one a line, on a host with two interfaces."""
    found = read("tests:\n" + "".join(f"- {{{line}}}\n" for line in lines))
    assert found.findings == ()
    return cases_of(found.tests, HOST)


def shown(packet: Packet) -> str:
    """A packet in a few words."""
    interface = f"{packet.in_interface or '-'}>{packet.out_interface or '-'}"
    return f"{interface} {packet.protocol} {packet.source} {packet.destination} {packet.destination_port}"


def test_the_tests_of_the_design_are_read() -> None:
    """Defaults fill in what a test leaves out, except that an interface of the test takes the place of all of them."""
    found = read(OF_DESIGN)
    assert found.findings == ()
    packets = [case.packets for case in cases_of(found.tests, HOST).cases]
    assert [[shown(packet) for packet in of_test] for of_test in packets] == [
        ["eth0>- tcp 198.51.100.7 192.0.2.1 22", "eth0>- tcp 198.51.100.7 192.0.2.1 443"],
        ["eth0>- tcp 203.0.113.9 192.0.2.1 5432"],
        ["->eth0 udp 192.0.2.1 203.0.113.53 53"],
        ["eth0>- tcp 198.51.100.7 192.0.2.1 22"],
    ]
    assert [test.expect for test in found.tests] == [Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT, Verdict.ACCEPT]
    assert [test.origin.line for test in found.tests] == [3, 4, 5, 6]
    assert found.tests[1].because == "the database is for the office only"
    assert (packets[2][0].uid, packets[3][0].state, packets[3][0].flags) == (
        33, ConnectionState.ESTABLISHED, frozenset({"ACK"}),
    )  # fmt: skip


BAD = [
    ("expect: acept, in: eth0, proto: icmp", "expect: 'acept' is not a verdict; did you mean accept?"),
    ("expct: accept, in: eth0, proto: icmp", "unknown key 'expct' in a test; did you mean expect?"),
    ("in: eth0, proto: icmp", "expect is missing"),
    ("expect: drop, proto: icmp", "no interface is named"),
    ("expect: drop, in: eth0", "proto is missing"),
    ("expect: drop, in: eth0, proto: tpc, dport: 1", "proto: 'tpc' is not a protocol; did you mean tcp?"),
    ("expect: drop, in: eth0, proto: tcp", "dport is missing: a packet of tcp goes to a port"),
    ("expect: drop, in: eth0, proto: icmp, dport: 1", "sport and dport do not go with proto: icmp, which has no ports"),
    ("expect: drop, in: eth0, proto: tcp, dport: 65536", "dport: '65536' is not a port: expected a number from 0 to"),
    ("expect: drop, in: eth0, proto: tcp, dport: 9-4", "dport: the range '9-4' is empty"),
    ("expect: drop, in: eth0, proto: tcp, dport: []", "dport: the list is empty"),
    ("expect: drop, in: eth0, proto: tcp, dport: {a: 1}", "dport: expected one value"),
    ("expect: drop, in: eth0, proto: tcp, dport: ", "dport: a value is missing"),
    ("expect: drop, in: eth0, proto: icmp, from: 1.2.3", "from: '1.2.3' is not an IPv4 or IPv6 address"),
    ("expect: drop, in: eth0, proto: icmp, from: 10.0.0.1/8", "from: '10.0.0.1/8' is not a network: "),
    ("expect: drop, in: eth0, proto: icmp, from: 10.0.0.0/8", "from: 10.0.0.0/8 has 16,777,216 addresses; a test may"),
    ("expect: drop, in: eth0, proto: icmp, from: fe80::1%eth0", "from: 'fe80::1%eth0' names an interface: "),
    ("expect: drop, in: eth0, proto: icmp, from: 192.0.2.1, to: '2001:db8::1'", "from is of IPv4, to is of IPv6"),
    ("expect: drop, in: eth0, proto: icmpv6, from: 192.0.2.1", "from is of IPv4, proto is of IPv6"),
    ("expect: drop, in: eth0, proto: icmp, family: 6", "proto is of IPv4, family is of IPv6"),
    ("expect: drop, in: eth0, proto: icmp, uid: root", "uid and gid are those of a program of this host that sends"),
    ("expect: drop, out: eth0, proto: icmp, uid: nemo", "uid: this host has no user 'nemo'; write the number"),
    ("expect: drop, in: eth0, proto: icmp, icmp-type: echo-reqest", "did you mean echo-request?"),
    ("expect: drop, in: eth0, proto: gre, icmp-type: 8", "icmp-type goes with proto: icmp and icmpv6 only"),
    ("expect: drop, in: eth0, proto: udp, dport: 1, flags: SYN", "flags go with proto: tcp only"),
    ("expect: drop, in: eth0, proto: tcp, dport: 1, flags: SIN", "flags: 'SIN' is not a TCP flag; did you mean SYN?"),
    ("expect: drop, in: eth0, proto: icmp, state: NEWW", "state: 'NEWW' is not a state; did you mean new?"),
    ("expect: drop, in: eth0, proto: icmp, mark: -1", "mark: '-1' is not a mark: expected a number from 0 to"),
    ("expect: drop, in: a/b, proto: icmp", "in: 'a/b' is not the name of an interface"),
    ("expect: drop, in: eth0, in: eth1, proto: icmp", "in is given twice in a test"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_every_mistake_is_a_finding_at_its_line(line: str, message: str) -> None:
    """A mistake is an error with the line of the test; the tests around it are read."""
    good = "{expect: drop, in: eth0, proto: icmp}"
    found = read(f"tests:\n- {good}\n- {{{line}}}\n- {good}\n")
    (finding,) = found.findings
    assert (str(finding.place), finding.code, len(found.tests)) == ("t.tests.yaml:3", "bad-test", 2)
    assert message in finding.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a", 1), ("- a", 1), ("tests: a", 1), ("tests:\n- a", 2), ("test: []", 1), ("defaults: [a]", 1),
        ("tests: [\n", 2), ("a: b: c", 1), ("tests: *x", 1), ("a: 1\n---\nb: 2", 3), ("[" * 100_000, 1),
        ("tests:\n" + "- a\n" * 99, 2), ("a" * 1_000_000, 1), ("a" * 1_000_000 + ": 1", 1),
    ],
)  # fmt: skip
def test_what_is_not_a_tests_file_is_a_finding(text: str, line: int) -> None:
    """Whatever a file holds, reading it ends with findings, not many of them, the first at the line of the fault."""
    found = read(text)
    assert (found.tests, found.findings[0].place.line) == ((), line)
    assert len(found.findings) <= MOST_FINDINGS + 1
    assert all(len(finding.message) < 1000 for finding in found.findings)


def test_tests_with_too_many_values_are_not_all_read() -> None:
    """A small file can name all ports in each of many tests: it is a finding before it takes all memory."""
    found = read("defaults: {in: eth0, proto: tcp}\ntests:\n" + "- {expect: drop, dport: 1-65535}\n" * 1000)
    (finding,) = found.findings
    assert (finding.message, len(found.tests) < 10) == ("the tests have too many values", True)
    (finding,) = read("tests:\n- {expect: drop, in: lo, proto: icmp, from: [10.0.0.0/16, 10.1.0.0/16]}\n").findings
    assert "more than 100,000 values" in finding.message


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_reading_never_raises(data: bytes) -> None:
    """No bytes make the reader raise."""
    read_policy_tests([RuleFile("t.tests.yaml", data)], Accounts(USERS.get, USERS.get))


def test_lists_and_ranges_multiply() -> None:
    """Each combination of the values is a packet; a name of both families is one of each."""
    ((case,), *_) = (
        cases("expect: drop, in: [eth0, eth1], proto: [tcp, udp], from: 203.0.113.8/30, dport: 1-3").cases,
    )
    assert len(case.packets) == len(set(case.packets)) == 2 * 2 * 4 * 3
    (echo,) = cases("expect: accept, in: eth0, proto: [icmp, icmpv6], icmp-type: echo-request").cases
    assert [(packet.family, packet.icmp_type) for packet in echo.packets] == [(Family.IPV4, 8), (Family.IPV6, 128)]


def test_too_many_packets_are_an_error() -> None:
    """A test, or all tests together, beyond the limit are refused before any packet is made."""
    many = "expect: drop, in: eth0, family: 4, proto: tcp, dport: 1-60000"
    found = cases(many, f"{many}, from: 203.0.113.0/24", many)
    assert len(found.packets) == 60_000
    assert [(finding.code, finding.place.line) for finding in found.findings] == [("bad-test", 3), ("bad-test", 4)]
    assert f"{MOST_PACKETS:,}" in found.findings[0].message


def test_what_is_left_out_is_chosen_by_the_host() -> None:
    """From and to are another host on the interface and this host, in both families; "+" is each interface that has
    the family."""
    found = cases("expect: drop, in: +, proto: tcp, dport: 1", "expect: drop, out: eth1, proto: udp, dport: 2")
    assert [shown(packet) for packet in found.packets] == [
        "eth0>- tcp 192.0.2.2 192.0.2.1 1",
        "eth1>- tcp 10.0.0.2 10.0.0.1 1",
        "eth0>- tcp 2001:db8::2 2001:db8::1 1",
        "->eth1 udp 10.0.0.1 10.0.0.2 2",
        "->eth1 udp 2001:db8::1 2001:db8:ffff::fe 2",
    ]
    assert (found.findings, found.assumptions.addresses) == ((), {})


def test_a_plus_stands_for_interfaces_that_reach_other_hosts() -> None:
    """An interface that is down, in a bridge, or whose network another one reaches is none of those that "+" means."""
    addresses = {
        "eth0": "192.0.2.1/24",
        "wlan0": "192.0.2.9/24",
        "eth1": "10.0.0.1/24",
        "wg0": "10.9.0.1/32",
        "veth1": "",
    }
    interfaces = tuple(
        Interface(name, addresses=(address,) if address else (), up=name != "eth1")
        for name, address in addresses.items()
    )
    routes = (Route("192.0.2.0/24", dev="eth0", metric=100), Route("192.0.2.0/24", dev="wlan0", metric=600))
    host = Host(interfaces, (*routes, Route("0.0.0.0/0", dev="eth0")))
    tests = read("tests:\n- {expect: drop, in: +, proto: icmp}\n- {expect: drop, in: wg0, proto: icmp}\n").tests
    found = cases_of(tests, interfaces_of(host), reached_by(host))
    assert [packet.in_interface for packet in found.packets] == ["eth0", "wg0"]


def test_what_the_host_lacks_is_assumed_and_named() -> None:
    """An interface or an address that the host does not have is a warning, and stands among the assumptions."""
    found = cases("expect: drop, in: ehh0, proto: icmp", "expect: drop, in: eth0, to: 192.0.2.9, proto: icmp")
    assert [finding.code for finding in found.findings] == ["test-assumes"] * 2
    assert "no interface ehh0: the test assumes one; did you mean eth0?" in found.findings[0].message
    assert "192.0.2.9 is not an address of this host" in found.findings[1].message
    assert found.assumptions.addresses == {"ehh0": (), "eth0": (ip_interface("192.0.2.9/32"),)}
    away = cases(
        "expect: drop, out: eth9, to: 203.0.113.9, proto: icmp", "expect: drop, out: eth1, to: 203.0.113.8, proto: icmp"
    )
    assert away.assumptions.routes == {ip_address("203.0.113.9"): "eth9"}
    assert away.assumptions.default_routes == {Family.IPV4: "eth1"}


def with_examples(text: str) -> str:
    """The shipped file with its examples uncommented."""
    return re.sub(r"^  # (- \{|   because)", r"  \1", text, flags=re.MULTILINE)


def test_the_shipped_tests_are_read_with_their_examples() -> None:
    """The shipped file has no mistake, and neither has it with all examples uncommented."""
    plain, whole = read(SHIPPED), read(with_examples(SHIPPED))
    assert (plain.findings, whole.findings) == ((), ())
    assert len(whole.tests) == len(plain.tests) + 10
    assert cases_of(whole.tests, HOST).findings == ()
    assert cases_of(whole.tests, {"lo": ()}).findings == ()


TYPES: dict[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
SAYS_NOTHING = frozenset({"$schema", "$id", "title", "description", "definitions"})


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_of(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


KEYWORDS: dict[str, Callable[[Any, Any], bool]] = {
    "$ref": lambda value, wanted: fits(value, SCHEMA["definitions"][wanted.rpartition("/")[2]]),
    "anyOf": lambda value, wanted: any(fits(value, each) for each in wanted),
    "enum": lambda value, wanted: value in wanted,
    "type": lambda value, wanted: any(_is_of(value, name) for name in _listed(wanted)),
    "pattern": lambda value, wanted: re.search(wanted, value) is not None,
    "minimum": lambda value, wanted: value >= wanted,
    "maximum": lambda value, wanted: value <= wanted,
    "minItems": lambda value, wanted: len(value) >= wanted,
    "items": lambda value, wanted: all(fits(each, wanted) for each in value),
    "properties": lambda value, wanted: all(fits(value[name], wanted[name]) for name in wanted.keys() & (value or {})),
}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value fits the part of JSON Schema (draft 7) that the shipped schema is written in."""
    for keyword, wanted in schema.items():
        if keyword == "additionalProperties":
            good = not isinstance(value, dict) or value.keys() <= schema["properties"].keys()
        else:
            good = keyword in SAYS_NOTHING or KEYWORDS[keyword](value, wanted)
        if not good:
            return False
    return True


SEEN_BY_READER_ONLY = (
    *("range '9-4'", "has 16,777,216", "is missing", "no interface", "do not go", "go with", "goes with", "is of IPv"),
    *("this host has no", "uid and gid", "given twice", "TCP flag", "echo-request", "mark", "not a network"),
)
"""Mistakes that a schema cannot say, because they depend on other keys, on the host or on the meaning of a word."""


def test_the_schema_says_what_the_reader_says() -> None:
    """The schema has the keys of the reader, and fits every file that the reader takes; of the mistakes in words, ports
    and addresses it refuses those that do not depend on anything else."""
    assert set(SCHEMA["definitions"]["keys"]["properties"]) == set(KEYS)
    for text in (OF_DESIGN, SHIPPED, with_examples(SHIPPED), "", "tests:\n"):
        assert fits(yaml.safe_load(text), SCHEMA)
    refused = 0
    for line, message in BAD:
        if any(words in message for words in SEEN_BY_READER_ONLY):
            continue
        refused += 1
        assert not fits(yaml.safe_load(f"tests: [{{{line}}}]"), SCHEMA), line
    assert refused >= 10
