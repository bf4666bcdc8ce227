"""Properties of set files: every address of the file is in the set, and no other; errors are at their lines."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network, summarize_address_range
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ruleset import set_files
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import FAMILIES, Family, Findings
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.set_directions import directions_for_files
from fwguardd.ruleset.set_files import SetFile, read_set_file
from fwguardd.ruleset.set_scripts import LiveSet, boot_script, differences, load_script, read_live

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

# Close to each other and to the ends, so that they overlap, touch and reach the first and the last address.
_ipv4 = st.sampled_from([0, 2**32 - 1, *range(2**31 - 20, 2**31 + 20)]).map(IPv4Address)
_ipv6 = st.sampled_from([0, 2**128 - 1, 0xFFFF << 32, *range(2**127 - 20, 2**127 + 20)]).map(IPv6Address)
_addresses = st.one_of(_ipv4, _ipv6)
_networks = st.builds(
    lambda address, bits: ip_network((address, address.max_prefixlen - bits), strict=False),
    _addresses,
    st.integers(0, 128).map(lambda bits: min(bits, 6)),
)
_ranges = st.one_of(st.tuples(_ipv4, _ipv4), st.tuples(_ipv6, _ipv6)).map(lambda pair: "-".join(map(str, sorted(pair))))
_noise = st.sampled_from(["", "# a comment", "   "])
_lines = st.lists(st.one_of(_addresses.map(str), _networks.map(str), _ranges, _noise), max_size=30)
_bad = st.sampled_from(
    ["example.org", "192.0.2.256", "192.0.2", "010.1.1.1", "2001:db8::/129", "192.0.2.9-192.0.2.1", "1-2"]
)


def _covered(texts: list[str]) -> set[tuple[int, int, int]]:
    """The networks that these words are together, in one form."""
    networks: list[IPv4Network | IPv6Network] = []
    for text in texts:
        if "-" in text:
            first, last = map(ip_address, text.split("-"))
            networks += summarize_address_range(first, last)
        else:
            networks.append(ip_network(text, strict=False))
    found: set[tuple[int, int, int]] = set()
    for version in (4, 6):
        begin, finish = -2, -2
        for start, end in sorted((int(net[0]), int(net[-1])) for net in networks if net.version == version):
            if start > finish + 1:
                found.add((version, begin, finish))
                begin, finish = start, end
            finish = max(finish, end)
        found.add((version, begin, finish))
    return found


@given(_lines, st.sampled_from(["\n", "\r\n"]))
def test_the_entries_are_the_addresses_of_the_file(lines: list[str], end: str) -> None:
    """Whatever overlaps or touches, the set has the addresses of the file, each entry once, none of them everything."""
    read = read_set_file("/x/a.set", end.join(lines).encode())
    assert isinstance(read, SetFile)
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    entries = [entry for family in FAMILIES for entry in read.entries[family]]
    assert _covered(entries) == _covered(wanted)
    assert len(set(entries)) == len(entries) == read.count
    assert not any(entry.endswith("/0") for entry in entries)


@given(_lines, _bad, st.data())
def test_a_line_with_an_error_is_reported(lines: list[str], bad: str, data: st.DataObject) -> None:
    """The finding is at its line, and the file makes no set."""
    place = data.draw(st.integers(0, len(lines)))
    read = read_set_file("/x/a.set", "\n".join([*lines[:place], bad, *lines[place:]]).encode())
    assert isinstance(read, Findings)
    assert [finding.origin.line for finding in read if finding.origin is not None] == [place + 1]


@given(_lines, st.sampled_from(["", "# fwguard: set hash:net timeout=1h\n"]))
def test_what_is_loaded_is_what_is_compared(lines: list[str], head: str) -> None:
    """A set that is saved as it was loaded does not differ; added entries with an end stay, with the rest of it."""
    file = read_set_file("/x/a.set", (head + "\n".join(lines)).encode())
    assert isinstance(file, SetFile)
    script = boot_script(file)
    for family, name in ((Family.IPV4, "a"), (Family.IPV6, "a-v6")):
        saved = "".join(f"{line}\n" for line in script.splitlines() if line.split()[1] == name)
        live = read_live(saved)
        assert live is not None
        found = differences(file, family, live)
        assert (found.missing, found.extra) == (0, 0)
        other = LiveSet(live.kind, live.timeout, [*live.entries, "192.0.2.77"], {"203.0.113.5": 9})
        assert differences(file, family, other).extra == 1
        loaded = load_script(file, {family: other})
        assert ("203.0.113.5 timeout 9" in loaded) == bool(head)
        assert f"swap fwguard-new{name[1:]} {name}\n" in loaded


BAD_COMPOUND = {
    "hash:ip,port": [
        "192.0.2.1",
        "192.0.2.0/24,tcp:80",
        "192.0.2.1,icmp:8",
        "192.0.2.1,tcp:65536",
        "x,80",
        "192.0.2.1,",
    ],
    "hash:net,port": ["192.0.2.0/24", "192.0.2.0/24,http", "192.0.2.0/24,tcp:90-80", "192.0.2.0/33,80"],
    "hash:net,iface": ["192.0.2.0/24", "192.0.2.0/24,", "192.0.2.0/24,eth0:1", "192.0.2.0/24,sixteen-letters-", "eth0"],
    "hash:mac": ["192.0.2.1", "02:00:5e:10:00", "00:00:00:00:00:00", "02-00-5e-10-00-01"],
    "bitmap:port": ["192.0.2.1", "tcp:80", "65536", "90-80", "-80", "http"],
    "hash:ip": ["192.0.2.0/24"],
}


@pytest.mark.parametrize("kind", BAD_COMPOUND)
def test_each_type_has_its_own_form_of_entries(kind: str) -> None:
    """What is no entry of the type is a finding at its line, with entries that are; a comment behind one is none."""
    for bad in BAD_COMPOUND[kind]:
        read = read_set_file("/x/a.set", f"# fwguard: set {kind}\n\n{bad} # bad\n".encode())
        assert isinstance(read, Findings), bad
        assert [(each.code, each.place.line) for each in read] == [("bad-set", 3)]
        (good, *_) = read[0].hint.partition(": ")[2].split(", ")
        assert isinstance(read_set_file("/x/a.set", f"# fwguard: set {kind}\n{good}\n".encode()), SetFile)


def test_a_rule_names_a_direction_for_each_part_of_an_entry() -> None:
    """One that names fewer matches no packet, and gets a warning at its line, also before the set is on this host."""
    file = read_set_file("/x/web.set", b"# fwguard: set hash:net,port\n192.0.2.0/24,80\n2001:db8::/32,443\n")
    assert isinstance(file, SetFile)
    rules = "-A INPUT -m set --match-set web src -j DROP\n-A INPUT -m set --match-set web src,dst -j DROP\n"
    candidate = compose([read_rules("a.rules", rules.encode())], sets={"web"}).candidate
    assert {str(each.origin) for each in directions_for_files(candidate, [file])} == {"a.rules:1"}


def test_a_set_that_cannot_be_is_one_short_finding() -> None:
    """A line of megabytes is not quoted whole, ranges do not make more entries than there is room for, and no set has
    the name that all sets are loaded under."""
    wide = "".join(f"2001:db8:{part:x}::1-2001:db8:{part:x}:ffff:ffff:ffff:ffff:fffe\n" for part in range(9000))
    with patch.object(set_files, "MOST_ENTRIES", 1000):
        too_many = read_set_file("/x/a.set", wide.encode())
    for read in (too_many, read_set_file("/x/a.set", b"1" * 1_000_000), read_set_file("/x/fwguard-new.set", b"")):
        assert isinstance(read, Findings)
        (finding,) = read
        assert len(str(finding)) < 500
