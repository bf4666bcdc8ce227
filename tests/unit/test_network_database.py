"""Names of networks, from databases in the form of MaxMind that are made here."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ctl.denials.event import Event
from fwguardd.ctl.denials.groups import Groups, keys
from fwguardd.ctl.denials.network_database import Database, DatabaseError, NetworkNames

NETWORKS: dict[str, dict[str, Any]] = {
    "203.0.113.0/24": {"country": {"iso_code": "DE"}, "x": [1, True, "y" * 300]},
    "198.51.100.128/25": {"autonomous_system_number": 64500, "autonomous_system_organization": "Example, Ltd."},
    "2001:db8::/32": {"country": "NL", "asn": "AS64501", "name": "Other"},
}


def encoded(value: Any) -> bytes:
    """A value as it stands in a database."""
    if isinstance(value, bool):
        return bytes([value, 7])
    if isinstance(value, int):
        data = value.to_bytes(4, "big")
        return bytes([6 << 5 | 4]) + data
    if isinstance(value, str):
        return _sized(2, len(value)) + value.encode()
    if isinstance(value, list):
        return bytes([len(value), 4]) + b"".join(map(encoded, value))
    return bytes([7 << 5 | len(value)]) + b"".join(encoded(name) + encoded(one) for name, one in value.items())


def _sized(kind: int, size: int) -> bytes:
    if size < 29:
        return bytes([kind << 5 | size])
    if size < 285:
        return bytes([kind << 5 | 29, size - 29])
    return bytes([kind << 5 | 30]) + (size - 285).to_bytes(2, "big")


def made(bits: int, networks: dict[str, dict[str, Any]], version: int = 6) -> bytes:
    """A database with records of so many bits."""
    tree: list[list[Any]] = [[None, None]]
    records = b""
    places: list[int] = []
    for text, record in networks.items():
        network = ip_network(text)
        number, length = int(network.network_address), network.prefixlen
        if version == 6 and network.version == 4:
            length += 96
        width = 128 if version == 6 else 32
        node = 0
        for bit in range(length - 1):
            side = number >> (width - 1 - bit) & 1
            if tree[node][side] is None:
                tree.append([None, None])
                tree[node][side] = len(tree) - 1
            node = tree[node][side]
        tree[node][number >> (width - length) & 1] = ("record", len(places))
        places.append(len(records))
        # Every record is reached by a pointer, as most are in real databases.
        records += encoded(record)
    count = len(tree)
    data = b""
    for left, right in tree:
        values = []
        for side in (left, right):
            if side is None:
                values.append(count)
            elif isinstance(side, tuple):
                values.append(count + 16 + places[side[1]])
            else:
                values.append(side)
        data += _node(bits, *values)
    metadata = {"node_count": count, "record_size": bits, "ip_version": version}
    return data + bytes(16) + records + b"\xab\xcd\xefMaxMind.com" + encoded(metadata)


def _node(bits: int, left: int, right: int) -> bytes:
    if bits == 28:
        middle = (left >> 24) << 4 | right >> 24
        return (left & 0xFFFFFF).to_bytes(3, "big") + bytes([middle]) + (right & 0xFFFFFF).to_bytes(3, "big")
    return left.to_bytes(bits // 8, "big") + right.to_bytes(bits // 8, "big")


@pytest.mark.parametrize("bits", [24, 28, 32])
def test_an_address_has_the_names_of_its_network(bits: int) -> None:
    """Countries and autonomous systems, of both families, in the spellings of several makers."""
    names = NetworkNames((Database(made(bits, NETWORKS)),))
    found = {
        address: (names.name(address, "country"), names.name(address, "as"))
        for address in ("203.0.113.9", "198.51.100.129", "198.51.100.1", "2001:db8:1::9", "2001:db9::", "no address")
    }
    assert found == {
        "203.0.113.9": ("DE", ""),
        "198.51.100.129": ("", "AS64500 Example, Ltd."),
        "198.51.100.1": ("", ""),
        "2001:db8:1::9": ("NL", "AS64501 Other"),
        "2001:db9::": ("", ""),
        "no address": ("", ""),
    }


def test_a_database_for_ipv4_alone_has_no_ipv6() -> None:
    """An address of the other family has no name there; the next database may have one."""
    four = Database(made(24, {"203.0.113.0/24": {"country": {"iso_code": "DE"}}}, version=4))
    names = NetworkNames((four, Database(made(24, NETWORKS))))
    assert (names.name("203.0.113.9", "country"), names.name("2001:db8::1", "country")) == ("DE", "NL")


def test_packets_are_counted_by_the_names_of_networks() -> None:
    """As by any other key."""
    groups = Groups(keys("country"), "as", NetworkNames((Database(made(28, NETWORKS)),)))
    groups.add(Event("denied", "m", {"src": src}, None) for src in ("203.0.113.9", "203.0.113.8", "2001:db8::1", "::1"))
    assert groups.table(9)[1] == [["DE", 2, 1], ["NL", 1, 1], ["-", 1, 1]]


def test_a_pointer_is_followed_and_a_loop_of_them_is_not() -> None:
    """Damaged and hostile files are errors."""
    whole = made(24, {"203.0.113.0/24": {"country": {"iso_code": "DE"}}})
    start = whole.index(encoded({"country": {"iso_code": "DE"}}))
    looping = whole[:start] + bytes([1 << 5, 0]) + whole[start + 2 :]
    with pytest.raises(DatabaseError, match="is damaged: a record is nested too deeply"):
        NetworkNames((Database(looping),)).name("203.0.113.9", "country")
    for data in (b"", b"root:x:0:0", b"\xab\xcd\xefMaxMind.com" + encoded({"node_count": 1}), whole[len(whole) - 40 :]):
        with pytest.raises(DatabaseError):
            Database(data).find("203.0.113.9")


@given(st.data())
def test_whatever_a_file_holds_it_is_read_or_refused(data: st.DataObject) -> None:
    """No byte of a database makes anything but an answer or a DatabaseError."""
    whole = bytearray(made(24, NETWORKS))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        database = Database(bytes(whole))
        for address in ("203.0.113.9", "198.51.100.129", "2001:db8::1"):
            NetworkNames((database,)).name(address, "country")
    except DatabaseError:
        pass
